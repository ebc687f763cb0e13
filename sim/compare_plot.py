"""A comparison as a picture: energy over time, and the distributions of the latencies."""

from pathlib import Path
from typing import Any

import numpy as np

from sim.compare import latency_s
from traces.picture import picture
from traces.record import Run
from traces.trace import Floats

SIMULATED, MEASURED = "#c1440e", "#1f4e79"
LATENCIES = ("ttft", "tpot", "e2e")
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
    with picture(path, (9, 7), overwrite=overwrite) as figure:
        rows = [["energy"] * 3, ["deviation"] * 3, list(LATENCIES)]
        axes = figure.subplot_mosaic(rows, height_ratios=[1.2, 0.4, 1])
        axes["deviation"].sharex(axes["energy"])
        meta = simulated.meta
        title = f"{meta.trace_name}, {meta.policy}: {meta.requests:,} requests, table {meta.table}"
        figure.suptitle(title, x=0.01, ha="left", fontsize=11)
        _draw_energy(axes["energy"], simulated, measured)
        _draw_deviation(axes["deviation"], simulated, measured)
        for name in LATENCIES:
            _draw_latency(axes[name], name, simulated, measured)
        axes["ttft"].set_ylabel("fraction of requests")


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
    from matplotlib.ticker import FixedLocator, FormatStrFormatter, NullFormatter

    for run in measured:
        _draw_distribution(axes, latency_s(run.outcomes, name), MEASURED, "-")
    _draw_distribution(axes, latency_s(simulated.outcomes, name), SIMULATED, "--")
    axes.set(xscale="log", xlabel=f"{name.upper()}, s", ylim=(0, 1))
    axes.xaxis.set_major_locator(FixedLocator(TICKS_S))
    axes.xaxis.set_major_formatter(FormatStrFormatter("%g"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _draw_distribution(axes: Any, values_s: Floats, color: str, style: str) -> None:
    known_s = np.sort(values_s[values_s > 0])
    if len(known_s):
        fraction = np.arange(1, len(known_s) + 1) / len(known_s)
        axes.step(known_s, fraction, where="post", color=color, linestyle=style, linewidth=1.3)
