"""A sweep in a report: its results by workload, and the figure of energy against a latency with the front."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sim.report_figure import GREY, RUN_COLORS, Figure, Trace, color_of, log_axis, text_of
from sim.slo import LATENCIES, Slo, words_of
from sim.summary import Summary
from sim.sweep_front import QUANTILES, latency_s
from sim.sweep_ranking import Ranked, rank
from sim.sweep_result import Result
from sim.sweep_slos import Slos
from traces.trace import Floats

SWEEP_FILE = "sweep.parquet"
FIRST_LATENCY = "e2e_p99"
SHAPES: Final = ("circle", "square", "diamond")
"""Of policies of one colour."""
LOOKS: Final = {"keeps": "", "violates": ", violates", "invalid": ", NOT VALID"}
CAPTION = (
    "A point is a combination of policy and options; the menu chooses the latency. The line is the Pareto "
    "front: no other combination has both less energy and a shorter latency. Hollow: violates a limit (SLO). "
    "Cross: NOT VALID, and on no front."
)


@dataclass(frozen=True, slots=True)
class Workload:
    """What a sweep found for one trace, or one part of it.

    Attributes:
        name: Of the trace.
        rows: The valid first, the least energy per request first; `on_front` is that of FIRST_LATENCY.
        fronts: By latency, which rows are on its front.
    """

    name: str
    rows: tuple[Ranked, ...]
    fronts: dict[str, tuple[bool, ...]]


def read_sweep(folder: Path, slos: Sequence[Slo]) -> tuple[Workload, ...]:
    """Return the workloads of the sweep in `folder`.

    Args:
        folder: Holds sweep.parquet.
        slos: Limits to judge by, as far as they are of p50, p90 or p99; those of the sweep if there are none.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is damaged, or of another version.
    """
    path = folder / SWEEP_FILE
    try:
        columns: list[dict[str, Any]] = pq.read_table(path).to_pylist()
        results = [_result(values) for values in columns]
        told = {id(result): values["violates"] for result, values in zip(results, columns, strict=True)}
    except (pa.ArrowInvalid, LookupError, TypeError) as error:
        raise ValueError(f"{path}: not a sweep as this version of replay writes it ({error})") from error
    limits = Slos(tuple(slo for slo in slos if slo.name in QUANTILES))
    ranked = {latency: rank(results, latency, limits) for latency in QUANTILES}
    workloads = []
    for name, rows in ranked[FIRST_LATENCY].items():
        judged = rows if limits.slos else [replace(one, violates=tuple(told[id(one.result)])) for one in rows]
        fronts = {latency: tuple(one.on_front for one in ranked[latency][name]) for latency in QUANTILES}
        workloads.append(Workload(name, tuple(judged), fronts))
    return tuple(workloads)


def sweep_figure(workload: Workload, key: str) -> Figure:
    """Return energy per request against a latency, chosen from a menu, with the front.

    Args:
        workload: At least one result.
        key: Name of the figure in the page.
    """
    places = {id(one): place for place, one in enumerate(workload.rows)}
    groups: dict[tuple[str, str], list[Ranked]] = {}
    for one in workload.rows:
        groups.setdefault((one.result.inputs["policy"], _look(one)), []).append(one)
    groups = dict(sorted(groups.items()))
    policies = list(dict.fromkeys(policy for policy, _ in groups))
    front = {"type": "scatter", "mode": "lines", "name": "front", "line": {"color": GREY, "width": 1.5}}
    data: list[Trace] = [{**front, "hoverinfo": "skip"}]
    for (policy, look), rows in groups.items():
        number = policies.index(policy)
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": text_of(policy) + LOOKS[look],
                "y": _energies(rows),
                "marker": {**_marker(number, look), "color": color_of(number)},
                "customdata": [places[id(one)] for one in rows],
                "hovertext": [_told(one) for one in rows],
                "hoverinfo": "text",
            }
        )
    choices = {latency: _positions(workload, list(groups.values()), latency) for latency in QUANTILES}
    for trace, x, y in zip(data, *choices[FIRST_LATENCY], strict=True):
        trace |= {"x": x, "y": y}
    layout = {
        "hovermode": "closest",
        "xaxis": _axis(workload, FIRST_LATENCY),
        "yaxis": log_axis("energy per request, J", [_energies(workload.rows)]),
        "margin": {"t": 56},
        "updatemenus": [_menu(workload, choices)],
    }
    return Figure(key, f"Sweep: {workload.name}", CAPTION, data, layout, 560)


def _result(values: dict[str, Any]) -> Result:
    names = {field.name for field in fields(Summary)}
    summary = {name: values[name] for name in names}
    summary["invalid_reasons"] = tuple(summary["invalid_reasons"])
    return Result({name: value for name, value in values.items() if name not in names}, Summary(**summary))


def _look(one: Ranked) -> str:
    if not one.result.summary.energy_valid:
        return "invalid"
    return "violates" if one.violates else "keeps"


def _marker(number: int, look: str) -> dict[str, Any]:
    shape = SHAPES[number // len(RUN_COLORS) % len(SHAPES)]
    symbol = {"keeps": shape, "violates": f"{shape}-open", "invalid": "x-thin-open"}[look]
    return {"symbol": symbol, "size": 10, "line": {"width": 0 if look == "keeps" else 2}}


def _energies(rows: Sequence[Ranked]) -> Floats:
    return np.array([one.result.summary.energy_j_per_request for one in rows], dtype=np.float64)


def _latencies(rows: Sequence[Ranked], latency: str) -> Floats:
    return np.array([latency_s(one.result.summary, latency) for one in rows], dtype=np.float64)


def _positions(
    workload: Workload, groups: Sequence[Sequence[Ranked]], latency: str
) -> tuple[list[Floats], list[Floats]]:
    """Return x and y of the front, then of each group."""
    on_front = [one for one, is_on in zip(workload.rows, workload.fronts[latency], strict=True) if is_on]
    on_front.sort(key=lambda one: latency_s(one.result.summary, latency) or 0.0)
    lines = [on_front, *groups]
    return [_latencies(rows, latency) for rows in lines], [_energies(rows) for rows in lines]


def _axis(workload: Workload, latency: str) -> dict[str, Any]:
    return log_axis(f"{words_of(latency)}, s", [_latencies(workload.rows, latency)])


def _menu(workload: Workload, choices: dict[str, tuple[list[Floats], list[Floats]]]) -> dict[str, Any]:
    buttons = []
    for latency, (x, y) in choices.items():
        axis = {f"xaxis.{name}": value for name, value in _axis(workload, latency).items()}
        moved = {"x": [list(each) for each in x], "y": [list(each) for each in y]}
        again = {"xaxis.autorange": True, "yaxis.autorange": True}
        buttons.append({"label": words_of(latency), "method": "update", "args": [moved, {**axis, **again}]})
    first = list(choices).index(FIRST_LATENCY)
    place = {"x": 1, "xanchor": "right", "y": 1, "yanchor": "bottom", "pad": {"b": 6}}
    return {"buttons": buttons, "active": first, "showactive": True, **place}


def _told(one: Ranked) -> str:
    summary = one.result.summary
    lines = [one.name, f"{summary.energy_j_per_request or float('nan'):.4g} J a request"]
    for metric in LATENCIES:
        values = [latency_s(summary, f"{metric}_{level}") for level in ("p50", "p99")]
        p50, p99 = ("-" if value_s is None else f"{value_s:.4g} s" for value_s in values)
        lines.append(f"{metric.upper()} p50 {p50}, p99 {p99}")
    if one.violates:
        lines.append("violates " + ", ".join(map(words_of, one.violates)))
    lines += [f"NOT VALID: {reason}" for reason in summary.invalid_reasons]
    return "<br>".join(map(text_of, lines))
