"""Plots of a calibration: what was measured against what the fitted model makes of it; loads matplotlib."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from calibrate.dots import Dot, read_dots
from sim.table import CostTable
from traces.picture import picture

INK = "#1f4e79"
LEGEND = "context: dots measured, lines model,\nhollow: left out of the fit"
GAP = 6
"""Loads further apart than this factor are not joined by a line."""

ERROR_TICKS = (1, 2, 5, 10, 20, 50, 100)
LINEAR_TO = 2
"""Per cent up to which errors are drawn to scale; beyond, logarithmically."""

GOLDEN = 0.618034
"""Multiples of it spread dots evenly, whatever their number."""

Number = Callable[[Dot], float]


def plot_table(table: CostTable, folder: Path, path: Path, *, overwrite: bool = False) -> None:
    """Draw the points and residuals that lie beside a table into the file `path`.

    Args:
        table: The table, for its name, where it was measured, and the power limit.
        folder: Holds points.parquet and residuals.parquet.
        path: Ends in .png, .svg or .pdf.
        overwrite: Whether an existing file may be replaced.

    Raises:
        ValueError: matplotlib or the points are missing, the ending is another, or `path` exists and may not
            be replaced.
    """
    with picture(path, (13, 8.2), overwrite=overwrite) as figure:
        dots = read_dots(folder)
        decodes = [dot for dot in dots if _kind(dot) in ("decode", "ragged")]
        mosaic = [["time"] * 2 + ["power"] * 2 + ["prefill"] * 2, ["seconds"] * 3 + ["joules"] * 3]
        axes = figure.subplot_mosaic(mosaic, height_ratios=[1.25, 1])
        figure.suptitle(f"{table.name}: {table.measured_on}", x=0.01, ha="left", fontsize=11)
        _draw_decodes(axes["time"], axes["power"], decodes)
        axes["power"].axhline(table.power_limit_w * table.gpus, color="#777777", linewidth=1, linestyle=":")
        alone = [dot for dot in dots if _kind(dot) == "prefill" and dot.window.point.streams <= 2]
        _draw_prefills(axes["prefill"], alone)
        fitted = [dot for dot in dots if dot.residual is not None]
        _draw_errors(axes["seconds"], fitted, lambda dot: dot.seconds_error)
        axes["seconds"].set(title="seconds of each fitted window: model / measured - 1")
        _draw_errors(axes["joules"], fitted, lambda dot: dot.joules_error)
        axes["joules"].set(title="joules of each fitted window: model / measured - 1")


def _draw_decodes(time: Any, power: Any, dots: list[Dot]) -> None:
    """Draw step time and power of decode over the batch."""

    def batch(dot: Dot) -> float:
        return float(dot.window.point.batch)

    _draw_curves(time, dots, batch, lambda dot: dot.step_ms, lambda dot: dot.model_step_ms)
    time.set(title="decode: step time", ylabel="ms a step", xlabel="sequences", yscale="log")
    time.legend(title=LEGEND, frameon=False, fontsize=8, title_fontsize=8, alignment="left")
    _number_ticks(time)
    _draw_curves(power, dots, batch, lambda dot: dot.power_w, lambda dot: dot.model_power_w)
    power.set(title="decode: power (dotted: power limit)", ylabel="W", xlabel="sequences")
    _number_ticks(power)


def _draw_prefills(axes: Any, dots: list[Dot]) -> None:
    """Draw the step time of prefill over the tokens in a step."""
    _draw_curves(
        axes, dots, lambda dot: dot.window.tokens, lambda dot: dot.step_ms, lambda dot: dot.model_step_ms
    )
    axes.set(title="prefill: step time", ylabel="ms a step", xlabel="prompt tokens in the step", yscale="log")
    axes.legend(title="context before the prompt", frameon=False, fontsize=8, title_fontsize=8)
    _number_ticks(axes)


def _draw_curves(axes: Any, dots: list[Dot], x: Number, measured: Number, modelled: Number) -> None:
    """Draw each window as measured, and lines through what the model makes of them, one colour a context."""
    from matplotlib import colormaps
    from matplotlib.colors import LogNorm

    contexts = sorted({dot.window.point.context_tokens for dot in dots})
    shade = LogNorm(vmin=0.7 * max(contexts[0], 200), vmax=1.3 * max(contexts[-1], 400), clip=True)
    for context in contexts:
        colour = colormaps["viridis_r"](0.15 + 0.85 * shade(max(context, 1)))
        own = [dot for dot in dots if dot.window.point.context_tokens == context]
        for is_fitted in (False, True):
            some = [dot for dot in own if (dot.residual is not None) is is_fitted]
            style = _dots(colour) if is_fitted else _hollow(colour)
            axes.plot([x(dot) for dot in some], [measured(dot) for dot in some], **style)
        line = _means([dot for dot in own if dot.residual is not None], x, modelled)
        axes.plot(*line, color=colour, linewidth=1.3, label=f"{context:,}")
    axes.set_xscale("log")
    _tidy(axes)


def _means(dots: list[Dot], x: Number, y: Number) -> tuple[list[float], list[float]]:
    """Return x and y of each load, repeats averaged, in order; NaN stands between those far apart."""
    loads: dict[tuple[int, int], list[Dot]] = {}
    for dot in dots:
        loads.setdefault((dot.window.point.batch, dot.window.point.chunk_tokens), []).append(dot)
    means = sorted(
        (float(np.mean([x(dot) for dot in own])), float(np.mean([y(dot) for dot in own])))
        for own in loads.values()
    )
    xs, ys = [], []
    for place, (mean_x, mean_y) in enumerate(means):
        if place and mean_x > GAP * means[place - 1][0]:
            xs.append(mean_x)
            ys.append(float("nan"))
        xs.append(mean_x)
        ys.append(mean_y)
    return xs, ys


def _draw_errors(axes: Any, dots: list[Dot], error: Number) -> None:
    """Draw the error of each window as a strip for its kind, with its root mean square."""
    kinds = sorted({_kind(dot) for dot in dots})
    labels = []
    for place, kind in enumerate(kinds):
        errors = 100 * np.array([error(dot) for dot in dots if _kind(dot) == kind])
        spread = 0.7 * ((np.arange(len(errors)) * GOLDEN) % 1.0 - 0.5)
        axes.plot(place + spread, errors, **_dots(INK))
        labels.append(f"{kind} ({len(errors)})\nrms {np.sqrt(np.mean(errors**2)):.1f} %")
    most = max(100 * max(abs(dot.seconds_error), abs(dot.joules_error)) for dot in dots)
    ticks = [tick for tick in ERROR_TICKS if tick <= max(most, LINEAR_TO)]
    axes.set_yscale("symlog", linthresh=LINEAR_TO, linscale=1.5)
    axes.set_yticks([*(-tick for tick in ticks), 0, *ticks])
    axes.set_yticks([], minor=True)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:+.0f} %" if value else "0")
    axes.set_ylim(-1.3 * max(most, LINEAR_TO), 1.3 * max(most, LINEAR_TO))
    axes.axhline(0, color="#333333", linewidth=0.8)
    axes.set_xticks(range(len(kinds)), labels, fontsize=8.5)
    _tidy(axes)


def _kind(dot: Dot) -> str:
    return dot.window.point.kind


def _number_ticks(axes: Any) -> None:
    """Write out the ticks of logarithmic axes: each decade, and 2 and 5 where these are few."""
    from matplotlib.ticker import LogLocator, NullFormatter

    for axis in (axes.xaxis, axes.yaxis):
        if axis.get_scale() == "log":
            low, high = axis.get_view_interval()
            axis.set_major_locator(LogLocator(subs=(1,) if high > 300 * low else (1, 2, 5)))
            axis.set_major_formatter(lambda value, _: f"{value:,.0f}")
            axis.set_minor_formatter(NullFormatter())


def _dots(colour: Any) -> dict[str, Any]:
    return {"color": colour, "linestyle": "none", "marker": "o", "markersize": 3.4, "alpha": 0.65, "mew": 0}


def _hollow(colour: Any) -> dict[str, Any]:
    return {**_dots(colour), "markerfacecolor": "none", "mew": 0.7, "alpha": 0.5}


def _tidy(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e4e4e4", linewidth=0.6)
    axes.set_axisbelow(True)
