"""The figure of replicas: what each of several did with its time, and what that took."""

from collections.abc import Sequence
from typing import Final

from sim.report_figure import GREY, Figure, Trace, scaled, text_of
from sim.report_runs import Reported
from traces.record import STATES, ReplicaUse

ROW_PX, FRAME_PX = 26, 120
STATE_COLORS: Final = {"busy": "#56b4e9", "idle": "#b9bec6", "starting": "#e69f00", "asleep": "#8f6fd8"}
CAPTION = (
    "What each replica did from time 0 to the last completion of all, and the energy of its GPUs by that."
)


def replica_use(runs: Sequence[Reported]) -> Figure | None:
    """Return time and energy of each replica by its state, None if no run has several replicas."""
    several = [one for one in runs if len(one.run.meta.replicas) > 1]
    if not several:
        return None
    uses = [
        (f"{one.name}, {place}" + (f" {use.pool}" if use.pool else ""), use)
        for one in several
        for place, use in enumerate(one.run.meta.replicas)
    ]
    factor, unit = scaled(max(use.total_j for _, use in uses), "J")
    data: list[Trace] = []
    for state in STATES:
        seconds = [getattr(use, f"{state}_s") for _, use in uses]
        joules = [getattr(use, f"{state}_j") for _, use in uses]
        shares = [100 * spent_s / use.total_s for spent_s, (_, use) in zip(seconds, uses, strict=True)]
        time = f"{state}: %{{x:.1f}} %, %{{customdata:,.1f}} s"
        data.append(_bars(state, uses, shares, "x") | {"customdata": seconds, "hovertemplate": time})
        energy = f"{state}: %{{x:,.4r}} {unit}"
        values = [spent_j / factor for spent_j in joules]
        data.append(_bars(state, uses, values, "x2") | {"showlegend": False, "hovertemplate": energy})
    layout = {
        "barmode": "stack",
        "bargap": 0.25,
        "hovermode": "y unified",
        "xaxis": {"title": {"text": "time, %"}, "domain": [0, 0.47], "range": [0, 100]},
        "xaxis2": {"title": {"text": f"energy, {unit}"}, "domain": [0.53, 1], "rangemode": "tozero"},
        "yaxis": {"type": "category", "autorange": "reversed", "automargin": True},
        "legend": {"traceorder": "normal"},
    }
    return Figure("replicas", "What each replica did", CAPTION, data, layout, FRAME_PX + ROW_PX * len(uses))


def _bars(state: str, uses: Sequence[tuple[str, ReplicaUse]], values: Sequence[float], axis: str) -> Trace:
    return {
        "type": "bar",
        "orientation": "h",
        "name": state,
        "legendgroup": state,
        "y": [text_of(name) for name, _ in uses],
        "x": list(values),
        "xaxis": axis,
        "marker": {"color": STATE_COLORS.get(state, GREY)},
    }
