"""The energy counter of the pretend GPUs, for the meter to read: what their file says, in ticks of 100 ms."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from backends.nvml import GpuContext
from backends.twin import ENERGY_FILE, STRETCH
from sim.metering import COUNTER_TICK_S
from sim.step_cost import WARMTH, Coefficients, gap_energy, new_state
from sim.table_files import load_table

POWER_OVER_S = 0.02
"""Power is the mean over this long, about what a GPU's own sensor does."""
KEPT_STRETCHES = 512
"""Latest stretches that are looked at: a tick lies further back only if the meter slept for seconds."""


class TwinCounter:
    """One of the pretend GPUs, which share their energy equally."""

    def __init__(self, energy_file: Path, costs: Coefficients, gpus: int) -> None:
        """Read the energy of `gpus` GPUs from `energy_file`, whose STRETCH rows may still become more.

        Args:
            energy_file: What `backends.twin_gpu` writes; the first row is there.
            costs: Of the table, for the energy after the last step.
            gpus: All pretend GPUs.
        """
        self._file = energy_file
        self._costs = costs
        self._gpus = gpus
        self._tick, self._tick_j = -1, 0.0

    def energy_j(self) -> float:
        """Return this GPU's counter as of its last tick, the same until the next."""
        tick = int(time.monotonic() / COUNTER_TICK_S)
        if tick != self._tick:
            self._tick, self._tick_j = tick, self._energy_j_at(tick * COUNTER_TICK_S)
        return self._tick_j

    def power_w(self) -> float:
        """Return the mean power of the last POWER_OVER_S."""
        now_s = time.monotonic()
        return (self._energy_j_at(now_s) - self._energy_j_at(now_s - POWER_OVER_S)) / POWER_OVER_S

    def context(self) -> GpuContext:
        """Return that nothing is known of clock and temperature, and that nothing throttles."""
        return GpuContext(float("nan"), float("nan"), 0)

    def _energy_j_at(self, at_s: float) -> float:
        """Return the energy until `at_s`: even within a step, idle with the last step's tail after it."""
        whole = self._file.stat().st_size // STRETCH.itemsize
        first = max(whole - KEPT_STRETCHES, 0)
        rows = np.fromfile(self._file, STRETCH, whole - first, offset=first * STRETCH.itemsize)
        ends = rows.view("f8").reshape(-1, 2)
        last_s, last_j = ends[-1]
        if at_s <= last_s:
            all_j = float(np.interp(at_s, ends[:, 0], ends[:, 1]))
        else:
            after_a_step = new_state()
            after_a_step[WARMTH] = 1.0
            all_j = float(last_j) + gap_energy(self._costs, after_a_step, at_s - last_s)
        return all_j / self._gpus


@contextmanager
def open_twins(folders: Sequence[Path], gpus: int) -> Iterator[tuple[TwinCounter, ...]]:
    """Open `gpus` pretend GPUs: those of the twins in `folders`, as many of each, one after the other."""
    each = gpus // len(folders)
    costs = [load_table(str(folder)).coefficients for folder in folders]
    yield tuple(
        TwinCounter(folder / ENERGY_FILE, own, each)
        for folder, own in zip(folders, costs, strict=True)
        for _ in range(each)
    )
