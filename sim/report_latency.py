"""The figure of latencies: their distributions, with the limits on them."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from sim.metrics import latency_s
from sim.report_figure import SLO_COLOR, Figure, Trace, line_of, log_axis, text_of
from sim.report_runs import Reported
from sim.slo import LATENCIES, Slo
from traces.trace import Floats

MOST_STEPS = 500
"""Requests that a distribution is drawn through; of more, as many are taken at equal distances."""
CAPTION = (
    "The part of the requests that had at most this latency. TTFT: arrival to first token, holding and "
    "queueing included. TPOT: time per output token after the first. E2E: arrival to last token."
)
GAP = 0.03


def latencies(runs: Sequence[Reported], slos: Sequence[Slo]) -> Figure:
    """Return the distributions of TTFT, TPOT and E2E, a line a run, with the limits `slos`."""
    data: list[Trace] = []
    layout: dict[str, Any] = {
        "hovermode": "closest",
        "yaxis": {"title": {"text": "requests, %"}, "range": [0, 101]},
        "shapes": [],
        "annotations": [],
    }
    for place, latency in enumerate(LATENCIES):
        key = "x" if place == 0 else f"x{place + 1}"
        limits = [slo for slo in slos if slo.latency == latency]
        values_s = [latency_s(one.run.outcomes, latency) for one in runs]
        axis = log_axis(f"{latency.upper()}, s", [*values_s, np.array([slo.limit_s for slo in limits])])
        domain = place / 3 + (GAP if place else 0), (place + 1) / 3 - (GAP if place < 2 else 0)
        layout[f"xaxis{key[1:]}"] = {**axis, "domain": domain, "anchor": "y"}
        for number, one in enumerate(runs):
            line = _distribution(values_s[number], latency)
            group = {"name": text_of(one.name), "legendgroup": str(number), "showlegend": place == 0}
            data.append({**line, **group, "line": {**line_of(number), "shape": "hv"}, "xaxis": key})
        layout["shapes"] += [_limit(slo, key) for slo in limits]
        layout["annotations"] += [_limit_name(slo, key) for slo in limits]
    caption = CAPTION
    if any(len(one.run.outcomes) > MOST_STEPS for one in runs):
        caption += f" Lines are drawn through {MOST_STEPS} requests where there are more."
    if slos:
        caption += " A dashed line is a limit (SLO)."
    return Figure("latency", "Latencies", caption, data, layout, 400)


def _distribution(values_s: Floats, latency: str) -> Trace:
    sorted_s = np.sort(values_s[values_s > 0])
    rows = np.arange(len(sorted_s))
    if len(rows) > MOST_STEPS:
        rows = np.unique(np.linspace(0, len(rows) - 1, MOST_STEPS).round().astype(np.int64))
    return {
        "type": "scatter",
        "mode": "lines",
        "x": sorted_s[rows],
        "y": (100 * (rows + 1) / max(len(sorted_s), 1)).astype(np.float32),
        "hovertemplate": f"%{{y:.1f}} % within {latency.upper()} %{{x:.4s}}s",
    }


def _limit(slo: Slo, axis: str) -> dict[str, Any]:
    return {
        "type": "line",
        "xref": axis,
        "yref": "paper",
        "x0": slo.limit_s,
        "x1": slo.limit_s,
        "y0": 0,
        "y1": 1,
        "line": {"color": SLO_COLOR, "width": 1.5, "dash": "dash"},
    }


def _limit_name(slo: Slo, axis: str) -> dict[str, Any]:
    return {
        "text": slo.words,
        "xref": axis,
        "yref": "paper",
        "x": float(np.log10(slo.limit_s)),
        "y": 0.02,
        "yanchor": "bottom",
        "xanchor": "right",
        "textangle": -90,
        "showarrow": False,
        "font": {"color": SLO_COLOR, "size": 11},
    }
