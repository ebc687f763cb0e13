"""Draw where the joules of two simulated replays go: `python docs/draw_joules.py [PICTURE]`."""

import sys
from pathlib import Path
from typing import Any

import numpy as np

from sim.options import options_among
from sim.registry import make_policy
from sim.report_time import phase_power_w
from sim.simulate import simulate
from sim.table_files import DEFAULT, load_table
from traces.picture import picture
from traces.reading import read_trace
from traces.record import Run
from traces.selection import select

ROOT = Path(__file__).parents[1]
COLORS = {"prefill": "#d1495b", "decode": "#3d7ea6", "idle": "#b8bcc2"}
FROM_S, TO_S, WIDTH_S = 60.0, 90.0, 0.1


def replayed(policy: str, options: dict[str, str]) -> Run:
    """Return the first 200 s of the shipped chat trace, simulated."""
    table = load_table(DEFAULT)
    trace = select(read_trace(ROOT / "traces" / "chat.parquet"), to_s=200.0)
    return simulate(trace, make_policy(policy, options), options_among(table.engine), table)


def draw(run: Run, title: str, over_time: Any, split: Any) -> None:
    """Draw the power of a stretch by what requests were at, and the joules of the whole run by cause."""
    edges_s = np.linspace(0.0, TO_S, round(TO_S / WIDTH_S) + 1)
    phases = phase_power_w(run.power, run.outcomes, edges_s)
    over_time.stackplot(
        edges_s[:-1],
        [phases[name] for name in COLORS],
        colors=COLORS.values(),
        labels=COLORS,
        step="post",
        linewidth=0,
    )
    over_time.set_title(title, loc="left", fontsize=10)
    over_time.set_ylabel("power, W")
    over_time.set_xlim(FROM_S, TO_S)
    energy = run.meta.energy
    assert energy is not None
    requests, bottom = len(run.outcomes), 0.0
    for name, joules in zip(COLORS, (energy.prefill_j, energy.decode_j, energy.idle_j), strict=True):
        height = joules / requests
        split.bar(0, height, 0.6, bottom, color=COLORS[name])
        if height > 3:
            split.text(0, bottom + height / 2, f"{height:.0f} J", ha="center", va="center", fontsize=9)
        bottom += height
    split.set_title(f"{bottom:.0f} J a request", fontsize=10)
    split.set_xticks([])


def main(path: Path) -> None:
    """Draw both policies into one picture."""
    with picture(path, (9, 5), overwrite=True) as figure:
        axes = figure.subplots(2, 2, sharex="col", sharey="col", width_ratios=[6, 1])
        draw(replayed("immediate", {}), "immediate", *axes[0])
        draw(replayed("batch-window", {"window_s": "10"}), "batch-window, window_s=10", *axes[1])
        axes[1, 0].set_xlabel("seconds since time 0")
        figure.legend(
            *axes[0, 0].get_legend_handles_labels(), loc="outside upper right", ncols=3, frameon=False
        )
        for axis in axes.flat:
            axis.spines[["top", "right"]].set_visible(False)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "joules.png")
