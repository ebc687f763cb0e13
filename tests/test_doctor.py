"""The command `replay doctor`: what was scripted of this machine is what it finds."""

import json
import os
from pathlib import Path
from types import ModuleType

import pytest
from click.testing import CliRunner
from scripted_nvml import ALL, GPU_IS_LOST, ScriptedNvml

import backends.machine
from backends.host_pace import BEST_OF, processor_times_s
from backends.machine import Finding, examine
from replay.main import main

DOCTOR = "import sys; from replay.main import main; main(['doctor', *sys.argv[1:]])"


def findings(nvml: ScriptedNvml) -> dict[str, Finding]:
    done = nvml.run("-c", DOCTOR, "--json")
    assert done.returncode == 0, done.stderr
    return {row["subject"]: Finding(**row) for row in json.loads(done.stdout)["findings"]}


def test_a_gpu_that_is_fit_is_ok_in_every_line(nvml: ScriptedNvml) -> None:
    nvml.add_gpu(0, 300)
    nvml.say(-1.0, 0, name="NVIDIA H200")
    found = findings(nvml)
    mine = [one for subject, one in found.items() if subject.startswith(("GPU 0", "driver"))]
    assert [one.state for one in mine] == ["ok"] * 8
    assert found["driver"].finding == "580.0"
    assert found["GPU 0"].finding == "NVIDIA H200"
    assert found["GPU 0 power"].finding == "300 W now"
    assert found["GPU 0 power limit"].finding == "700 W"
    assert "h200-llama-3.1-8b-bf16" in found["GPU 0 tables"].finding
    tick_ms = float(found["GPU 0 energy counter"].finding.split()[2])
    assert tick_ms == pytest.approx(100, abs=15)


def test_what_spoils_a_measurement_is_told_with_what_to_do(nvml: ScriptedNvml) -> None:
    nvml.add_gpu(0, 300)
    nvml.add_gpu(1, 300)
    nvml.say(-0.5, 0, mig=1, process=77, tick_s=0.4)
    nvml.say(-0.5, 1, no_counter=1, no_power=1)
    found = findings(nvml)
    warned = ("GPU 0 MIG", "GPU 0 processes", "GPU 0 tables")
    for subject in warned:
        assert found[subject].state == "warning"
        assert found[subject].advice
    assert "77 compute here" in found["GPU 0 processes"].finding
    assert found["GPU 0 energy counter"].state == "warning"
    assert found["GPU 1 energy counter"].state == found["GPU 1 power"].state == "missing"
    assert found["GPU 1 MIG"].state == "ok"


def test_a_lost_gpu_is_told_in_one_line(nvml: ScriptedNvml) -> None:
    nvml.add_gpu(0, 300)
    nvml.say(-0.5, ALL, fails=GPU_IS_LOST)
    found = findings(nvml)
    assert found["GPU"].state == "missing"
    assert "GPU is lost" in found["GPU"].finding


def test_without_a_gpu_the_text_says_what_is_left_to_do(nvml: ScriptedNvml) -> None:
    done = nvml.run("-c", DOCTOR)
    assert done.returncode == 0
    assert "missing  GPU " in done.stdout
    assert "NVML knows of none -> simulate, or measure on a host" in done.stdout


def test_each_processor_is_timed_alone_and_all_are_free_again() -> None:
    allowed = os.sched_getaffinity(0)
    slower = iter(range(10_000))

    def loop_s() -> float:
        (processor,) = os.sched_getaffinity(0)
        return processor + 1e-3 * next(slower)

    times_s = processor_times_s(loop_s)
    assert list(times_s) == sorted(allowed)
    assert [int(time_s) for time_s in times_s.values()] == sorted(allowed)
    assert len(set(times_s.values())) == len(allowed)
    assert next(slower) == BEST_OF * len(allowed)
    assert os.sched_getaffinity(0) == allowed


def test_processors_are_free_again_after_a_failure() -> None:
    allowed = os.sched_getaffinity(0)

    def loop_s() -> float:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        processor_times_s(loop_s)
    assert os.sched_getaffinity(0) == allowed


@pytest.mark.parametrize(("slowest_s", "state"), [(0.0024, "ok"), (0.0026, "warning")])
@pytest.mark.usefixtures("no_gpu")
def test_processors_that_differ_by_more_than_a_quarter_are_doubted(
    slowest_s: float, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backends.machine, "processor_times_s", lambda: {0: 0.002, 1: slowest_s, 5: 0.002})
    (found,) = (finding for finding in examine() if finding.subject == "processors")
    assert found.state == state
    assert found.finding == f"a loop takes 2.00 ms on the quickest of 3, {1e3 * slowest_s:.2f} on the slowest"
    assert (found.advice is None) == (state == "ok")


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends.machine, "_gpus", lambda: iter(()))


@pytest.mark.usefixtures("no_gpu")
def test_counters_of_processors_and_memory_are_told_by_whether_they_can_be_read(tmp_path: Path) -> None:
    def host() -> tuple[Finding, Finding]:
        cpu, dram = list(examine(tmp_path))[-2:]
        return cpu, dram

    assert [one.state for one in host()] == ["missing", "missing"]
    for domain, name in (("intel-rapl:0", "package-0"), ("intel-rapl:1", "package-1")):
        (tmp_path / domain).mkdir()
        (tmp_path / domain / "name").write_text(name)
        (tmp_path / domain / "energy_uj").write_text("1")
    cpu, dram = host()
    assert (cpu.state, cpu.finding, dram.state) == ("ok", "2 counters", "missing")
    (tmp_path / "intel-rapl:1" / "energy_uj").unlink()
    (tmp_path / "intel-rapl:1" / "energy_uj").mkdir()
    cpu, _ = host()
    assert cpu.state == "missing"
    assert cpu.advice is not None
    assert "chmod a+r" in cpu.advice


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize(
    ("source", "state", "finding"),
    [
        ("__version__ = '0.99.0'", "ok", "0.99.0"),
        ("raise ImportError('no libcudart')", "missing", "cannot be imported: ImportError: no libcudart"),
    ],
)
def test_vllm_is_imported_to_see_whether_it_can_be(
    source: str, state: str, finding: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "vllm.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (found,) = (finding for finding in examine(tmp_path) if finding.subject == "vLLM")
    assert (found.subject, found.state, found.finding) == ("vLLM", state, finding)


@pytest.mark.usefixtures("no_gpu")
def test_what_is_not_installed_is_missing_and_said_how_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    hidden: dict[str, ModuleType | None] = dict.fromkeys(("vllm", "aiohttp", "scipy", "matplotlib"))
    monkeypatch.setattr("importlib.util.find_spec", hidden.get)
    result = CliRunner().invoke(main, ["doctor"])
    assert result.exit_code == 0, result.output
    for extra in ("vllm", "openai", "calibrate", "plot"):
        assert f"pip install 'replay[{extra}]'" in result.output
