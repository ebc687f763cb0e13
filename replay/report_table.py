"""The tables of a report: its runs side by side, in words."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from replay.printing import MISSING, per_second, quantity
from sim.report_runs import Reported
from sim.slo import Slo, attainment
from sim.summary import summarize

METRICS = (
    ("energy", "total_energy_j", "J"),
    ("per request", "energy_j_per_request", "J"),
    ("per output token", "energy_j_per_output_token", "J"),
    ("mean power", "mean_power_w", "W"),
    ("carbon", "carbon_g", "g"),
    ("makespan", "makespan_s", "s"),
    *(
        (f"{latency.upper()} {level}", f"{latency}_{level}_s", "s")
        for latency in ("ttft", "tpot", "e2e")
        for level in ("p50", "p90", "p99")
    ),
)
MANYFOLD = 3
"""From this ratio on, a number is said to be so many times another, not so much more."""
SOURCES = {
    "simulated": "energy from a measured table",
    "assumed": "energy ASSUMED, not measured",
    "twin": "energy the twin's, NOT measured",
    "nvml": "energy by the GPUs' counters",
    "none": "energy not metered",
}


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell: its text, what stands small beside it, and its mark: `good`, `bad`, `doubtful` or none."""

    text: str
    note: str = ""
    mark: str = ""


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a table: what it is about, a cell a run, and whether a rule is drawn above it."""

    label: str
    cells: tuple[Cell, ...]
    begins_group: bool = False


def summary_lines(runs: Sequence[Reported], slos: Sequence[Slo]) -> list[Line]:
    """Return the numbers of the runs side by side.

    A note tells how far each is from the first run's, where they are of the same requests.
    """
    lines = [
        _line("valid", runs, _validity),
        _line("kind", runs, _kind),
        _line("served", runs, _served),
    ]
    for label, metric, unit in METRICS:
        if metric == "carbon_g" and all(one.summary.carbon_g is None for one in runs):
            continue
        cells = tuple(_number(one, runs[0], metric, unit) for one in runs)
        lines.append(Line(label, cells, begins_group=label in ("energy", "TTFT p50", "TPOT p50", "E2E p50")))
        if metric == "total_energy_j" and any(one.summary.energy_low_j is not None for one in runs):
            lines.append(_line("with 95 % confidence", runs, _interval))
    for place, slo in enumerate(slos):
        cells = tuple(_limit(one, slo) for one in runs)
        lines.append(Line(slo.words, cells, begins_group=place == 0))
    limits = [slo for slo in slos if slo.percentile is None]
    if limits:
        lines.append(_line("goodput", runs, partial(_goodput, limits=limits)))
    return lines


def fact_lines(runs: Sequence[Reported]) -> list[Line]:
    """Return all of run.json side by side; where the runs differ, the cells are marked `differs`."""
    flat = [dict(_flattened(one.facts)) for one in runs]
    lines = []
    for name in dict.fromkeys(name for facts in flat for name in facts):
        texts = [facts.get(name, MISSING) for facts in flat]
        mark = "differs" if len(set(texts)) > 1 else ""
        lines.append(Line(name, tuple(Cell(text, mark=mark) for text in texts)))
    return lines


def guard_lines(runs: Sequence[Reported]) -> list[Line]:
    """Return every guard's claim and its verdict on each run."""
    claims = dict.fromkeys((one.number, one.claim) for run in runs for one in run.judgements)
    marks = {"holds": "good", "fails": "bad", "does not apply": ""}
    lines = []
    for number, claim in sorted(claims, key=lambda claim: (claim[0] is None, claim[0] or 0)):
        cells = []
        for run in runs:
            found = next((one for one in run.judgements if one.number == number), None)
            if found is None:
                cells.append(Cell("holds", mark="good"))
            else:
                cells.append(Cell(found.verdict, "; ".join(found.reasons), marks[found.verdict]))
        lines.append(Line(claim if number is None else f"{number}. {claim}", tuple(cells)))
    return lines


def _line(label: str, runs: Sequence[Reported], cell: Callable[[Reported], Cell]) -> Line:
    return Line(label, tuple(cell(one) for one in runs))


def _validity(one: Reported) -> Cell:
    return Cell("NOT VALID", "see above", "bad") if one.invalid_reasons else Cell("yes", mark="good")


def _kind(one: Reported) -> Cell:
    source = one.summary.energy_source
    mark = "doubtful" if source in ("assumed", "twin") else ""
    return Cell(one.run.meta.kind, SOURCES[source], mark)


def _served(one: Reported) -> Cell:
    summary = one.summary
    text = f"{summary.served:,} of {summary.requests:,}"
    return Cell(text, f"{summary.failed:,} failed" if summary.failed else "", "bad" if summary.failed else "")


def _number(one: Reported, first: Reported, metric: str, unit: str) -> Cell:
    value, other = getattr(one.summary, metric), getattr(first.summary, metric)
    if one is first or value is None or not other or not _serve_the_same(one, first):
        return Cell(quantity(value, unit))
    ratio = value / other
    change = f"{100 * (ratio - 1):+.1f} %" if ratio < MANYFOLD else f"× {ratio:.1f}"
    return Cell(quantity(value, unit), change.replace("-", "−"))


def _serve_the_same(one: Reported, other: Reported) -> bool:
    """Say whether two runs are of the same requests, whenever these come."""
    return np.array_equal(one.run.outcomes.prompt_tokens, other.run.outcomes.prompt_tokens)


def _interval(one: Reported) -> Cell:
    low_j, high_j = one.summary.energy_low_j, one.summary.energy_high_j
    return Cell(MISSING if low_j is None else f"{quantity(low_j, 'J')} to {quantity(high_j, 'J')}")


def _limit(one: Reported, slo: Slo) -> Cell:
    fare = attainment(one.run, slo)
    mark = "good" if fare.is_kept else "bad"
    share = f"{100 * fare.fraction:.2f} % of requests"
    if slo.percentile is None:
        return Cell(share, mark=mark)
    return Cell("kept" if fare.is_kept else "MISSED", f"{quantity(fare.value_s, 's')}; {share}", mark)


def _goodput(one: Reported, limits: Sequence[Slo]) -> Cell:
    summary = summarize(one.run, limits)
    attained = summary.attainment_fraction
    note = "" if attained is None else f"{100 * attained:.2f} % keep all limits of each request"
    return Cell(per_second(summary.goodput_rps), note)


def _flattened(facts: dict[Any, Any], prefix: str = "") -> list[tuple[str, str]]:
    flat = []
    for name, value in facts.items():
        if isinstance(value, list) and any(isinstance(one, dict) for one in value):
            value = dict(enumerate(value))
        if isinstance(value, dict) and value:
            flat += _flattened(value, f"{prefix}{name}.")
        elif isinstance(value, list):
            flat.append((f"{prefix}{name}", " · ".join(map(_text, value)) or MISSING))
        else:
            flat.append((f"{prefix}{name}", _text(value)))
    return flat


def _text(value: object) -> str:
    if value is None or value == {}:
        return MISSING
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.10g}" if isinstance(value, float) else str(value)
