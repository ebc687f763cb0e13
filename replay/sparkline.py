"""Power over time, a line of blocks a run."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from rich.console import Console, ConsoleOptions
from rich.table import Table

from replay.printing import quantity
from replay.screen import GAP, View, table
from traces.record import Power
from traces.trace import Floats

BLOCKS = "▁▂▃▄▅▆▇█"
MOST_SPANS = 60
LEAST_SPAN_S = 0.5
"""Five samples of a counter that ticks ten times a second."""
LEAST_HEIGHT_FRACTION = 0.25
"""Of the largest power: what differs by less does not fill the height, so that little looks little."""


def power_view(runs: Sequence[tuple[str, Power]], label_width: int) -> View:
    """Return the mean power of equal spans of time, runs below each other on one scale.

    Args:
        runs: Names and energies over time; one without samples is left out.
        label_width: Least width of the names' column, in characters.
    """
    known = tuple((name, power) for name, power in runs if len(power.time_s) and power.time_s[-1] > 0)
    return ["", _PowerLines(known, label_width)] if known else []


def mean_power_w(power: Power, edges_s: Floats) -> Floats:
    """Return the mean power between edges, shape (edges - 1,), up to the last sample and then NaN."""
    until_s = np.minimum(edges_s, power.time_s[-1])
    joules = np.diff(np.interp(until_s, power.time_s, power.energy_j, left=0.0))
    seconds = np.diff(until_s)
    means_w: Floats = np.divide(joules, seconds, out=np.full(len(seconds), np.nan), where=seconds > 0)
    return means_w


def blocks(values: Floats, least: float, most: float) -> str:
    """Return a block a value, the lowest for `least`, the highest for a far `most`, a space for NaN."""
    height = max(most - least, LEAST_HEIGHT_FRACTION * most) or 1.0
    levels = np.clip((np.nan_to_num(values) - least) / height * len(BLOCKS), 0, len(BLOCKS) - 1)
    return "".join(
        " " if is_missing else BLOCKS[int(level)]
        for level, is_missing in zip(levels, np.isnan(values), strict=True)
    )


@dataclass(frozen=True, slots=True)
class _PowerLines:
    """Draws itself into as many spans as there is room for."""

    runs: tuple[tuple[str, Power], ...]
    label_width: int

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Table]:
        end_s = max(float(power.time_s[-1]) for _, power in self.runs)
        room = min(MOST_SPANS, options.max_width - self.label_width - GAP)
        edges_s = np.linspace(0.0, end_s, 1 + max(1, min(room, int(end_s / LEAST_SPAN_S))))
        means_w = [mean_power_w(power, edges_s) for _, power in self.runs]
        scale_w = float(np.nanmin(means_w)), float(np.nanmax(means_w))
        rows = []
        for (name, power), one_w in zip(self.runs, means_w, strict=True):
            least, most = (quantity(float(bound(one_w)), "W") for bound in (np.nanmin, np.nanmax))
            mean = quantity(float(power.energy_j[-1]) / float(power.time_s[-1]), "W")
            spans = f"{np.count_nonzero(~np.isnan(one_w))} spans of {quantity(edges_s[1], 's')}"
            rows += [(name, blocks(one_w, *scale_w)), ("", f"{least} to {most}, mean {mean}, in {spans}")]
        yield table(rows, "ll", widths=(self.label_width,))
