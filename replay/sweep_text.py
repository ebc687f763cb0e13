"""A sweep as a person reads it: on a terminal, as Markdown, as JSON, and its files."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich.console import RenderableType

from replay.printing import MISSING, money, per_second, quantity
from replay.screen import NamedRows, View, bad, faint, heading, table
from replay.sweep_run import Failure
from sim.slo import words_of
from sim.summary import Summary
from sim.sweep_front import latency_s, point
from sim.sweep_plot import plot_sweep
from sim.sweep_ranking import Ranked, best
from sim.sweep_result import write_table
from sim.sweep_slos import Slos

MOST_ROWS = 20
MARK = 2
"""Width of a column, in characters."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the tables: its title, and its cell of a run."""

    title: str
    cell: Callable[[Summary], str]


@dataclass(frozen=True, slots=True)
class Sweep:
    """Results in order, and what they were judged by.

    Attributes:
        ranked: By workload, as `sim.sweep_ranking.rank` gives them.
        latency: That of the front.
        slos: What should be kept.
        failures: Combinations without a result.
    """

    ranked: Mapping[str, Sequence[Ranked]]
    latency: str
    slos: Slos
    failures: Sequence[Failure]

    @property
    def rows(self) -> list[Ranked]:
        """All results in order."""
        return [one for rows in self.ranked.values() for one in rows]

    @property
    def columns(self) -> list[Column]:
        """What the tables show: energy, latencies of the front and of limits, and goodput if asked for."""
        latencies = dict.fromkeys([self.latency, *(slo.name for slo in self.slos.of_percentiles)])
        columns = [
            Column("J/request", lambda summary: quantity(summary.energy_j_per_request, "J")),
            *(Column(words_of(name), partial(_latency, name=name)) for name in latencies),
        ]
        if self.slos.of_requests:
            columns += [Column("attained", _attained), Column("goodput", _goodput)]
        summaries = [one.result.summary for one in self.rows]
        if any(summary.carbon_g is not None for summary in summaries):
            columns.append(Column("carbon", lambda summary: quantity(summary.carbon_g, "g")))
        if any(summary.price is not None for summary in summaries):
            currency = next((f", {summary.currency}" for summary in summaries if summary.currency), "")
            columns.append(Column(f"price{currency}", lambda summary: money(summary.price)))
        return columns


def write_sweep(sweep: Sweep, out: Path) -> None:
    """Write `sweep.parquet`, `sweep.md` and, where there is matplotlib, `sweep.png` into `out`.

    Raises:
        OSError: A file cannot be written.
    """
    rows = sweep.rows
    if rows:
        marks = [{"on_front": one.on_front, "violates": list(one.violates)} for one in rows]
        write_table([one.result for one in rows], marks, out / "sweep.parquet")
    (out / "sweep.md").write_text(sweep_markdown(sweep))
    if any(point(one.result.summary, sweep.latency) for one in rows) and find_spec("matplotlib"):
        plot_sweep(sweep.ranked, sweep.latency, out / "sweep.png")


def sweep_values(sweep: Sweep) -> dict[str, Any]:
    """Return all results, and what they were judged by."""
    rows = [
        {
            "workload": workload,
            "name": one.name,
            "inputs": one.result.inputs,
            "summary": asdict(one.result.summary),
            "on_front": one.on_front,
            "violates": one.violates,
        }
        for workload, rows in sweep.ranked.items()
        for one in rows
    ]
    judged = {"latency": sweep.latency, **sweep.slos.facts}
    return {**judged, "results": rows, "failures": [asdict(failure) for failure in sweep.failures]}


def sweep_view(sweep: Sweep) -> View:
    """Return tables, of a long one its front alone."""
    blocks = [part for workload, rows in sweep.ranked.items() for part in _block(workload, rows, sweep)]
    return [*blocks, table(_legend(sweep), "ll")]


def sweep_markdown(sweep: Sweep) -> str:
    """Return all results as Markdown tables."""
    blocks = ["# Sweep", "\n".join(f"- `{mark}` {meaning}" for mark, meaning in _legend(sweep))]
    for workload, rows in sweep.ranked.items():
        titles = ["", "combination", *(column.title for column in sweep.columns), "violates"]
        cells = [titles, ["---"] * len(titles)]
        cells += [[_mark(one), one.name, *_cells(one, sweep), ", ".join(one.violates)] for one in rows]
        lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in cells]
        blocks.append(f"## {workload}\n\n{_choice(rows, sweep)}\n\n" + "\n".join(lines))
    reasons = [f"- {_inputs(failure.inputs)}: {failure.reason}" for failure in sweep.failures]
    if reasons:
        blocks.append("## Could not be simulated\n\n" + "\n".join(reasons))
    return "\n\n".join(blocks) + "\n"


def _block(workload: str, rows: Sequence[Ranked], sweep: Sweep) -> Iterator[RenderableType]:
    shown = rows if len(rows) <= MOST_ROWS else [one for one in rows if one.on_front][:MOST_ROWS]
    heads = (" " * MARK, *(column.title for column in sweep.columns))
    yield heading(workload)
    cells = [(bad(mark) if (mark := _mark(one)).strip("*") else mark, *_cells(one, sweep)) for one in shown]
    yield NamedRows(heads, cells, [one.name for one in shown])
    if len(shown) < len(rows):
        yield faint(f"{len(rows) - len(shown)} more are in sweep.md")
    yield _choice(rows, sweep)
    yield ""


def _choice(rows: Sequence[Ranked], sweep: Sweep) -> str:
    chosen = best(rows)
    if chosen is None:
        return "No valid combination" + (" keeps every SLO." if sweep.slos.slos else ".")
    energy = quantity(chosen.result.summary.energy_j_per_request, "J")
    return f"Least energy{' within the SLOs' if sweep.slos.slos else ''}: {chosen.name}, {energy} a request"


def _legend(sweep: Sweep) -> Iterator[tuple[str, str]]:
    yield "*", f"on the front of energy against {words_of(sweep.latency)}"
    if sweep.slos.slos:
        yield "!", f"violates an SLO ({sweep.slos.words})"
    if not all(one.result.summary.energy_valid for one in sweep.rows):
        yield "x", "broke a guard"


def _mark(one: Ranked) -> str:
    if not one.result.summary.energy_valid:
        return "x"
    return "*" * one.on_front + "!" * bool(one.violates)


def _cells(one: Ranked, sweep: Sweep) -> list[str]:
    return [column.cell(one.result.summary) for column in sweep.columns]


def _latency(summary: Summary, name: str) -> str:
    return quantity(latency_s(summary, name), "s")


def _attained(summary: Summary) -> str:
    attained = summary.attainment_fraction
    return MISSING if attained is None else f"{100 * attained:.2f} %"


def _goodput(summary: Summary) -> str:
    return per_second(summary.goodput_rps)


def _inputs(inputs: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in inputs.items() if not name.endswith("_sha256"))
