"""Power samples: the cumulative energy at every tick, read off the stretches that hold one."""

import numpy as np

from traces.record import Power
from traces.trace import Floats


class PowerSamples:
    """Collects samples at 0, tick_s, 2 tick_s, … from stretches of constant power."""

    def __init__(self, tick_s: float) -> None:
        """Take the first sample: 0 J at time 0.

        Args:
            tick_s: Seconds between samples, above 0.
        """
        self._tick_s = tick_s
        self._ticks = 1
        self._time_s = [np.zeros(1)]
        self._energy_j = [np.zeros(1)]

    def add(self, pieces: Floats) -> None:
        """Sample the next stretches.

        Args:
            pieces: from_s, from_j, to_s, to_j of each, ascending, shape (pieces, 4).
        """
        if not len(pieces):
            return
        last = int(pieces[-1, 2] / self._tick_s + 1)
        ticks_s = self._tick_s * np.arange(self._ticks, last + 1, dtype=np.float64)
        time_s = ticks_s[ticks_s <= pieces[-1, 2]]
        self._ticks += len(time_s)
        self._time_s.append(time_s)
        self._energy_j.append(np.interp(time_s, pieces[:, [0, 2]].ravel(), pieces[:, [1, 3]].ravel()))

    def finish(self, end_s: float, total_j: float) -> Power:
        """Return all samples, the last one at `end_s` with `total_j`."""
        time_s, energy_j = np.concatenate(self._time_s), np.concatenate(self._energy_j)
        before = time_s < end_s
        return Power(
            np.concatenate([time_s[before], [end_s]]),
            np.concatenate([energy_j[before], [total_j]]),
        )
