"""Energy of processors and memory: added up over counters that begin again, unknown rather than 0."""

import math
from pathlib import Path

import numpy as np
import pytest

from backends.host_energy import HostEnergy, between_j, domains
from backends.meter import SAMPLE


class Powercap:
    """A folder such as /sys/class/powercap."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def say(self, domain: str, name: str, energy_uj: int, range_uj: int = 1_000_000_000) -> None:
        counter = self.folder / domain
        counter.mkdir(exist_ok=True)
        (counter / "name").write_text(f"{name}\n")
        (counter / "energy_uj").write_text(f"{energy_uj}\n")
        (counter / "max_energy_range_uj").write_text(f"{range_uj}\n")

    def hide(self, domain: str) -> None:
        (self.folder / domain / "energy_uj").unlink()


@pytest.fixture
def powercap(tmp_path: Path) -> Powercap:
    return Powercap(tmp_path)


def test_packages_and_memory_are_added_up_and_nothing_else(powercap: Powercap) -> None:
    names = {
        "intel-rapl:0": "package-0",
        "intel-rapl:0:0": "core",
        "intel-rapl:0:1": "dram",
        "intel-rapl:1": "package-1",
        "intel-rapl:1:0": "dram",
        "intel-rapl:2": "psys",
        "intel-rapl-mmio:0": "package-0",
    }
    for domain, name in names.items():
        powercap.say(domain, name, 5_000_000)
    assert [domain.kind for domain in domains(powercap.folder)] == ["cpu", "dram", "cpu", "dram"]
    host = HostEnergy(powercap.folder)
    assert host.read() == (0.0, 0.0)
    for place, (domain, name) in enumerate(names.items()):
        powercap.say(domain, name, 5_000_000 + 10**place * 1_000_000)
    assert host.read() == (1001.0, 10100.0)


def test_a_counter_that_begins_again_goes_on(powercap: Powercap) -> None:
    host = None
    for energy_uj in (90_000_000, 99_000_000, 4_000_000, 9_000_000):
        powercap.say("intel-rapl:0", "package-0", energy_uj, range_uj=100_000_000)
        host = host or HostEnergy(powercap.folder)
        cpu_j, _ = host.read()
    assert cpu_j == pytest.approx(9.0 + 5.0 + 5.0)


def test_what_is_not_there_or_not_all_readable_is_unknown(powercap: Powercap) -> None:
    assert all(map(math.isnan, HostEnergy(powercap.folder).read()))
    powercap.say("intel-rapl:0", "package-0", 1_000_000)
    powercap.say("intel-rapl:1", "package-1", 1_000_000)
    host = HostEnergy(powercap.folder)
    cpu_j, dram_j = host.read()
    assert cpu_j == 0.0
    assert math.isnan(dram_j)
    powercap.hide("intel-rapl:1")
    assert math.isnan(host.read()[0])
    powercap.say("intel-rapl:1", "package-1", 9_000_000)
    assert math.isnan(host.read()[0])


def samples(time_s: list[float], cpu_j: list[float]) -> "np.ndarray[tuple[int], np.dtype[np.void]]":
    rows = np.zeros(len(time_s), dtype=SAMPLE)
    rows["time_s"], rows["cpu_j"], rows["dram_j"] = time_s, cpu_j, math.nan
    return rows


def test_the_energy_of_a_window_is_read_between_readings() -> None:
    rows = samples([0.0, 1.0, 2.0, 4.0], [0.0, math.nan, 20.0, 60.0])
    assert between_j(rows, "cpu_j", 1.0, 3.0) == pytest.approx(30.0)
    assert between_j(rows, "cpu_j", 0.0, 4.0) == pytest.approx(60.0)
    assert between_j(rows, "cpu_j", 0.0, 4.1) is None
    assert between_j(rows, "cpu_j", -0.1, 1.0) is None
    assert between_j(rows, "dram_j", 0.0, 1.0) is None
