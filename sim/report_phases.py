"""The figure of power by phase: each run by what its requests were at."""

from collections.abc import Sequence
from typing import Any

from sim.report_figure import PHASE_COLORS, Figure, Trace, text_of
from sim.report_rows import FRAME_PX, row_axis, rows_layout, time_line, zoom_text
from sim.report_runs import Reported
from sim.report_time import PHASES, Series

ROW_PX = 180
CAPTION = (
    "The same power by what the requests were at: prefill while a released request has no first token yet, "
    "else decode while one has its first token and not its last, else idle."
)


def power_by_phase(runs: Sequence[Reported], curves: Sequence[Series], width_s: float) -> Figure | None:
    """Return the power of each run by phase, a row a run, None if no run was metered.

    Args:
        runs: At least one.
        curves: Of each run.
        width_s: Length of the stretches of `curves`.
    """
    metered = [(one, curve) for one, curve in zip(runs, curves, strict=True) if curve.phase_w is not None]
    if not metered:
        return None
    longest_s = max(one.run.meta.makespan_s for one, _ in metered)
    layout = rows_layout(["power, W"] * len(metered), [1.0] * len(metered), longest_s, width_s)
    layout["annotations"] = []
    data: list[Trace] = []
    for place, (one, curve) in enumerate(metered):
        axis = layout["yaxis" + row_axis(place)[1:]]
        if place > 0:
            axis["matches"] = row_axis(0)
        layout["annotations"].append(_heading(one.name, axis["domain"][1]))
        for part in PHASES:
            assert curve.phase_w is not None
            data.append(
                {
                    **time_line(curve, longest_s, curve.phase_w[part], place),
                    "name": part,
                    "legendgroup": part,
                    "showlegend": place == 0,
                    "stackgroup": str(place),
                    "line": {"width": 0, "shape": "hv"},
                    "fillcolor": PHASE_COLORS[part],
                    "hovertemplate": "%{y:.1f} W",
                }
            )
    height_px = FRAME_PX + ROW_PX * len(metered)
    return Figure("phases", "Power by phase", f"{CAPTION} {zoom_text(width_s)}", data, layout, height_px)


def _heading(name: str, top: float) -> dict[str, Any]:
    place = {"xref": "paper", "yref": "paper", "x": 1, "y": top, "xanchor": "right", "yanchor": "bottom"}
    return {"text": text_of(name), "showarrow": False, **place}
