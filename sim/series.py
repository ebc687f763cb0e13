"""A quantity over time, read from a file: what the grid emits, what energy costs, how many replicas serve."""

import csv
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from traces.record import Power
from traces.trace import Floats

TIME = "time_s"


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """A quantity that keeps its value until the next time; before the first time it has the first value.

    Attributes:
        time_s: Seconds since time 0 of the replay, ascending, shape (values,), at least one.
        value: From that time on, shape (values,).
        period_s: After so many seconds the values come again; None if the last one lasts for ever.
    """

    time_s: Floats
    value: Floats
    period_s: float | None = None

    def __post_init__(self) -> None:
        if self.period_s is not None and not self.time_s[-1] < self.period_s < math.inf:
            raise ValueError(
                f"period_s must be finite and after the last time, {self.time_s[-1]:g} s, got {self.period_s}"
            )

    def at(self, time_s: float) -> float:
        """Return the value at `time_s`."""
        place = int(np.searchsorted(self.time_s, self._phase_s(time_s), side="right")) - 1
        return float(self.value[max(place, 0)])

    def next_change_s(self, time_s: float) -> float:
        """Return the first time after `time_s` at which the value may change, infinite if there is none."""
        phase_s = self._phase_s(time_s)
        place = int(np.searchsorted(self.time_s, phase_s, side="right"))
        if place < len(self.time_s):
            change_s = time_s - phase_s + float(self.time_s[place])
        elif self.period_s is not None:
            change_s = time_s - phase_s + self.period_s
        else:
            return math.inf
        return max(change_s, math.nextafter(time_s, math.inf))

    def mean_over(self, power: Power) -> float | None:
        """Return the mean over a run's energy, None where there is none: sum of value * joules / joules.

        The value is constant between its changes, the energy at a change is interpolated: nothing else is
        approximated.
        """
        if not len(power.time_s):
            return None
        edges_s = self._edges_s(float(power.time_s[-1]))
        joules = np.diff(np.interp(edges_s, power.time_s, power.energy_j, left=0.0))
        if not joules.sum() > 0:
            return None
        middles_s = (edges_s[:-1] + edges_s[1:]) / 2
        values = np.array([self.at(middle_s) for middle_s in middles_s.tolist()])
        return float(values @ joules) / float(joules.sum())

    def _edges_s(self, end_s: float) -> Floats:
        """Return 0, all times at which the value may change between, and `end_s`, above 0."""
        changes_s = self.time_s
        if self.period_s is not None:
            begins_s = self.period_s * np.arange(math.ceil(end_s / self.period_s))
            changes_s = (begins_s[:, None] + np.concatenate([[0.0], self.time_s])).ravel()
        inside = (changes_s > 0) & (changes_s < end_s)
        return np.concatenate([[0.0], np.sort(changes_s[inside]), [end_s]])

    def _phase_s(self, time_s: float) -> float:
        return time_s if self.period_s is None else math.fmod(time_s, self.period_s)


def read_series(path: Path, column: str, period_s: float | None = None) -> Series:
    """Return a column of a CSV file over its column `time_s`; other columns are left alone.

    Args:
        path: A file with a header line, times ascending.
        column: Name of the quantity's column, its unit in its name, such as `g_per_kwh`.
        period_s: When the values begin again, such as 86400; None for never.

    Raises:
        OSError: The file cannot be read.
        ValueError: It lacks a column or a row, a cell is no finite number, or times do not ascend.
    """
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = csv.DictReader(file)
        there = rows.fieldnames or []
        missing = [name for name in (TIME, column) if name not in there]
        if missing:
            raise ValueError(f"{path}: no column {missing[0]!r}; it has {', '.join(there) or 'none'}")
        cells = [[_number(row[name], path, rows.line_num, name) for name in (TIME, column)] for row in rows]
    if not cells:
        raise ValueError(f"{path}: no rows; a series needs at least one")
    time_s, value = np.array(cells).T
    back = np.flatnonzero(np.diff(time_s) <= 0)
    if len(back):
        raise ValueError(
            f"{path}: times must ascend, got {time_s[back[0] + 1]:g} s after {time_s[back[0]]:g} s"
        )
    try:
        return Series(time_s, value, period_s)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _number(text: str | None, path: Path, line: int, name: str) -> float:
    try:
        number = float(text or "")
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{path}: line {line}: {name} must be a finite number, got {text!r}")
    return number
