"""A sweep as a picture: energy per request against a latency, the front as a line."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sim.slo import words_of
from sim.sweep_front import point
from sim.sweep_ranking import Ranked
from traces.picture import picture

MOST_NUMBERS = 25
"""So many points of a front are numbered and named beside the panel; more could not be read."""
NEAR = 0.025
"""Numbers of points that are nearer than this part of the panel would lie on each other."""


def plot_sweep(ranked: Mapping[str, Sequence[Ranked]], latency: str, path: Path) -> None:
    """Draw the results of each workload: filled if every SLO is kept, hollow if not.

    Args:
        ranked: As `sim.sweep_ranking.rank` gives it, at least one workload with a valid result.
        latency: That of the front.
        path: Ends in .png, .svg or .pdf; an existing file is replaced.

    Raises:
        ValueError: matplotlib is missing.
    """
    policies = sorted({one.result.inputs["policy"] for rows in ranked.values() for one in rows})
    colors = {policy: f"C{place % 10}" for place, policy in enumerate(policies)}
    with picture(path, (10, 1 + 4 * len(ranked)), overwrite=True) as figure:
        panels = figure.subplots(len(ranked), 1, squeeze=False)[:, 0]
        for axes, (workload, rows) in zip(panels, ranked.items(), strict=True):
            _draw(axes, [one for one in rows if point(one.result.summary, latency)], latency, colors)
            axes.set_title(workload, loc="left", fontsize=10)
        _explain(figure, colors)


def _draw(axes: Any, rows: Sequence[Ranked], latency: str, colors: Mapping[str, str]) -> None:
    front = sorted(_at(one, latency) for one in rows if one.on_front)
    axes.plot([x for x, _ in front], [y for _, y in front], color="0.6", linewidth=1.0, zorder=1)
    for one in rows:
        color = colors[one.result.inputs["policy"]]
        face = "white" if one.violates else color
        axes.plot(*_at(one, latency), "o", color=color, markerfacecolor=face, markersize=6, zorder=2)
    axes.set(xscale="log", xlabel=f"{words_of(latency)}, s", ylabel="energy per request, J")
    axes.margins(x=0.15, y=0.12)
    axes.grid(color="0.93")
    axes.set_axisbelow(True)
    _label_seconds(axes.xaxis)
    named = sorted((one for one in rows if one.on_front), key=lambda one: _at(one, latency))
    if len(named) <= MOST_NUMBERS:
        _number(axes, named, latency)


def _number(axes: Any, named: Sequence[Ranked], latency: str) -> None:
    """Write numbers beside the points of a front, one text beside those that touch, and names outside."""
    axes.autoscale_view()  # or the panel has no limits yet
    to_panel = axes.transData + axes.transAxes.inverted()
    groups: list[list[int]] = []
    last = (-1.0, -1.0)
    for number, one in enumerate(named, 1):
        at = to_panel.transform(_at(one, latency))
        if max(abs(at[0] - last[0]), abs(at[1] - last[1])) < NEAR:
            groups[-1].append(number)
        else:
            groups.append([number])
            last = at
    for group in groups:
        text = str(group[0]) if len(group) == 1 else f"{group[0]}-{group[-1]}"
        at = _at(named[group[-1] - 1], latency)
        axes.annotate(text, at, xytext=(5, 5), textcoords="offset points", fontsize=8)
    names = "\n".join(f"{number}  {one.name}" for number, one in enumerate(named, 1))
    axes.text(1.02, 1.0, names, transform=axes.transAxes, va="top", fontsize=8)


def _label_seconds(axis: Any) -> None:
    from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
    axis.set_major_formatter(FormatStrFormatter("%g"))
    axis.set_minor_formatter(NullFormatter())


def _at(one: Ranked, latency: str) -> tuple[float, float]:
    at = point(one.result.summary, latency)
    assert at is not None, "only such are drawn"
    return at


def _explain(figure: Any, colors: Mapping[str, str]) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], marker="o", linestyle="", color=color) for color in colors.values()]
    handles.append(Line2D([], [], marker="o", linestyle="", color="0.4", markerfacecolor="white"))
    handles.append(Line2D([], [], color="0.6"))
    names = [*colors, "violates an SLO", "front"]
    figure.legend(handles, names, loc="outside lower center", ncols=4, frameon=False, fontsize=8)
