"""The meter, over the real pynvml and a scripted NVML: what it reads is what was scripted."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scripted_nvml import ALL, GPU_IS_LOST, ScriptedNvml

from backends.meter import PERIOD_S, SAMPLE, Meter
from backends.nvml import MeterError
from traces.trace import Floats

TICK_S = 0.1
FACTS = """
from backends.nvml import open_gpus
with open_gpus() as gpus:
    for gpu in gpus:
        print(gpu.facts())
"""
ORPHAN = """
import os, sys, time
from pathlib import Path
from backends.meter import Meter
with Meter(Path(sys.argv[1]), (0,)):
    if fork := os.fork():
        print(fork, flush=True)
        os._exit(1)
    time.sleep(60)
"""
HOST = """
import runpy, sys
from pathlib import Path
import backends.host_energy as host_energy
counters, real = Path(sys.argv.pop()), host_energy.HostEnergy
host_energy.HostEnergy = lambda: real(counters)
runpy.run_module("backends.meter", run_name="__main__")
"""


def meter_until(meter: Meter, end_s: float) -> NDArray[np.void]:
    time.sleep(max(end_s - time.monotonic(), 0.0))
    return meter.samples(0.0)


def ticks_of(samples: NDArray[np.void], gpu: int) -> tuple[Floats, Floats]:
    own = samples[samples["gpu"] == gpu]
    changed = np.flatnonzero(np.diff(own["energy_j"])) + 1
    return own["time_s"][changed], own["energy_j"][changed]


def test_counter_and_power_of_each_gpu_follow_the_script(nvml: ScriptedNvml, tmp_path: Path) -> None:
    swings = {0: (100, 600, 200), 1: (300, 90, 450)}
    for gpu, (first_w, _, _) in swings.items():
        nvml.add_gpu(gpu, first_w)
        nvml.say(-1.0, gpu, phase_s=0.037 * gpu)
    with Meter(tmp_path / "meter.bin", (0, 1)) as meter:
        began_s = time.monotonic() - nvml.zero_s
        for part in (1, 2):
            for gpu, watts in swings.items():
                nvml.say(began_s + 0.7 * part, gpu, power_w=watts[part])
        samples = meter_until(meter, nvml.zero_s + began_s + 2.4)

    own = samples[samples["gpu"] == 0]
    assert (np.diff(own["time_s"]) > 0).all()
    assert np.median(np.diff(own["time_s"])) < 2 * PERIOD_S < TICK_S / 5
    assert np.median(np.diff(ticks_of(samples, 0)[0])) == pytest.approx(TICK_S, abs=PERIOD_S)
    from_s, to_s = began_s + 0.35, began_s + 2.05
    gap_s = 2 * float(np.diff(np.unique(samples["time_s"])).max())
    for gpu, watts in swings.items():
        scripted_j = nvml.energy_j(gpu, from_s, to_s)
        times, joules = ticks_of(samples, gpu)
        ends_j = np.interp([from_s, to_s], times - nvml.zero_s, joules)
        metered_j = float(ends_j[1] - ends_j[0])
        # A tick is seen up to a sampling gap late, and a change of power within a tick is spread over it.
        bound_j = 2 * max(watts) * gap_s + np.ptp(watts) * TICK_S / 4
        assert metered_j == pytest.approx(scripted_j, abs=bound_j)
        power = samples[(samples["gpu"] == gpu) & np.isfinite(samples["power_w"])]
        at_s = np.linspace(from_s, to_s, 2000)
        power_w = np.interp(at_s, power["time_s"] - nvml.zero_s, power["power_w"])
        assert power_w.mean() * (to_s - from_s) == pytest.approx(scripted_j, rel=0.03)
        assert set(power["power_w"].tolist()) == set(watts)


def test_samples_carry_clock_temperature_and_throttling(nvml: ScriptedNvml, tmp_path: Path) -> None:
    nvml.add_gpu(0, 700)
    nvml.say(-0.5, ALL, clock_mhz=1530, temperature_c=61, reasons=0x4)
    with Meter(tmp_path / "meter.bin", (0,)) as meter:
        sample = meter.samples(0.0)[-1]
    assert (sample["clock_mhz"], sample["temperature_c"], sample["throttle_reasons"]) == (1530, 61, 0x4)


def test_samples_since_a_time_leave_out_what_was_before(nvml: ScriptedNvml, tmp_path: Path) -> None:
    nvml.add_gpu(0, 100)
    with Meter(tmp_path / "meter.bin", (0,)) as meter:
        now_s = time.monotonic()
        meter_until(meter, now_s + 0.1)
        assert len(meter.samples(0.0)) > len(meter.samples(now_s)) > 0
        assert (meter.samples(now_s)["time_s"] >= now_s).all()


def test_a_meter_dies_with_the_gpu_says_why_and_keeps_its_samples(nvml: ScriptedNvml, tmp_path: Path) -> None:
    nvml.add_gpu(0, 100)
    with Meter(tmp_path / "meter.bin", (0,)) as meter:
        before = len(meter.samples(0.0))
        nvml.say(time.monotonic() - nvml.zero_s, 0, fails=GPU_IS_LOST)
        with pytest.raises(MeterError, match=r"^the meter died: nvml\w+ failed: GPU is lost; .*nvidia-smi"):
            sample_until_it_raises(meter)
    kept = np.fromfile(tmp_path / "meter.bin", dtype=SAMPLE)
    assert len(kept) >= before
    assert (kept["energy_j"] > 0).all()


def sample_until_it_raises(meter: Meter) -> None:
    deadline_s = time.monotonic() + 10
    while time.monotonic() < deadline_s:
        meter.samples(0.0)
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("no_power", "NVML has no instantaneous power on this GPU"),
        ("no_counter", "nvmlDeviceGetTotalEnergyConsumption failed: Not Supported"),
    ],
)
def test_a_gpu_that_cannot_be_metered_is_refused_at_once(
    nvml: ScriptedNvml, tmp_path: Path, key: str, message: str
) -> None:
    nvml.add_gpu(0, 100)
    nvml.say(-0.5, 0, **{key: 1})
    with (
        pytest.raises(MeterError, match=f"^the meter does not start: {message}"),
        Meter(tmp_path / "m", (0,)),
    ):
        pass


def test_an_unknown_gpu_is_refused(nvml: ScriptedNvml, tmp_path: Path) -> None:
    nvml.add_gpu(0, 100)
    with pytest.raises(MeterError, match=r"NVML has no GPU \(3,\): Invalid Argument; see `nvidia-smi -L`"):
        Meter(tmp_path / "m", (3,)).__enter__()


def test_without_nvml_the_error_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "libnvidia-ml.so.1").write_bytes(b"not a library")
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    with pytest.raises(MeterError) as caught:
        Meter(tmp_path / "meter.bin", (0,)).__enter__()
    assert "\n" not in str(caught.value)
    assert "NVML Shared Library Not Found; an NVIDIA driver is needed" in str(caught.value)


def test_without_a_driver_the_error_says_so(nvml: ScriptedNvml, tmp_path: Path) -> None:
    os.environ.pop("SCRIPTED_NVML")  # the fixture puts it back
    assert nvml.script.exists()
    with pytest.raises(MeterError, match="NVML does not start: Driver Not Loaded"):
        Meter(tmp_path / "meter.bin", (0,)).__enter__()


def test_the_meter_ends_with_its_parent_even_if_a_fork_holds_the_pipe(
    nvml: ScriptedNvml, tmp_path: Path
) -> None:
    nvml.add_gpu(0, 100)
    path = tmp_path / "meter.bin"
    command = [sys.executable, "-c", ORPHAN, str(path)]
    parent = subprocess.Popen(command, env=nvml.environment, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    fork = int(parent.stdout.readline())
    try:
        parent.wait(timeout=10)
        assert path.stat().st_size > 0
        assert stops_growing(path)
        os.kill(fork, 0)
    finally:
        os.kill(fork, 9)
        parent.stdout.close()


def stops_growing(path: Path) -> bool:
    deadline_s = time.monotonic() + 10
    while time.monotonic() < deadline_s:
        size = path.stat().st_size
        time.sleep(0.3)
        if path.stat().st_size == size:
            return True
    return False


def test_facts_are_what_nvml_says_and_none_where_it_does_not(nvml: ScriptedNvml) -> None:
    nvml.add_gpu(0, 100)
    nvml.add_gpu(1, 100)
    nvml.say(-0.5, 0, process=4711)
    nvml.say(-0.5, 1, mig=1, limit_w=350.5)
    done = nvml.run("-c", FACTS)
    assert done.stderr == ""
    first, second = done.stdout.splitlines()
    assert first == (
        "GpuFacts(name='NVIDIA Invented 0', uuid='GPU-00000000', driver='580.0', power_limit_w=700.0, "
        "mig=False, process_ids=(4711,))"
    )
    assert "power_limit_w=350.5, mig=True, process_ids=()" in second


def test_samples_carry_the_hosts_energy_where_it_is_readable(nvml: ScriptedNvml, tmp_path: Path) -> None:
    nvml.add_gpu(0, 100)
    domain = tmp_path / "intel-rapl:0"
    domain.mkdir()
    (domain / "name").write_text("package-0\n")
    (domain / "energy_uj").write_text("7000000\n")
    command = [sys.executable, "-c", HOST, str(tmp_path / "meter.bin"), "0", str(tmp_path)]
    meter = subprocess.Popen(command, env=nvml.environment, stdin=subprocess.PIPE)
    assert meter.stdin is not None

    def readings() -> "list[float]":
        path = tmp_path / "meter.bin"
        rows = np.fromfile(path, dtype=SAMPLE) if path.exists() else np.zeros(0, dtype=SAMPLE)
        assert np.isnan(rows["dram_j"]).all()
        return [joules for joules in rows["cpu_j"].tolist() if np.isfinite(joules)]

    deadline_s = time.monotonic() + 20
    while len(readings()) < 1 and time.monotonic() < deadline_s:
        time.sleep(0.01)
    (domain / "energy_uj.new").write_text("9500000\n")
    (domain / "energy_uj.new").rename(domain / "energy_uj")
    while 2.5 not in readings() and time.monotonic() < deadline_s:
        time.sleep(0.01)
    meter.stdin.close()
    assert meter.wait(timeout=10) == 0
    assert set(readings()) == {0.0, 2.5}
    rows = np.fromfile(tmp_path / "meter.bin", dtype=SAMPLE)
    assert 1 < len(readings()) < len(rows) / 20
