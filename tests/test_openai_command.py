"""The command `replay TRACE --backend openai`: a scripted server on the loopback, metered or not."""

import errno
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
from click.testing import CliRunner, Result
from openai_server import Script, running
from scripted_nvml import GPU_IS_LOST, ScriptedNvml
from toy_trace import toy_trace

import backends.measured_run
import backends.rig
from replay.errors import Exit
from replay.main import main
from traces.parquet import write_trace
from traces.record import FAILED, SERVED
from traces.record_files import read_attachment, read_run

REPLAY = """
import sys
import backends.measured_run, backends.rig
from replay.main import main
backends.rig.WARM_UPS = ((16, 2),)
backends.measured_run.WAIT_AFTER_S = 0.5
main(sys.argv[1:])
"""
LITTLE_SPACE = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
"""
IDLE_W, BUSY_W = 120.0, 480.0
UNKNOWN_ERROR = 999
SERVER_PID = 77


class Drawing(Script):
    """Has the GPU draw power while it serves."""

    def __init__(self, nvml: ScriptedNvml, **script: Any) -> None:
        super().__init__(**script)
        self.nvml = nvml
        nvml.add_gpu(0, IDLE_W)
        nvml.say(-1.0, 0, process=SERVER_PID)

    async def begin(self, prompt_tokens: int) -> None:  # noqa: ARG002
        self.nvml.say_now(0, power_w=BUSY_W)

    def finish(self) -> None:
        self.nvml.say_now(0, power_w=IDLE_W)


def trace_file(folder: Path, arrival_s: list[float], prompt_tokens: list[int], output_tokens: int) -> str:
    path = folder / "toy.parquet"
    write_trace(toy_trace(arrival_s, prompt_tokens, output_tokens), path)
    return str(path)


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends.rig, "WARM_UPS", ((16, 2),))
    monkeypatch.setattr(backends.measured_run, "IDLE_BEFORE_S", 0.01)
    monkeypatch.setattr(backends.measured_run, "WAIT_AFTER_S", 0.01)


def replay(trace: str, url: str, out: Path, *options: str) -> Result:
    command = [trace, "--backend", "openai", "--url", url, "--out", str(out), *options]
    return CliRunner().invoke(main, command)


def metered(nvml: ScriptedNvml, trace: str, url: str, out: Path, code: str = REPLAY) -> dict[str, Any]:
    """Return the summary of a metered replay."""
    command = [trace, "--backend", "openai", "--url", url, "--gpu", "0", "--json", "--out", str(out)]
    done = nvml.run("-c", code, *command)
    summary: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == (Exit.DONE if summary["energy_valid"] else Exit.FLAWED), done.stderr
    return summary


def test_a_metered_server_has_the_scripted_joules_and_no_split(nvml: ScriptedNvml, tmp_path: Path) -> None:
    trace = trace_file(tmp_path, [0.5, 2.5, 4.5], [100, 400, 1], 10)
    with running(Drawing(nvml, step_s=0.08)) as url:
        summary = metered(nvml, trace, url, tmp_path / "run")
    run = read_run(tmp_path / "run")
    assert run.meta.invalid_reasons == ()
    sends = read_attachment(tmp_path / "run", "sends")
    assert sends is not None
    busy_s = float((run.outcomes.finished_s - sends["sent_s"]).sum())
    scripted_j = IDLE_W * (run.meta.makespan_s - busy_s) + BUSY_W * busy_s
    assert summary["total_energy_j"] == pytest.approx(scripted_j, rel=0.03)
    assert (summary["energy_source"], summary["served"]) == ("nvml", 3)
    assert summary["prefill_energy_j"] is summary["decode_energy_j"] is summary["idle_energy_j"] is None
    assert run.meta.idle_w == pytest.approx(IDLE_W, rel=0.02)
    assert run.meta.gpu == "NVIDIA Invented 0"
    assert "The server tells nothing of its steps, so the measured total is not split." in run.meta.notes
    assert not (tmp_path / "run" / "steps.parquet").exists()
    assert (run.outcomes.first_token_s - sends["sent_s"] >= 0.08).all()


def test_a_gpu_on_which_no_server_computes_is_refused(nvml: ScriptedNvml, tmp_path: Path) -> None:
    trace = trace_file(tmp_path, [0.0], [1], 1)
    with running(Drawing(nvml)) as url:
        nvml.say(-0.5, 0, process=-SERVER_PID)
        arguments = [trace, "--backend", "openai", "--url", url, "--gpu", "0"]
        done = nvml.run("-c", REPLAY, *arguments, "--out", str(tmp_path / "run"))
    assert done.returncode == 2
    assert "nobody computes on GPU 0; give by --gpu those that the server uses" in done.stderr


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ({"fails": GPU_IS_LOST}, "the meter died: nvmlDeviceGetTotalEnergyConsumption failed: GPU is lost"),
        (
            {"fails": UNKNOWN_ERROR},
            "the meter died: nvmlDeviceGetTotalEnergyConsumption failed: Unknown Error",
        ),
        ({"jump_j": -900.0}, "the energy counter or its clock runs backwards"),
    ],
)
def test_a_meter_that_fails_on_the_way_leaves_latencies_and_says_so(
    fault: dict[str, float], reason: str, nvml: ScriptedNvml, tmp_path: Path
) -> None:
    class Failing(Drawing):
        async def begin(self, prompt_tokens: int) -> None:
            await super().begin(prompt_tokens)
            if prompt_tokens == 400:
                self.nvml.say_now(0, **fault)

    trace = trace_file(tmp_path, [0.5, 1.0, 1.5], [100, 400, 1], 4)
    with running(Failing(nvml, step_s=0.01)) as url:
        summary = metered(nvml, trace, url, tmp_path / "run")
    assert summary["served"] == 3
    assert summary["ttft_p50_s"] > 0
    assert not summary["energy_valid"]
    assert any(reason in why for why in summary["invalid_reasons"]), summary["invalid_reasons"]
    samples = read_attachment(tmp_path / "run", "meter")
    assert samples is not None
    assert (samples["time_s"] < 0.5).any()
    assert (samples["time_s"] > 0.5).any()


def test_a_disk_that_is_full_for_the_meter_leaves_latencies_and_says_so(
    nvml: ScriptedNvml, tmp_path: Path
) -> None:
    trace = trace_file(tmp_path, [0.5, 1.0, 3.0], [100, 400, 1], 4)
    with running(Drawing(nvml, step_s=0.01)) as url:
        summary = metered(nvml, trace, url, tmp_path / "run", LITTLE_SPACE + REPLAY)
    assert (summary["served"], summary["total_energy_j"], summary["energy_source"]) == (3, None, "none")
    assert "the meter died: OSError: [Errno 27] File too large" in summary["invalid_reasons"]


@pytest.mark.usefixtures("fast")
def test_a_server_elsewhere_has_latencies_and_no_energy_and_can_be_compared(tmp_path: Path) -> None:
    trace = trace_file(tmp_path, [0.0, 0.1, 0.2], [100, 40, 1], 4)
    script = Script(step_s=0.01, vocabulary=5000)
    with running(script) as url:
        result = replay(trace, url, tmp_path / "run", "--vocabulary", "5000")
    assert result.exit_code == 0, result.output
    assert "not metered" in result.output
    meta = read_run(tmp_path / "run").meta
    assert (meta.energy_valid, meta.energy, meta.energy_source, meta.gpus) == (True, None, "none", 0)
    assert meta.engine_options == {"model": "toy", "max_model_len": 2048, "vocabulary": 5000}
    assert not (tmp_path / "run" / "meter.parquet").exists()
    assert max(max(request["prompt"]) for request in script.requests) < 5000

    CliRunner().invoke(main, [trace, "--out", str(tmp_path / "simulated")])
    folders = [str(tmp_path / "simulated"), str(tmp_path / "run")]
    compared = CliRunner().invoke(main, ["compare", *folders, "--json"])
    assert compared.exit_code == 0, compared.output
    rows = {row["metric"]: row for row in json.loads(compared.output)["rows"]}
    assert rows["total_energy_j"]["simulated"] > 0
    assert rows["total_energy_j"]["measured"] is rows["total_energy_j"]["error_fraction"] is None
    assert rows["ttft_p50_s"]["error_fraction"] is not None


@pytest.mark.usefixtures("fast")
@pytest.mark.usefixtures("fast")
def test_a_policy_that_asks_for_costs_is_told_those_of_the_table_given(tmp_path: Path) -> None:
    trace = trace_file(tmp_path, [0.0, 0.1], [100, 100], 2)
    asked = ["--policy", "deadline", "--set", "ttft_s=0.5"]
    with running(Script(step_s=0.01)) as url:
        refused = replay(trace, url, tmp_path / "none", *asked)
        done = replay(trace, url, tmp_path / "run", *asked, "--table", "h200-llama-3.1-8b-bf16")
    assert refused.exit_code == 2
    assert "policy Deadline estimates by a cost table, there is none; give --table" in refused.output
    assert done.exit_code == 0, done.output
    assert (read_run(tmp_path / "run").outcomes.released_s > 0.3).all()


def test_what_a_server_fails_counts_as_failed_with_its_reason(tmp_path: Path) -> None:
    faults = {21: "refuse", 22: "error", 23: "cut", 24: "early", 25: "short"}
    trace = trace_file(tmp_path, [0.0] * 6, [20, *faults], 3)
    with running(Script(faults=faults)) as url:
        result = replay(trace, url, tmp_path / "run", "--json")
    assert result.exit_code == Exit.FLAWED, result.output
    outcomes = read_run(tmp_path / "run").outcomes
    assert outcomes.status.tolist() == [SERVED, *[FAILED] * 5]
    assert np.isnan(outcomes.finished_s[1:]).all()
    sends = read_attachment(tmp_path / "run", "sends")
    assert sends is not None
    reasons = ("HTTP 400", "EngineCore died", "Payload", "before [DONE]", "gave 1 of 3 tokens")
    for failure, reason in zip(sends["failure"][1:], reasons, strict=True):
        assert reason in failure
    reason = "5 requests failed, the first is 1: ValueError: HTTP 400: this request is out of order"
    assert reason in read_run(tmp_path / "run").meta.invalid_reasons


@pytest.mark.usefixtures("fast")
def test_two_replays_on_one_server_share_no_prompts(tmp_path: Path) -> None:
    trace = trace_file(tmp_path, [0.0], [30], 1)
    script = Script()
    with running(script) as url:
        for run in ("one", "two"):
            assert replay(trace, url, tmp_path / run).exit_code == 0
    one, two = (request["prompt"] for request in script.requests if len(request["prompt"]) == 30)
    assert one != two


@pytest.mark.usefixtures("fast")
def test_a_folder_that_takes_no_more_does_not_cost_a_live_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, rescue = pyarrow.parquet.write_table, tmp_path / "rescue"

    def full(table: Any, path: Path, **options: Any) -> None:
        if rescue not in path.parents:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        real(table, path, **options)

    rescue.mkdir()
    trace = trace_file(tmp_path, [0.0], [30], 2)
    monkeypatch.setattr(tempfile, "tempdir", str(rescue))
    monkeypatch.setattr(pyarrow.parquet, "write_table", full)
    with running(Script()) as url:
        result = replay(trace, url, tmp_path / "run")
    assert result.exit_code == 0, result.output
    assert "No space left on device: the record is in " in result.output
    assert not (tmp_path / "run").exists()
    (folder,) = rescue.glob("replay-*/run")
    assert read_run(folder).outcomes.status.tolist() == [SERVED]
