"""Comparisons as pictures: one replay's energy over time and latencies, or the errors of many replays."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sim.compare import TARGETS, Comparison, mean_latency_s
from sim.metrics import latency_s
from traces.picture import picture
from traces.record import Run
from traces.trace import Floats

SIMULATED, MEASURED = "#c1440e", "#1f4e79"
LATENCIES = ("ttft", "tpot", "e2e")
LEVELS = {"p50": "o", "p90": "s", "p99": "^"}
TICKS_S = [digit * 10.0**power for power in range(-6, 6) for digit in (1, 2, 5)]


def plot_comparison(
    simulated: Run, measured: tuple[Run, ...], path: Path, *, overwrite: bool = False
) -> None:
    """Draw a simulated run and measured ones into the file `path`.

    Args:
        simulated: The simulated run.
        measured: At least one measured run of the same requests.
        path: Ends in .png, .svg or .pdf.
        overwrite: Whether an existing file may be replaced.

    Raises:
        ValueError: matplotlib is missing, the ending is another, or `path` exists and may not be replaced.
    """
    with picture(path, (9, 10), overwrite=overwrite) as figure:
        scatters = [f"{name} scatter" for name in LATENCIES]
        rows = [["energy"] * 3, ["deviation"] * 3, list(LATENCIES), scatters]
        axes = figure.subplot_mosaic(rows, height_ratios=[1.2, 0.4, 1, 1])
        axes["deviation"].sharex(axes["energy"])
        meta = simulated.meta
        title = f"{meta.trace_name}, {meta.policy}: {meta.requests:,} requests, table {meta.table}"
        figure.suptitle(title, x=0.01, ha="left", fontsize=11)
        _draw_energy(axes["energy"], simulated, measured)
        _draw_deviation(axes["deviation"], simulated, measured)
        for name in LATENCIES:
            _draw_latency(axes[name], name, simulated, measured)
            _draw_scatter(axes[f"{name} scatter"], name, simulated, measured)
        axes["ttft"].set_ylabel("fraction of requests")
        axes["ttft scatter"].set_ylabel("simulated, s")


def plot_validation(
    compared: Sequence[tuple[str, Comparison]], table: str, path: Path, *, overwrite: bool = False
) -> None:
    """Draw the errors of energy, with the predicted interval, and of the latencies, a line a replay.

    Args:
        compared: Names and comparisons, at least one.
        table: Name of the table that simulated them.
        path: Ends in .png, .svg or .pdf.
        overwrite: Whether an existing file may be replaced.

    Raises:
        ValueError: matplotlib is missing, the ending is another, or `path` exists and may not be replaced.
    """
    with picture(path, (10, 1.6 + 0.26 * len(compared)), overwrite=overwrite) as figure:
        panels = figure.subplots(1, 4, sharey=True)
        figure.suptitle(f"{table}: simulated against measured", x=0.01, ha="left", fontsize=11)
        _draw_energy_errors(panels[0], [comparison for _, comparison in compared])
        for axes, name in zip(panels[1:], LATENCIES, strict=True):
            _draw_latency_errors(axes, name, [comparison for _, comparison in compared])
        panels[0].set_yticks(range(len(compared)), [name for name, _ in compared], fontsize=8)
        panels[0].invert_yaxis()


def _draw_energy_errors(axes: Any, compared: Sequence[Comparison]) -> None:
    _draw_target(axes, TARGETS["total_energy"])
    for place, comparison in enumerate(compared):
        row = comparison.row("total_energy_j")
        if row.error_fraction is None:
            continue
        if comparison.interval_j is not None and row.measured:
            bounds = [100 * (bound_j / row.measured - 1) for bound_j in comparison.interval_j]
            axes.plot(bounds, [place, place], color=SIMULATED, linewidth=1.2)
        axes.plot(100 * row.error_fraction, place, "o", color=SIMULATED, markersize=5)
    axes.set_xlabel("energy, % (line: 95 % interval)", fontsize=8)


def _draw_latency_errors(axes: Any, name: str, compared: Sequence[Comparison]) -> None:
    _draw_target(axes, TARGETS[name])
    for level, marker in LEVELS.items():
        errors = [comparison.row(f"{name}_{level}_s").error_fraction for comparison in compared]
        known = [(100 * error, place) for place, error in enumerate(errors) if error is not None]
        at, places = [at for at, _ in known], [place for _, place in known]
        axes.plot(at, places, marker, color=MEASURED, markersize=4, alpha=0.8, label=level)
    axes.set_xlabel(f"{name.upper()}, %", fontsize=8)
    axes.legend(frameon=False, fontsize=7, handletextpad=0.1)


def _draw_target(axes: Any, target: float) -> None:
    axes.axvspan(-100 * target, 100 * target, color="0.92", zorder=0)
    axes.axvline(0, color="black", linewidth=0.6)
    axes.tick_params(axis="x", labelsize=8)


def _draw_energy(axes: Any, simulated: Run, measured: tuple[Run, ...]) -> None:
    for number, run in enumerate(measured):
        label = run.meta.kind if number == 0 else None
        axes.plot(run.power.time_s, run.power.energy_j / 1e3, color=MEASURED, linewidth=1.6, label=label)
    power = simulated.power
    axes.plot(power.time_s, power.energy_j / 1e3, "--", color=SIMULATED, linewidth=1.2, label="simulated")
    axes.set(ylabel="energy since time 0, kJ")
    axes.tick_params(labelbottom=False)
    axes.margins(x=0)
    axes.legend(frameon=False, loc="upper left")


def _draw_deviation(axes: Any, simulated: Run, measured: tuple[Run, ...]) -> None:
    power = simulated.power
    axes.axhline(0, color="black", linewidth=0.6)
    for run in measured:
        if not len(run.power.time_s):
            continue
        at_s = run.power.time_s[run.power.time_s <= power.time_s[-1]]
        apart_j = np.interp(at_s, power.time_s, power.energy_j) - run.power.energy_j[: len(at_s)]
        axes.plot(at_s, 100 * apart_j / run.power.energy_j[-1], color=SIMULATED, linewidth=1.0)
    axes.set(xlabel="time, s", ylabel="apart,\n% of total")
    axes.margins(x=0)


def _draw_latency(axes: Any, name: str, simulated: Run, measured: tuple[Run, ...]) -> None:
    for run in measured:
        _draw_distribution(axes, latency_s(run.outcomes, name), MEASURED, "-")
    _draw_distribution(axes, latency_s(simulated.outcomes, name), SIMULATED, "--")
    axes.set(xscale="log", xlabel=f"{name.upper()}, s", ylim=(0, 1))
    _label_seconds(axes.xaxis)


def _draw_scatter(axes: Any, name: str, simulated: Run, measured: tuple[Run, ...]) -> None:
    value_s = latency_s(simulated.outcomes, name)
    mean_s = mean_latency_s(measured, name)
    known = (value_s > 0) & (mean_s > 0)
    axes.loglog(mean_s[known], value_s[known], ".", color=SIMULATED, markersize=3, alpha=0.5)
    if known.any():
        ends_s = [
            min(mean_s[known].min(), value_s[known].min()),
            max(mean_s[known].max(), value_s[known].max()),
        ]
        axes.plot(ends_s, ends_s, color="black", linewidth=0.6)
    axes.set_xlabel(f"{name.upper()} of a request, {measured[0].meta.kind}, s")
    _label_seconds(axes.xaxis)
    _label_seconds(axes.yaxis)


def _label_seconds(axis: Any) -> None:
    from matplotlib.ticker import FixedLocator, FormatStrFormatter, NullFormatter

    axis.set_major_locator(FixedLocator(TICKS_S))
    axis.set_major_formatter(FormatStrFormatter("%g"))
    axis.set_minor_formatter(NullFormatter())


def _draw_distribution(axes: Any, values_s: Floats, color: str, style: str) -> None:
    known_s = np.sort(values_s[values_s > 0])
    if len(known_s):
        fraction = np.arange(1, len(known_s) + 1) / len(known_s)
        axes.step(known_s, fraction, where="post", color=color, linestyle=style, linewidth=1.3)
