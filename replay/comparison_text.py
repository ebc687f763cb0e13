"""A comparison as a person reads it: text, Markdown, and one line a case."""

import json
from collections.abc import Sequence
from dataclasses import asdict

from replay.printing import MISSING, money, quantity
from replay.screen import View, bad, heading, table
from sim.compare import Comparison, Row

LABELS = {
    "total_energy_j": "energy",
    "prefill_energy_j": "  prefill",
    "decode_energy_j": "  decode",
    "idle_energy_j": "  idle",
    "mean_power_w": "mean power",
    "makespan_s": "makespan",
    "carbon_g": "carbon",
}
IN_SHORT = (
    "total_energy_j",
    "ttft_p50_s",
    "ttft_p99_s",
    "tpot_p50_s",
    "tpot_p99_s",
    "e2e_p50_s",
    "e2e_p99_s",
)
STEPS = {
    "decode": "steps that only decode",
    "prompts": "steps that hold prompts, with the one before",
    "launch": "launches of these",
}
BEYOND = "beyond the target"
NOT_VALID = "NOT VALID"
LABEL = 10
"""Least width of the first column, in characters."""


def comparison_json(comparison: Comparison) -> str:
    """Return the comparison as one JSON object, its keys those of `Comparison`, missing as null."""
    return json.dumps(asdict(comparison), allow_nan=False)


def comparison_view(comparison: Comparison) -> View:
    """Return the comparison as tables."""
    rows = []
    for row in comparison.rows:
        mark = bad(BEYOND) if row.is_within_target is False else ""
        rows.append((_label(row.metric, comparison), *_cells(row), mark))
    numbers = table(rows, "lrrrrl", heads=(*_headings(comparison), ""), widths=(LABEL,))
    remarks = [bad(text) if text.startswith(NOT_VALID) else text for text in _remarks(comparison)]
    return [heading(_title(comparison)), "", numbers, "", *remarks]


def comparison_markdown(comparison: Comparison) -> str:
    """Return the comparison as a Markdown table; errors beyond their target are bold."""
    lines = [f"### {_title(comparison)}", "", *_head(_headings(comparison))]
    for row in comparison.rows:
        simulated, measured, error, noise = _cells(row)
        error = f"**{error}**" if row.is_within_target is False else error
        lines.append(_line((_label(row.metric, comparison).strip(), simulated, measured, error, noise)))
    lines += ["", *(f"- {remark}" for remark in _remarks(comparison))]
    return "\n".join(lines) + "\n"


def overview_markdown(cases: Sequence[tuple[str, Comparison]]) -> str:
    """Return a Markdown table with a line for each named comparison: the errors that have a target.

    Args:
        cases: Names and comparisons, at least one, all of one kind.
    """
    headings = (
        "case",
        "requests",
        f"{cases[0][1].kind} energy",
        "noise",
        "95 %",
        "energy",
        "as logged",
        "TTFT p50",
        "p99",
        "TPOT p50",
        "p99",
    )
    lines = _head((*headings, "E2E p50", "p99"))
    for name, comparison in cases:
        total = comparison.row("total_energy_j")
        facts = (
            name,
            f"{comparison.requests:,}",
            quantity(total.measured, "J"),
            _percent(total.noise_fraction),
            _margin(comparison),
        )
        energy, *latencies = (_marked(comparison.row(metric)) for metric in IN_SHORT)
        logged = comparison.logged
        by_log = MISSING if logged is None else _percent(logged.error_fraction, sign=True)
        lines.append(_line((*facts, energy, by_log, *latencies)))
    return "\n".join(lines) + "\n"


def _headings(comparison: Comparison) -> tuple[str, ...]:
    return ("", "simulated", comparison.kind, "error", "noise")


def _title(comparison: Comparison) -> str:
    gpu = comparison.gpu or "an unknown GPU"
    times = "once" if comparison.measured_runs == 1 else f"{comparison.measured_runs} times"
    return (
        f"{comparison.trace_name}, policy {comparison.policy}: {comparison.requests:,} requests, "
        f"simulated by {comparison.table}, "
        + (
            f"measured {times} on {gpu}"
            if comparison.kind == "measured"
            else f"run {times} on a twin of {gpu}"
        )
    )


def _label(metric: str, comparison: Comparison) -> str:
    if metric in LABELS:
        return LABELS[metric]
    if metric == "price":
        return "price" if comparison.currency is None else f"price, {comparison.currency}"
    latency, level, _ = metric.split("_")
    return f"{latency.upper()} {level}"


def _cells(row: Row) -> tuple[str, str, str, str]:
    values = _value(row.metric, row.simulated), _value(row.metric, row.measured)
    return (*values, _percent(row.error_fraction, sign=True), _percent(row.noise_fraction))


def _value(metric: str, value: float | None) -> str:
    if metric == "price":
        return money(value)
    suffix = metric.rsplit("_", 1)[1]
    return quantity(value, {"j": "J", "w": "W"}.get(suffix, suffix))


def _percent(fraction: float | None, *, sign: bool = False) -> str:
    if fraction is None:
        return MISSING
    return f"{100 * fraction:+.2f} %" if sign else f"{100 * fraction:.2f} %"


def _margin(comparison: Comparison) -> str:
    """Return half the interval, of the simulated energy, with a mark if the measured one lies outside."""
    if comparison.margin_fraction is None:
        return MISSING
    mark = " (outside)" if comparison.is_in_interval is False else ""
    return f"± {_percent(comparison.margin_fraction)}{mark}"


def _marked(row: Row) -> str:
    error = _percent(row.error_fraction, sign=True)
    return f"**{error}**" if row.is_within_target is False else error


def _remarks(comparison: Comparison) -> list[str]:
    remarks = []
    if comparison.interval_j is not None:
        low, high = (quantity(bound_j, "J") for bound_j in comparison.interval_j)
        place = {True: "inside", False: "OUTSIDE", None: "unknown beside"}[comparison.is_in_interval]
        remarks.append(f"{comparison.kind} energy {place} the simulation's 95 % interval, {low} to {high}")
    if comparison.curve is not None:
        curve = comparison.curve
        size = f"{quantity(curve.deviation_j, 'J')} ({100 * curve.deviation_fraction:+.2f} % of the total)"
        remarks.append(f"energy over time: at most {size} off, at {curve.at_s:.1f} s")
    for errors in comparison.latencies:
        signed = (errors.p5_fraction, errors.p50_fraction, errors.p95_fraction)
        p5, p50, p95 = (_percent(value, sign=True) for value in signed)
        half, most = _percent(errors.absolute_p50_fraction), _percent(errors.absolute_p99_fraction)
        remarks.append(
            f"{errors.latency.upper()} request by request: {p50} at the median, {p5} to {p95} from p5 to "
            f"p95; in size {half} at p50, {most} at p99"
        )
    for steps in comparison.steps:
        times = (quantity(steps.simulated_s, "s"), quantity(steps.measured_s, "s"))
        error = _percent(steps.error_fraction, sign=True)
        remarks.append(
            f"{STEPS[steps.kind]}: {times[0]} by the table, {times[1]} measured, {error} ({steps.steps:,})"
        )
    if comparison.logged is not None:
        logged = comparison.logged
        by_table, measured = quantity(logged.simulated_j, "J"), quantity(logged.measured_j, "J")
        error = _percent(logged.error_fraction, sign=True)
        remarks.append(
            f"energy of the steps as logged: {by_table} by the table, {measured} measured, {error}"
        )
    remarks += [f"not alike: {difference}" for difference in comparison.differences]
    remarks += [f"{NOT_VALID}: {reason}" for reason in comparison.invalid]
    return remarks


def _head(headings: Sequence[str]) -> list[str]:
    return [_line(headings), _line(["---"] + ["---:"] * (len(headings) - 1))]


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
