"""Plots of a calibration: what was measured against what the fitted model makes of it; loads matplotlib."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from calibrate.fit import Residual
from calibrate.raw import read_parquet
from calibrate.table import read_residuals
from calibrate.windows import Window, windows
from sim.table import CostTable
from traces.whole_files import whole_file

ENDINGS = (".png", ".svg", ".pdf")
INK = "#1f4e79"
ERROR_TICKS = (1, 2, 5, 10, 20, 50, 100)
LINEAR_TO = 2
"""Per cent up to which errors are drawn to scale; beyond, logarithmically."""
LEGEND = "context (dots measured, lines model)"
GOLDEN = 0.618034
"""Multiples of it spread dots evenly, whatever their number."""


@dataclass(frozen=True, slots=True)
class Dot:
    """A window, measured and replayed: means over its steps.

    Attributes:
        window: What was measured.
        model_step_s: From one output to the next, by the model.
        model_power_w: Mean power by the model.
        seconds_error, joules_error: Of the model, relative.
    """

    window: Window
    model_step_s: float
    model_power_w: float
    seconds_error: float
    joules_error: float


class Quantity(NamedTuple):
    """Something of a window, as measured and by the model."""

    measured: Callable[[Dot], float]
    modelled: Callable[[Dot], float]


STEP_MS = Quantity(lambda dot: 1e3 * dot.window.step_s, lambda dot: 1e3 * dot.model_step_s)
POWER_W = Quantity(lambda dot: dot.window.power_w, lambda dot: dot.model_power_w)


def plot_table(table: CostTable, folder: Path, path: Path, *, overwrite: bool = False) -> None:
    """Draw the points and residuals that lie beside a table into the file `path`.

    Args:
        table: The table, for its name and where it was measured.
        folder: Holds points.parquet and residuals.parquet.
        path: Ends in .png, .svg or .pdf.
        overwrite: Whether an existing file may be replaced.

    Raises:
        ValueError: matplotlib or the points are missing, the ending is another, or `path` exists and may not
            be replaced.
    """
    if path.suffix.lower() not in ENDINGS:
        raise ValueError(f"{path}: a plot ends in {', '.join(ENDINGS)}")
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ValueError(
            "plots need matplotlib, which is not installed; pip install 'replay[plot]'"
        ) from error
    dots = read_dots(folder)
    figure: Any = Figure(figsize=(13, 8), layout="constrained", dpi=150)
    mosaic = [["time"] * 2 + ["power"] * 2 + ["prefill"] * 2, ["seconds"] * 3 + ["joules"] * 3]
    axes = figure.subplot_mosaic(mosaic, height_ratios=[1.2, 1])
    figure.suptitle(f"{table.name}: {table.measured_on}", x=0.01, ha="left", fontsize=11)
    decodes = [dot for dot in dots if dot.window.point.kind in ("decode", "ragged")]
    _draw_curves(axes["time"], decodes, _batch, STEP_MS)
    axes["time"].set(title="decode: step time", ylabel="ms a step", xlabel="sequences", yscale="log")
    _draw_curves(axes["power"], decodes, _batch, POWER_W)
    axes["power"].set(title="decode: power (dotted: power limit)", ylabel="W", xlabel="sequences")
    axes["power"].axhline(table.power_limit_w * table.gpus, color="#777777", linewidth=1, linestyle=":")
    prefills = [dot for dot in dots if dot.window.point.kind == "prefill" and dot.window.point.streams <= 2]
    _draw_curves(axes["prefill"], prefills, lambda dot: dot.window.tokens, STEP_MS)
    axes["prefill"].set(title="prefill: step time", ylabel="ms a step", xlabel="prompt tokens in the step")
    axes["prefill"].set(yscale="log")
    for name in ("time", "power", "prefill"):
        _number_ticks(axes[name])
    axes["time"].legend(title=LEGEND, frameon=False, fontsize=8, title_fontsize=8)
    axes["prefill"].legend(title=LEGEND, frameon=False, fontsize=8, title_fontsize=8)
    _draw_errors(axes["seconds"], dots, lambda dot: dot.seconds_error)
    axes["seconds"].set(title="seconds of each window: model / measured - 1")
    _draw_errors(axes["joules"], dots, lambda dot: dot.joules_error)
    axes["joules"].set(title="joules of each window: model / measured - 1")
    with whole_file(path, overwrite=overwrite) as part:
        figure.savefig(part, format=path.suffix.lower()[1:])


def read_dots(folder: Path) -> list[Dot]:
    """Return the windows that a table was fitted to, with what the model makes of them.

    Raises:
        ValueError: The folder holds no points, or residuals of other points.
    """
    points_file, residuals_file = folder / "points.parquet", folder / "residuals.parquet"
    for file in (points_file, residuals_file):
        if not file.is_file():
            raise ValueError(f"{file}: not there; a plot needs the points beside the table")
    residuals: dict[str, list[Residual]] = {}
    for residual in read_residuals(residuals_file):
        residuals.setdefault(residual.key, []).append(residual)
    dots = [
        _dot(window, residuals[window.point.key].pop(0))
        for window in windows(read_parquet(points_file)[0])
        if residuals.get(window.point.key)
    ]
    strays = [key for key, left in residuals.items() if left]
    if strays:
        raise ValueError(f"{residuals_file}: {strays[0]} is not in {points_file}; fit again with --fit-only")
    return dots


def _dot(window: Window, residual: Residual) -> Dot:
    return Dot(
        window=window,
        model_step_s=window.step_s * residual.model_seconds / residual.seconds,
        model_power_w=residual.model_joules / residual.model_seconds,
        seconds_error=residual.model_seconds / residual.seconds - 1,
        joules_error=residual.model_joules / residual.joules - 1,
    )


def _batch(dot: Dot) -> float:
    return float(dot.window.point.batch)


def _draw_curves(axes: Any, dots: list[Dot], x_of: Callable[[Dot], float], quantity: Quantity) -> None:
    """Draw each window as measured, and a line through what the model makes of them, one colour a context."""
    for context, colour in _by_context(dots):
        own = [dot for dot in dots if dot.window.point.context_tokens == context]
        axes.plot([x_of(dot) for dot in own], [quantity.measured(dot) for dot in own], **_dots(colour))
        loads = {(dot.window.point.batch, dot.window.point.chunk_tokens) for dot in own}
        line = []
        for load in loads:
            repeats = [dot for dot in own if (dot.window.point.batch, dot.window.point.chunk_tokens) == load]
            line.append(
                (np.mean([x_of(d) for d in repeats]), np.mean([quantity.modelled(d) for d in repeats]))
            )
        axes.plot(*zip(*sorted(line), strict=True), color=colour, linewidth=1.2, label=f"{context:,}")
    axes.set_xscale("log")
    _tidy(axes)


def _draw_errors(axes: Any, dots: list[Dot], error: Callable[[Dot], float]) -> None:
    """Draw the error of each window as a strip for its kind, with its root mean square."""
    kinds = sorted({dot.window.point.kind for dot in dots})
    labels = []
    for place, kind in enumerate(kinds):
        errors = 100 * np.array([error(dot) for dot in dots if dot.window.point.kind == kind])
        spread = 0.7 * ((np.arange(len(errors)) * GOLDEN) % 1.0 - 0.5)
        axes.plot(place + spread, errors, **_dots(INK))
        rms = float(np.sqrt(np.mean(errors**2)))
        labels.append(f"{kind}\n{len(errors)} windows\nrms {rms:.1f} %")
    most = max(100 * max(abs(dot.seconds_error), abs(dot.joules_error)) for dot in dots)
    ticks = [tick for tick in ERROR_TICKS if tick <= max(most, LINEAR_TO)]
    axes.set_yscale("symlog", linthresh=LINEAR_TO, linscale=1.5)
    axes.set_yticks([*(-tick for tick in ticks), 0, *ticks], minor=False)
    axes.set_yticks([], minor=True)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:+.0f} %" if value else "0")
    axes.set_ylim(-1.3 * max(most, LINEAR_TO), 1.3 * max(most, LINEAR_TO))
    axes.axhline(0, color="#333333", linewidth=0.8)
    axes.set_xticks(range(len(kinds)), labels)
    _tidy(axes)


def _number_ticks(axes: Any) -> None:
    """Write out the ticks of logarithmic axes: each decade, and 2 and 5 where these are few."""
    from matplotlib.ticker import LogLocator, NullFormatter

    for axis in (axes.xaxis, axes.yaxis):
        if axis.get_scale() == "log":
            low, high = axis.get_view_interval()
            axis.set_major_locator(LogLocator(subs=(1,) if high > 300 * low else (1, 2, 5)))
            axis.set_major_formatter(lambda value, _: f"{value:,.0f}")
            axis.set_minor_formatter(NullFormatter())


def _by_context(dots: Iterable[Dot]) -> Iterable[tuple[int, Any]]:
    """Yield the contexts, and a colour for each, the darker the longer."""
    from matplotlib import colormaps

    contexts = sorted({dot.window.point.context_tokens for dot in dots})
    shades = colormaps["viridis_r"](np.linspace(0.15, 0.95, max(len(contexts), 2)))
    yield from zip(contexts, shades, strict=False)


def _dots(colour: Any) -> dict[str, Any]:
    return {"color": colour, "linestyle": "none", "marker": "o", "markersize": 3.2, "alpha": 0.6, "mew": 0}


def _tidy(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e4e4e4", linewidth=0.6)
    axes.set_axisbelow(True)
