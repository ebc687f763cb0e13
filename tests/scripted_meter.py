"""A meter for tests that need no NVML: one power within the logged steps, one between them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from backends.meter import SAMPLE
from backends.nvml import GpuFacts, MeterError
from backends.step_log import read_steps
from traces.trace import Floats

IDLE_W, BUSY_W = 100.0, 400.0
TICK_S, PERIOD_S = 0.1, 0.005

FACTS = GpuFacts(name="Toy GPU", uuid="GPU-toy", driver="1.0", power_limit_w=700.0, mig=False, process_ids=())


class ScriptedMeter:
    """Reads `IDLE_W` between the logged steps and `BUSY_W` within them; its counter ticks every `TICK_S`."""

    def __init__(self, step_log: Path, clock: Callable[[], float], file: Path) -> None:
        self._step_log = step_log
        self._file = file
        self._clock = clock
        self.dies_at_s = float("inf")
        self.unread_s: tuple[float, float] | None = None
        self.falls_at_s = float("inf")
        self.power_factor = 1.0
        self.cpu_w = float("nan")
        self.throttle_reasons = 0x4

    def samples(self, since_s: float) -> "np.ndarray[tuple[int], np.dtype[np.void]]":
        if self._clock() > self.dies_at_s:
            self.all_samples(0.0).tofile(self._file)
            raise MeterError("the meter died: it was told to")
        return self.all_samples(since_s)

    def all_samples(self, since_s: float) -> "np.ndarray[tuple[int], np.dtype[np.void]]":
        """Return what was sampled until now, or until the meter's death."""
        count = round(min(self._clock(), self.dies_at_s) / PERIOD_S)
        rows = np.zeros(count + 1, dtype=SAMPLE)
        place = np.arange(count + 1)
        rows["time_s"] = PERIOD_S * place
        per_tick = round(TICK_S / PERIOD_S)
        rows["energy_j"] = 5000.0 + self.energy_j(np.asarray(TICK_S * (place // per_tick), np.float64))
        rows["energy_j"][rows["time_s"] >= self.falls_at_s] -= 4000.0
        watts = (
            self.power_factor
            * np.diff(self.energy_j(PERIOD_S * np.arange(count + 2, dtype=np.float64)))
            / PERIOD_S
        )
        rows["power_w"] = np.where(place % 4 == 0, watts, np.nan)
        rows["clock_mhz"], rows["temperature_c"] = 1500.0, 50.0
        rows["throttle_reasons"] = self.throttle_reasons
        rows["cpu_j"] = np.where(place % 40 == 0, self.cpu_w * rows["time_s"], np.nan)
        rows["dram_j"] = np.nan
        if self.unread_s is not None:
            rows = rows[(rows["time_s"] <= self.unread_s[0]) | (rows["time_s"] >= self.unread_s[1])]
        return rows[rows["time_s"] >= since_s]

    def energy_j(self, at_s: Floats) -> Floats:
        steps = read_steps(self._step_log)
        busy_s = np.zeros(len(at_s))
        for begin_s, end_s in zip(steps["scheduled_s"], steps["done_s"], strict=True):
            busy_s += np.clip(at_s - begin_s, 0.0, end_s - begin_s)
        energy_j: Floats = IDLE_W * at_s + (BUSY_W - IDLE_W) * busy_s
        return energy_j


class StillWatch:
    """GPUs of which everything is known."""

    def __init__(self) -> None:
        self.facts: tuple[GpuFacts, ...] = (FACTS,)
        self.engine_uuids: tuple[str, ...] = (FACTS.uuid,)
        self.strangers: tuple[int, ...] = ()
        self.is_lost = False

    def foreign_process_ids(self) -> tuple[int, ...]:
        if self.is_lost:
            raise MeterError("nvmlDeviceGetName failed: GPU is lost")
        return self.strangers

    def uuid_hashes(self) -> list[str]:
        return ["0" * 16]
