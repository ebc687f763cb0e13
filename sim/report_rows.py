"""What figures over time share: rows above one time axis, and lines over stretches."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from sim.report_figure import Trace
from sim.report_time import Series
from traces.trace import Floats

GAP = 0.16
"""Between rows, by the height of a row of height 1."""
SPIKE = {"showspikes": True, "spikemode": "across", "spikedash": "solid", "spikethickness": -1}
"""The line under the mouse; a width below 0 is one without an edge."""
LONG_S = 3 * 3600.0
"""A run longer than this has hours on its time axis."""
FRAME_PX = 96
"""Height of all but the rows: legend, time axis."""


def rows_layout(
    titles: Sequence[str], heights: Sequence[float], longest_s: float, width_s: float
) -> dict[str, Any]:
    """Return the layout of rows above one time axis.

    Its `meta` tells the page how long a stretch is, so that it can take several together.

    Args:
        titles: Of the rows' axes, with units.
        heights: Of the rows, relative to one another.
        longest_s: Where the time axis ends.
        width_s: Length of a stretch.
    """
    layout: dict[str, Any] = {
        "hovermode": "x unified",
        "hoversubplots": "axis",
        "meta": {"stretch_s": width_s},
        "xaxis": {
            "title": {"text": f"time since the replay began, {_time_unit(longest_s)[1]}"},
            "anchor": row_axis(len(titles) - 1),
            "hoverformat": ",.5~g",
            **SPIKE,
            "unifiedhovertitle": {"text": f"at %{{x}} {_time_unit(longest_s)[1]}"},
        },
    }
    whole, top = sum(heights) + GAP * (len(heights) - 1), 1.0
    for place, (title, height) in enumerate(zip(titles, heights, strict=True)):
        bottom = max(top - height / whole, 0.0)
        layout["yaxis" + row_axis(place)[1:]] = {
            "title": {"text": title},
            "domain": [bottom, top],
            "anchor": "x",
            "rangemode": "tozero",
        }
        top = bottom - GAP / whole
    return layout


def row_axis(place: int) -> str:
    """Return the axis of row `place`, as Plotly calls it."""
    return "y" if place == 0 else f"y{place + 1}"


def time_line(curve: Series, longest_s: float, values: Floats, place: int) -> Trace:
    """Return what all lines over time have.

    Args:
        curve: Tells the stretches.
        longest_s: Where the time axis ends.
        values: One a stretch, the mean over it, or one an edge.
        place: Of the row.
    """
    is_mean = len(values) < len(curve.edges_s)
    return {
        "type": "scatter",
        "mode": "lines",
        "meta": "means" if is_mean else "values",
        "x": (curve.edges_s / _time_unit(longest_s)[0]).astype(np.float32),
        "y": (np.append(values, values[-1]) if is_mean else values).astype(np.float32),
        "yaxis": row_axis(place),
        "line": {"shape": "hv" if is_mean else "linear"},
    }


def zoom_text(width_s: float) -> str:
    """Return what a caption says of stretches of this length."""
    return f"Drag to zoom in: means are over shorter times then, down to {width_s:g} s."


def _time_unit(longest_s: float) -> tuple[float, str]:
    return (3600.0, "h") if longest_s > LONG_S else (1.0, "s")
