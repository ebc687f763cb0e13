"""Energy of this host's processors and memory through RAPL, as Linux shows it. Reads only."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

POWERCAP = Path("/sys/class/powercap")
NAN = float("nan")


@dataclass(frozen=True, slots=True)
class Domain:
    """A counter of RAPL.

    Attributes:
        kind: `cpu` for the package of a processor, cores and caches included; `dram` for its memory.
        folder: Where the counter is.
    """

    kind: Literal["cpu", "dram"]
    folder: Path

    def energy_uj(self) -> int:
        """Return the counter, which begins again at 0 after `range_uj`; OSError if it may not be read."""
        return int((self.folder / "energy_uj").read_text())

    def range_uj(self) -> int:
        """Return the largest value of the counter; OSError if it may not be read."""
        return int((self.folder / "max_energy_range_uj").read_text())


def domains(powercap: Path = POWERCAP) -> tuple[Domain, ...]:
    """Return the counters of processors and memory, readable or not; none where the host shows none."""
    found = []
    for folder in sorted(powercap.glob("intel-rapl:*")):  # AMD's have this name, too
        name = (folder / "name").read_text().strip()
        if name.startswith("package"):
            found.append(Domain("cpu", folder))
        elif name == "dram":
            found.append(Domain("dram", folder))
    return tuple(found)


class HostEnergy:
    """Adds up what processors and memory take, from its first reading on.

    Read more often than the fastest counter begins again, which takes minutes.
    """

    def __init__(self, powercap: Path = POWERCAP) -> None:
        self._domains = domains(powercap)
        self._last_uj: dict[Domain, int] = {}
        self._total_j = {"cpu": 0.0, "dram": 0.0}

    def read(self) -> tuple[float, float]:
        """Return joules of processors and of memory, NaN for a kind that is not there or not all readable."""
        for domain in self._domains:
            try:
                now_uj = domain.energy_uj()
                grown_uj = now_uj - self._last_uj.get(domain, now_uj)
                if grown_uj < 0:
                    grown_uj += domain.range_uj()
            except OSError:
                self._total_j[domain.kind] = NAN
            else:
                self._last_uj[domain] = now_uj
                self._total_j[domain.kind] += grown_uj / 1e6
        kinds = {domain.kind for domain in self._domains}
        cpu_j, dram_j = (self._total_j[kind] if kind in kinds else NAN for kind in ("cpu", "dram"))
        return cpu_j, dram_j


def between_j(samples: NDArray[np.void], column: str, from_s: float, to_s: float) -> float | None:
    """Return the energy in `column` from `from_s` to `to_s`, linear between readings, None if not known.

    Args:
        samples: Samples of the meter, dtype `backends.meter.SAMPLE`, in time order.
        column: `cpu_j` or `dram_j`.
        from_s, to_s: The window, in the meter's time.
    """
    read = samples[np.isfinite(samples[column])]
    if not len(read) or read["time_s"][0] > from_s or read["time_s"][-1] < to_s:
        return None
    ends_j = np.interp([from_s, to_s], read["time_s"], read[column])
    return float(ends_j[1] - ends_j[0])
