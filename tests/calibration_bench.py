"""Calibrations without a GPU: a stand-in engine, metered on a scripted GPU, or on a clock that jumps."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scripted_meter import ScriptedMeter
from scripted_nvml import ScriptedNvml
from standin_engine import StandInEngine
from virtual_loop import VirtualLoop

from backends.meter import Meter
from backends.step_log import read_steps
from calibrate import grid, loads
from calibrate.grid import Point
from calibrate.measure import BEFORE_S, Instruments, Plan, Samples, measure
from calibrate.raw import RawPoint

TICK_S = 0.05
PLAN = Plan(grid="quick", repeats=1, hold_s=0.25, bare_idle_s=0.25)
FEW = (
    Point("decode", batch=4, context_tokens=16),
    Point("prefill", chunk_tokens=64, streams=2),
    Point("mixed", batch=2, context_tokens=16, chunk_tokens=64, streams=1),
)
GPU = {"name": "NVIDIA Invented 0", "driver": "580.0", "power_limit_w": 700.0, "gpus": 1, "hashes": ["aa"]}


class ReadMeter:
    """The meter, noting what was read: when each point began, and the largest gap between samples."""

    def __init__(self, path: Path, gpus: tuple[int, ...]) -> None:
        self._meter = Meter(path, gpus)
        self.zeros_s: list[float] = []
        self.gap_s = 0.0

    def __enter__(self) -> "ReadMeter":
        self._meter.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._meter.__exit__()

    def samples(self, since_s: float) -> NDArray[np.void]:
        samples = self._meter.samples(since_s)
        self.zeros_s.append(since_s + BEFORE_S)
        self.gap_s = max(self.gap_s, float(np.diff(samples["time_s"][samples["gpu"] == 0]).max()))
        return samples


@dataclass(slots=True)
class Company:
    """A watch on GPUs that tells what it is told."""

    strangers: tuple[int, ...] = ()
    refusal: str = ""

    def engine_is_up(self) -> None:
        if self.refusal:
            raise ValueError(self.refusal)

    def foreign_process_ids(self) -> tuple[int, ...]:
        return self.strangers


@dataclass(slots=True)
class Bench:
    """Everything that `measure` needs.

    Attributes:
        folder: Where the calibration goes; does not exist.
        meter: Opens the meter.
        said: What was said to the user.
        company: The watch on the GPU.
    """

    folder: Path
    meter: AbstractContextManager[Samples]
    said: list[str] = field(default_factory=list)
    company: Company = field(default_factory=Company)

    @property
    def step_log(self) -> Path:
        return self.folder.with_name("steps.bin")

    def tools(self, gpu: dict[str, Any] | None = None, **engine: Any) -> Instruments:
        return Instruments(
            engine=StandInEngine(self.step_log, step_s, **engine),
            meter=self.meter,
            steps_since=lambda since_s: read_steps(self.step_log, since_s),
            watch=self.company,
            gpu=dict(gpu or GPU),
        )

    def measure(self, plan: Plan = PLAN, tools: Instruments | None = None) -> list[RawPoint]:
        return measure(self.folder, plan, tools or self.tools(), self.said.append)


class JumpingMeter(ScriptedMeter):
    """A scripted meter whose counter can stop ticking, and which can be kept from most of its readings."""

    stops_at_s = float("inf")
    keeps_every = 1

    def all_samples(self, since_s: float) -> "np.ndarray[tuple[int], np.dtype[np.void]]":
        rows = super().all_samples(0.0)[:: self.keeps_every]
        return rows[rows["time_s"] >= since_s]

    def energy_j(self, at_s: NDArray[np.float64]) -> NDArray[np.float64]:
        return super().energy_j(np.minimum(at_s, self.stops_at_s))


@dataclass(slots=True)
class JumpingBench(Bench):
    """A bench on a clock that jumps: no test waits."""

    jumping: JumpingMeter = field(kw_only=True)


@dataclass(slots=True)
class MeteredBench(Bench):
    """A bench in real time: the real meter on a scripted GPU that draws what the engine does."""

    nvml: ScriptedNvml = field(kw_only=True)

    def draw(self, power_w: float) -> None:
        self.nvml.say(time.monotonic() - self.nvml.zero_s, 0, power_w=power_w)


def step_s(prefill_tokens: int, decode_seqs: int) -> float:
    return 0.002 + 2e-6 * prefill_tokens + 1e-5 * decode_seqs


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[JumpingBench]:
    """Return a bench of few loads on a clock that jumps."""
    loop = VirtualLoop()
    monkeypatch.setattr(time, "monotonic", loop.time)
    monkeypatch.setattr(asyncio, "run", loop.run_until_complete)
    monkeypatch.setattr(grid, "QUICK", FEW)
    meter = JumpingMeter(tmp_path / "steps.bin", loop.time, tmp_path / "meter.bin")
    yield JumpingBench(tmp_path / "calibration", nullcontext(meter), jumping=meter)
    loop.run_until_complete(asyncio.sleep(0))  # engines that were stopped end
    loop.close()


@pytest.fixture
def metered_bench(nvml: ScriptedNvml, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MeteredBench:
    """Return a bench of few loads in real time, which settle fast, and whose counter ticks fast."""
    nvml.add_gpu(0, 80)
    nvml.say(-1.0, 0, tick_s=TICK_S)
    monkeypatch.setattr(loads, "SETTLE_S", 0.05)
    monkeypatch.setattr(loads, "REST_S", 0.2)
    monkeypatch.setattr(loads, "OPEN_SETTLE_S", 0.3)
    monkeypatch.setattr(loads, "WARM_UPS", ((50, 4),))
    monkeypatch.setattr(grid, "QUICK", FEW)
    return MeteredBench(tmp_path / "calibration", ReadMeter(tmp_path / "meter.bin", (0,)), nvml=nvml)
