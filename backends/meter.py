"""The energy meter: a process of its own that samples NVML into a file until its standard input closes."""

import itertools
import os
import select
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import astuple
from pathlib import Path
from typing import IO, Protocol

import numpy as np
from numpy.typing import NDArray

from backends.host_energy import NAN, HostEnergy
from backends.nvml import GpuContext, MeterError, open_gpus

SAMPLE = np.dtype(
    [
        ("time_s", "f8"),
        ("gpu", "i4"),
        ("energy_j", "f8"),
        ("power_w", "f4"),
        ("clock_mhz", "f4"),
        ("temperature_c", "f4"),
        ("throttle_reasons", "u8"),
        ("cpu_j", "f8"),
        ("dram_j", "f8"),
    ]
)
"""One reading of one GPU, as a row of the meter's file.

Monotonic time after the counter was read, the GPU's place among those metered, counter, instantaneous power
(NaN between its readings), and the context: clock, temperature, clock event reasons. Last the host's energy
since the meter began, of processors and memory: NaN between readings, and where it cannot be read.
"""

PERIOD_S = 0.005
POWER_EVERY = 4
CONTEXT_EVERY = 40
START_S = 30.0


class MeteredGpu(Protocol):
    """What the meter reads: a GPU through NVML, or a pretend one."""

    def energy_j(self) -> float:
        """Return the energy counter, joules since an arbitrary time; it ticks about every 100 ms."""
        ...

    def power_w(self) -> float:
        """Return the instantaneous power, watts."""
        ...

    def context(self) -> GpuContext:
        """Return clock, temperature and throttle reasons."""
        ...


class Meter:
    """Samples the energy counter every 5 ms, power every 20 ms, clocks and the host every 200 ms.

    Times are `time.monotonic()`, which all processes of a Linux host share.
    """

    def __init__(self, path: Path, gpus: tuple[int, ...], twins: Sequence[Path] = ()) -> None:
        """Prepare to write samples of the GPUs with these NVML indices to `path`.

        With `twins`, folders of twins (`backends.twin`), they are their pretend GPUs, as many of each.
        """
        self._path = path
        self._arguments = [str(path), ",".join(map(str, gpus)), *map(str, twins)]
        self._process: subprocess.Popen[bytes] | None = None
        self._errors: IO[bytes] | None = None

    def __enter__(self) -> "Meter":
        self._path.write_bytes(b"")
        self._errors = open(self._path.with_suffix(".errors"), "wb")
        command = [sys.executable, "-m", "backends.meter", *self._arguments]
        root = str(Path(__file__).resolve().parents[1])
        paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stderr=self._errors,
            env=environment,
            start_new_session=True,  # Ctrl-C is for this process, which reads the meter once more
        )
        try:
            self._wait_for_a_sample(self._process)
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def samples(self, since_s: float) -> NDArray[np.void]:
        """Return the samples from `since_s` on, dtype SAMPLE, in time order.

        Raises:
            MeterError: The meter has died; what it had written stays in its file.
        """
        if self._process is not None and self._process.poll() not in (None, 0):
            raise MeterError(f"the meter died: {self._last_words()}")
        return read_samples(self._path, since_s)

    def _wait_for_a_sample(self, process: "subprocess.Popen[bytes]") -> None:
        deadline_s = time.monotonic() + START_S
        while self._path.stat().st_size < SAMPLE.itemsize:
            if process.poll() is not None or time.monotonic() > deadline_s:
                raise MeterError(f"the meter does not start: {self._last_words()}")
            time.sleep(0.01)

    def _stop(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            try:
                self._process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._errors is not None:
            self._errors.close()

    def _last_words(self) -> str:
        words = self._path.with_suffix(".errors").read_text().strip().splitlines()
        return words[-1] if words else "it said nothing"


def read_samples(path: Path, since_s: float) -> NDArray[np.void]:
    """Return the whole samples in a meter's file from `since_s` on, dtype SAMPLE, in time order."""
    whole = path.stat().st_size // SAMPLE.itemsize
    rows = np.fromfile(path, dtype=SAMPLE, count=whole)
    kept: NDArray[np.void] = rows[np.searchsorted(rows["time_s"], since_s) :]
    return kept


def sample_into(path: Path, opened: AbstractContextManager[Sequence[MeteredGpu]]) -> None:
    """Append samples to `path` until standard input closes, or whoever started this process has ended."""
    parent = os.getppid()
    with opened as gpus, open(path, "ab", buffering=0) as out:
        due_s = time.monotonic()
        host, contexts = HostEnergy(), list[GpuContext]()
        for tick in itertools.count():
            host_j = (NAN, NAN)
            if tick % CONTEXT_EVERY == 0:
                contexts = [gpu.context() for gpu in gpus]
                host_j = host.read()
            has_power = tick % POWER_EVERY == 0
            rows = [
                (*_read(index, gpu, contexts[index], has_power), *host_j) for index, gpu in enumerate(gpus)
            ]
            out.write(np.array(rows, dtype=SAMPLE).tobytes())
            due_s = max(due_s + PERIOD_S, time.monotonic())
            closed, _, _ = select.select([sys.stdin], [], [], max(due_s - time.monotonic(), 0.0))
            if closed or os.getppid() != parent:
                return


def _read(index: int, gpu: MeteredGpu, context: GpuContext, has_power: bool) -> tuple[float, ...]:
    energy_j = gpu.energy_j()
    now_s = time.monotonic()
    power_w = gpu.power_w() if has_power else NAN
    return (now_s, index, energy_j, power_w, *astuple(context))


if __name__ == "__main__":
    indices, twins = tuple(int(index) for index in sys.argv[2].split(",")), sys.argv[3:]
    try:
        if twins:
            from backends.twin_counter import open_twins

            sample_into(Path(sys.argv[1]), open_twins([Path(twin) for twin in twins], len(indices)))
        else:
            sample_into(Path(sys.argv[1]), open_gpus(indices))
    except MeterError as failure:
        sys.exit(str(failure))
