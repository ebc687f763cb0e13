"""One NVIDIA GPU as NVML shows it: identity, energy counter, power, clocks. Reads only, never sets."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any


class MeterError(ValueError):
    """The energy meter cannot be read; the message says which call and what to do."""


@dataclass(frozen=True, slots=True)
class GpuFacts:
    """What NVML says once about a GPU.

    Attributes:
        name: Product name.
        uuid: NVML's UUID, unique to the card.
        driver: Driver version.
        power_limit_w: Enforced power limit, None if NVML does not say.
        mig: Whether MIG is on; a MIG instance would report its parent's energy.
        process_ids: Processes that hold a compute context.
    """

    name: str
    uuid: str
    driver: str
    power_limit_w: float | None
    mig: bool
    process_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class GpuContext:
    """Slowly changing state of a GPU, NaN or 0 where NVML does not say.

    Attributes:
        clock_mhz: SM clock.
        temperature_c: Temperature of the die.
        throttle_reasons: NVML's clock event reasons, bits.
    """

    clock_mhz: float
    temperature_c: float
    throttle_reasons: int


class Gpu:
    """A GPU opened through NVML; get one from `open_gpus`."""

    def __init__(self, nvml: Any, handle: Any) -> None:
        self._nvml = nvml
        self._handle = handle

    def energy_j(self) -> float:
        """Return the energy counter, joules since the driver was loaded; it ticks about every 100 ms."""
        millijoules = self._call("nvmlDeviceGetTotalEnergyConsumption", self._handle)
        return float(millijoules) / 1e3

    def power_w(self) -> float:
        """Return the instantaneous power of the whole board, watts (not the one-second average)."""
        field = self._nvml.NVML_FI_DEV_POWER_INSTANT
        value = self._call("nvmlDeviceGetFieldValues", self._handle, [field])[0]
        if value.nvmlReturn != self._nvml.NVML_SUCCESS:
            raise MeterError(
                f"NVML has no instantaneous power on this GPU (return code {value.nvmlReturn}) to check its "
                f"counter by; meter a GPU of the Ampere generation or later"
            )
        return float(value.value.uiVal) / 1e3

    def context(self) -> GpuContext:
        """Return clock, temperature and throttle reasons."""
        nvml = self._nvml
        return GpuContext(
            clock_mhz=self._optional(
                float("nan"), "nvmlDeviceGetClockInfo", self._handle, nvml.NVML_CLOCK_SM
            ),
            temperature_c=self._optional(
                float("nan"), "nvmlDeviceGetTemperature", self._handle, nvml.NVML_TEMPERATURE_GPU
            ),
            throttle_reasons=int(self._optional(0, "nvmlDeviceGetCurrentClocksEventReasons", self._handle)),
        )

    def facts(self) -> GpuFacts:
        """Return identity, limits and who computes on this GPU."""
        limit_mw = self._optional(None, "nvmlDeviceGetEnforcedPowerLimit", self._handle)
        mig = self._optional((0, 0), "nvmlDeviceGetMigMode", self._handle)
        processes = self._optional([], "nvmlDeviceGetComputeRunningProcesses", self._handle)
        return GpuFacts(
            name=_text(self._call("nvmlDeviceGetName", self._handle)),
            uuid=_text(self._optional("unknown", "nvmlDeviceGetUUID", self._handle)),
            driver=_text(self._optional("unknown", "nvmlSystemGetDriverVersion")),
            power_limit_w=None if limit_mw is None else float(limit_mw) / 1e3,
            mig=bool(mig[0]),
            process_ids=tuple(int(process.pid) for process in processes),
        )

    def _call(self, name: str, *args: Any) -> Any:
        try:
            return getattr(self._nvml, name)(*args)
        except self._nvml.NVMLError as error:
            raise MeterError(f"{name} failed: {error}; see `nvidia-smi` for the state of the GPU") from error

    def _optional(self, missing: Any, name: str, *args: Any) -> Any:
        try:
            return getattr(self._nvml, name)(*args)
        except self._nvml.NVMLError:
            return missing


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


@contextmanager
def open_gpus(indices: tuple[int, ...] | None = None) -> Iterator[tuple[Gpu, ...]]:
    """Open GPUs by NVML index, all of them by default, and close NVML afterwards.

    Raises:
        MeterError: NVML is not there, or has no such GPU.
    """
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        raise MeterError(
            f"NVML does not start: {error}; an NVIDIA driver is needed to measure energy"
        ) from error
    try:
        try:
            chosen = indices if indices is not None else tuple(range(pynvml.nvmlDeviceGetCount()))
            handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in chosen]
        except pynvml.NVMLError as error:
            raise MeterError(f"NVML has no GPU {indices}: {error}; see `nvidia-smi -L`") from error
        yield tuple(Gpu(pynvml, handle) for handle in handles)
    finally:
        pynvml.nvmlShutdown()
