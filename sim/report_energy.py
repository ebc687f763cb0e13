"""Figures of energy: where it goes, and what requests take."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sim.metrics import latency_s
from sim.report_figure import GREY, PHASE_COLORS, Figure, Trace, color_of, log_axis, scaled, text_of
from sim.report_runs import Reported
from sim.report_time import PHASES
from sim.summary import Summary

MOST_POINTS = 1500
"""Requests of a run that are drawn; of more, as many are taken at equal distances."""
SPLIT = (
    "All GPUs from time 0 to the last completion: engine steps by their prompt tokens (prefill) and by their "
    "decoding sequences (decode), and everything between the steps (idle)."
)
INTERVAL = " The whisker is what a simulated total lies between, with 95 % confidence."
BY_TOKENS = (
    "A point is a request: its share of its steps' energy, idle energy left out. The same request takes less "
    "in a full batch."
)


def energy_split(runs: Sequence[Reported]) -> Figure | None:
    """Return the energy of each run by where it went, None if no run was metered."""
    metered = [(text_of(one.name), one.summary) for one in runs if one.summary.total_energy_j is not None]
    if not metered:
        return None
    factor, unit = scaled(max(summary.total_energy_j or 0.0 for _, summary in metered), "J")
    split = [(name, summary) for name, summary in metered if summary.prefill_energy_j is not None]
    whole = [(name, summary) for name, summary in metered if summary.prefill_energy_j is None]
    data = [_bars(part, f"{part}_energy_j", PHASE_COLORS[part], split, factor, unit) for part in PHASES]
    if whole:
        data.append(_bars("not split", "total_energy_j", GREY, whole, factor, unit))
    sure = [(name, summary) for name, summary in metered if summary.energy_low_j is not None]
    if sure:
        data.append(_whiskers(sure, factor, unit))
    layout = {
        "barmode": "stack",
        "bargap": 0.35,
        "hovermode": "closest",
        "uniformtext": {"minsize": 10, "mode": "hide"},
        "xaxis": {"title": {"text": f"energy, {unit}"}, "rangemode": "tozero"},
        "yaxis": {
            "type": "category",
            "categoryorder": "array",
            "categoryarray": [name for name, _ in metered],
            "autorange": "reversed",
            "automargin": True,
        },
        "legend": {"traceorder": "normal"},
    }
    caption = SPLIT + (INTERVAL if sure else "")
    return Figure("split", "Where the energy goes", caption, data, layout, 110 + 44 * len(metered))


def energy_by_tokens(runs: Sequence[Reported]) -> Figure | None:
    """Return each request's energy against its tokens, None if no run knows the requests' shares."""
    data, left_out = [], []
    for number, one in enumerate(runs):
        rows = np.flatnonzero(one.run.outcomes.energy_j > 0)
        if not len(rows):
            left_out.append(f"{one.name} does not tell the requests' shares.")
            continue
        if len(rows) > MOST_POINTS:
            left_out.append(f"Of {one.name}, {MOST_POINTS:,} of {len(rows):,} requests are drawn.")
            rows = rows[np.linspace(0, len(rows) - 1, MOST_POINTS).astype(np.int64)]
        data.append(_points(one, rows, color_of(number)))
    if not data:
        return None
    layout = {
        "hovermode": "closest",
        "xaxis": log_axis("prompt and output tokens of the request", [line["x"] for line in data]),
        "yaxis": log_axis("energy of the request, J", [line["y"] for line in data]),
    }
    caption = " ".join([BY_TOKENS, *left_out])
    return Figure("tokens", "What a request takes", caption, data, layout, 460)


def _points(one: Reported, rows: NDArray[np.int64], color: str) -> Trace:
    outcomes = one.run.outcomes
    prompt, output = outcomes.prompt_tokens[rows], outcomes.output_tokens[rows]
    e2e_s = latency_s(outcomes, "e2e")[rows]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": text_of(one.name),
        "x": (prompt + output).astype(np.float32),
        "y": outcomes.energy_j[rows].astype(np.float32),
        "customdata": np.column_stack([outcomes.request_id[rows], prompt, output, e2e_s]),
        "marker": {"color": color, "size": 5, "opacity": 0.45},
        "hovertemplate": "request %{customdata[0]:d}: %{customdata[1]:d} prompt and "
        "%{customdata[2]:d} output tokens<br>%{y:.4s}J, E2E %{customdata[3]:.3s}s",
    }


def _bars(
    part: str, metric: str, color: str, rows: Sequence[tuple[str, Summary]], factor: float, unit: str
) -> Trace:
    values_j = [float(getattr(summary, metric)) for _, summary in rows]
    totals_j = [summary.total_energy_j or np.nan for _, summary in rows]
    shares = [value_j / total_j for value_j, total_j in zip(values_j, totals_j, strict=True)]
    return {
        "type": "bar",
        "orientation": "h",
        "name": part,
        "y": [name for name, _ in rows],
        "x": [value_j / factor for value_j in values_j],
        "text": [f"{100 * share:.0f} %" if share >= 0.05 else "" for share in shares],
        "textposition": "inside",
        "insidetextanchor": "middle",
        "textangle": 0,
        "insidetextfont": {"color": "#10151c"},
        "customdata": [100 * share for share in shares],
        "marker": {"color": color},
        "hovertemplate": f"%{{y}}<br>{part}: %{{x:,.4r}} {unit}, %{{customdata:.1f}} %<extra></extra>",
    }


def _whiskers(rows: Sequence[tuple[str, Summary]], factor: float, unit: str) -> Trace:
    triples = [(one.energy_low_j, one.total_energy_j, one.energy_high_j) for _, one in rows]
    low, total, high = np.array(triples, dtype=np.float64).T / factor
    return {
        "type": "scatter",
        "mode": "markers",
        "name": "95 % interval",
        "y": [name for name, _ in rows],
        "x": total,
        "error_x": {"array": high - total, "arrayminus": total - low, "symmetric": False, "color": GREY},
        "marker": {"color": GREY, "size": 6},
        "customdata": np.column_stack([low, high]),
        "hovertemplate": f"%{{y}}<br>total: %{{x:,.4r}} {unit}, 95 %: %{{customdata[0]:,.4r}} to "
        f"%{{customdata[1]:,.4r}} {unit}<extra></extra>",
    }
