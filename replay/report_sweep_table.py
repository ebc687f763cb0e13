"""The table of a sweep in a report: its best combinations in words."""

from replay.printing import quantity
from replay.report_table import Cell, Line
from sim.report_sweep import Workload
from sim.slo import words_of
from sim.sweep_front import latency_s
from sim.sweep_ranking import Ranked, best

COLUMNS = ("ttft_p50", "ttft_p99", "tpot_p50", "tpot_p99", "e2e_p50", "e2e_p99")
MOST_LINES = 20


def sweep_headings() -> tuple[str, ...]:
    """Return what the columns of `sweep_lines` are."""
    return ("energy per request", *map(words_of, COLUMNS), "verdict")


def sweep_lines(workload: Workload) -> list[Line]:
    """Return a line a combination, the least energy first, those on the front or the first MOST_LINES."""
    chosen, rows = best(workload.rows), workload.rows
    if len(rows) > MOST_LINES:
        rows = tuple(one for one in rows if one.on_front or one is chosen)[:MOST_LINES]
    return [Line(one.name, _cells(one, is_best=one is chosen)) for one in rows]


def sweep_note(workload: Workload) -> str:
    """Return what the table leaves out."""
    lines = len(sweep_lines(workload))
    if lines == len(workload.rows):
        return ""
    return f"{lines} of {len(workload.rows)} combinations, those on the front of energy against E2E p99."


def _cells(one: Ranked, *, is_best: bool) -> tuple[Cell, ...]:
    summary = one.result.summary
    latencies = (
        Cell(quantity(latency_s(summary, name), "s"), mark="bad" if name in one.violates else "")
        for name in COLUMNS
    )
    return (Cell(quantity(summary.energy_j_per_request, "J")), *latencies, _verdict(one, is_best=is_best))


def _verdict(one: Ranked, *, is_best: bool) -> Cell:
    if not one.result.summary.energy_valid:
        return Cell("NOT VALID", "; ".join(one.result.summary.invalid_reasons), "bad")
    if one.violates:
        return Cell("violates", ", ".join(map(words_of, one.violates)), "bad")
    front = "on the front" if one.on_front else ""
    return Cell("least energy within the limits", front, "good") if is_best else Cell(front)
