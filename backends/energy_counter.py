"""The GPUs' energy over a replay, from the meter's samples: the counter, and power to check it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from traces.record import Power
from traces.trace import Floats


@dataclass(frozen=True, slots=True, eq=False)
class EnergyCounter:
    """The energy counter of all GPUs together, known at the ticks and linear in between.

    Attributes:
        time_s: When a tick was first seen, ascending, shape (ticks,).
        energy_j: The counter there, from an arbitrary origin, shape (ticks,).
    """

    time_s: Floats
    energy_j: Floats

    def between_j(self, from_s: float, to_s: float) -> float:
        """Return the energy from `from_s` to `to_s`.

        Raises:
            ValueError: The ticks do not reach that far.
        """
        if from_s < self.time_s[0] or to_s > self.time_s[-1]:
            raise ValueError(
                f"the energy counter ticked from {self.time_s[0]:.3f} to {self.time_s[-1]:.3f} s, which does "
                f"not hold {from_s:.3f} to {to_s:.3f} s; the meter began too late or ended too early"
            )
        ends_j = np.interp([from_s, to_s], self.time_s, self.energy_j)
        return float(ends_j[1] - ends_j[0])

    def mean_w(self, from_s: float, to_s: float) -> float:
        """Return the mean power between the first and the last tick from `from_s` to `to_s`.

        What happened just outside has no part in it, as it would have in a tick cut at an edge.

        Raises:
            ValueError: There are no two ticks.
        """
        inside = np.flatnonzero((self.time_s >= from_s) & (self.time_s <= to_s))
        if len(inside) < 2:
            raise ValueError(f"the energy counter did not tick twice from {from_s:.3f} to {to_s:.3f} s")
        first, last = inside[0], inside[-1]
        return float((self.energy_j[last] - self.energy_j[first]) / (self.time_s[last] - self.time_s[first]))

    def power(self, end_s: float) -> Power:
        """Return the energy since time 0 at time 0, at the ticks after it and at `end_s`.

        Raises:
            ValueError: The ticks do not reach that far.
        """
        total_j = self.between_j(0.0, end_s)
        inside = (self.time_s > 0) & (self.time_s < end_s)
        zero_j = float(np.interp(0.0, self.time_s, self.energy_j))
        return Power(
            np.concatenate([[0.0], self.time_s[inside], [end_s]]),
            np.concatenate([[0.0], self.energy_j[inside] - zero_j, [total_j]]),
        )


def read_counter(samples: NDArray[np.void], zero_s: float) -> EnergyCounter:
    """Return the counter of all GPUs in `samples`, in seconds since `zero_s`.

    Several GPUs tick at different times; each is interpolated at the ticks of all, while all are known.

    Args:
        samples: Samples of the meter, dtype `backends.meter.SAMPLE`, in time order.
        zero_s: The meter's time at time 0.

    Raises:
        ValueError: A counter did not tick twice.
    """
    own = [samples[samples["gpu"] == gpu] for gpu in np.unique(samples["gpu"])]
    ticks = [_ticks(rows) for rows in own]
    if not ticks or min(len(time_s) for time_s, _ in ticks) < 2:
        raise ValueError("the energy counter did not tick twice while it was read; is the GPU lost?")
    begin_s, end_s = max(time_s[0] for time_s, _ in ticks), min(time_s[-1] for time_s, _ in ticks)
    every_s = np.unique(np.concatenate([time_s for time_s, _ in ticks]))
    every_s = every_s[(every_s >= begin_s) & (every_s <= end_s)]
    total_j = np.sum([np.interp(every_s, time_s, energy_j) for time_s, energy_j in ticks], axis=0)
    return EnergyCounter(every_s - zero_s, total_j)


def integrate_power_j(samples: NDArray[np.void], from_s: float, to_s: float) -> float | None:
    """Return the energy by integrating instant power, trapezoidal, None if it was hardly read.

    Args:
        samples: Samples of the meter, dtype `backends.meter.SAMPLE`, in time order.
        from_s, to_s: The window, in the meter's time.
    """
    total_j = 0.0
    gpus = np.unique(samples["gpu"])
    for gpu in gpus:
        read = samples[(samples["gpu"] == gpu) & np.isfinite(samples["power_w"])]
        time_s, power_w = read["time_s"].astype(np.float64), read["power_w"].astype(np.float64)
        inside = (time_s > from_s) & (time_s < to_s)
        if np.count_nonzero(inside) < 2:
            return None
        grid_s = np.concatenate([[from_s], time_s[inside], [to_s]])
        at_w = np.interp(grid_s, time_s, power_w)
        total_j += float(np.sum(np.diff(grid_s) * (at_w[1:] + at_w[:-1]) / 2))
    return total_j if len(gpus) else None


def _ticks(rows: NDArray[np.void]) -> tuple[Floats, Floats]:
    changed = np.flatnonzero(np.diff(rows["energy_j"]) != 0) + 1
    return rows["time_s"][changed].astype(np.float64), rows["energy_j"][changed].astype(np.float64)
