"""The command `replay TRACE --backend vllm`: real meter, scripted NVML, an engine that stands in for vLLM."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from scripted_nvml import ScriptedNvml
from standin_engine import DECODE_W, IDLE_W, PREFILL_W
from toy_trace import toy_trace

from replay.errors import Exit
from replay.main import main
from traces.parquet import write_trace
from traces.record_files import read_attachment, read_run

DOCS = Path(__file__).parents[1] / "docs"
REPLAY = """
import os, sys, time
import backends.measured_run, backends.rig
from standin_engine import StandInEngine
from replay.main import main

def draw(watts):
    with open(os.environ["SCRIPTED_NVML"], "a") as script:
        script.write(f"{time.monotonic():.9f} 0 power_w {watts}\\n")

class Engine(StandInEngine):
    def __init__(self, model, options, step_log):
        super().__init__(step_log, lambda prefill, decode: 0.1 if prefill else 0.04, draw=draw)

backends.rig.VllmEngine = Engine
backends.rig.WARM_UPS = ((16, 2),)
backends.measured_run.WAIT_AFTER_S = 0.5
main(sys.argv[1:])
"""
VISIBLE = """
import os
from backends.gpu_watch import engine_gpus
print(engine_gpus({"tensor_parallel_size": 2}, os.environ))
"""


def test_a_live_replay_measures_the_joules_that_were_scripted(nvml: ScriptedNvml, tmp_path: Path) -> None:
    nvml.add_gpu(0, IDLE_W)
    write_trace(toy_trace([0.5, 2.0, 4.5], [100, 400, 1], [10, 20, 20]), tmp_path / "toy.parquet")
    arguments = ["--backend", "vllm", "--model", "toy", "--out", str(tmp_path / "run"), "--json"]
    done = nvml.run("-c", REPLAY, str(tmp_path / "toy.parquet"), *arguments)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    run = read_run(tmp_path / "run")
    assert run.meta.invalid_reasons == ()
    assert summary["energy_source"] == "nvml"
    assert summary["served"] == 3

    steps = read_attachment(tmp_path / "run", "steps")
    assert steps is not None
    lasted_s = steps["done_s"] - steps["scheduled_s"]
    prefills = steps["prefill_tokens"] > 0
    prefill_s, decode_s = lasted_s[prefills].sum(), lasted_s[~prefills].sum()
    idle_s = run.meta.makespan_s - prefill_s - decode_s
    scripted_j = IDLE_W * idle_s + PREFILL_W * prefill_s + DECODE_W * decode_s
    assert summary["total_energy_j"] == pytest.approx(scripted_j, rel=0.02)
    assert summary["idle_energy_j"] == pytest.approx(IDLE_W * idle_s, rel=0.05)
    assert run.meta.idle_w == pytest.approx(IDLE_W, rel=0.01)
    assert run.meta.gpu == "NVIDIA Invented 0"
    assert run.meta.power_limit_w == 700.0
    assert run.outcomes.first_token_s[0] >= 0.599
    assert (run.outcomes.first_token_s >= run.outcomes.arrival_s + 0.099).all()


def heed_interrupts() -> None:
    """Undo that a shell has its background jobs ignore SIGINT, and theirs after them."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_ctrl_c_keeps_what_was_measured(nvml: ScriptedNvml, tmp_path: Path) -> None:
    nvml.add_gpu(0, IDLE_W)
    write_trace(toy_trace([0.0, 1.0, 300.0], 16, 2), tmp_path / "toy.parquet")
    command = [
        sys.executable,
        "-c",
        REPLAY,
        str(tmp_path / "toy.parquet"),
        "--backend",
        "vllm",
        "--model",
        "toy",
    ]
    run = [*command, "--out", str(tmp_path / "run")]
    process = subprocess.Popen(
        run,
        env=nvml.environment,
        start_new_session=True,
        preexec_fn=heed_interrupts,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    deadline_s = time.monotonic() + 120
    while nvml.script.read_text().count(f"power_w {PREFILL_W}") < 3 and time.monotonic() < deadline_s:
        time.sleep(0.05)  # the warm-up and two requests
    time.sleep(0.3)
    os.killpg(process.pid, signal.SIGINT)
    try:
        _, errors = process.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    assert process.returncode == Exit.INTERRUPTED
    assert b"Traceback" not in errors
    meta = read_run(tmp_path / "run").meta
    assert meta.invalid_reasons[0] == "the replay was interrupted"
    assert not any("the meter died" in reason for reason in meta.invalid_reasons)
    assert meta.energy is not None
    assert meta.energy.total_j > IDLE_W * meta.makespan_s


def test_a_gpu_in_use_is_refused_before_the_engine_starts(nvml: ScriptedNvml, tmp_path: Path) -> None:
    nvml.add_gpu(0, IDLE_W)
    nvml.say(-1.0, 0, process=77)
    write_trace(toy_trace([0.0]), tmp_path / "toy.parquet")
    arguments = ["--backend", "vllm", "--model", "toy", "--out", str(tmp_path / "run")]
    done = nvml.run("-c", REPLAY, str(tmp_path / "toy.parquet"), *arguments)
    assert done.returncode == 2
    assert "process 77 computes on the GPU" in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("visible", "expected"),
    [("1,0", "(1, 0)"), ("GPU-00000001,0", "(1, 0)"), ("1", "2 GPUs, 1 are visible"), ("0,7", "names '7'")],
)
def test_the_engine_takes_the_first_visible_gpus(nvml: ScriptedNvml, visible: str, expected: str) -> None:
    nvml.add_gpu(0, IDLE_W)
    nvml.add_gpu(1, IDLE_W)
    nvml.environment["CUDA_VISIBLE_DEVICES"] = visible
    done = nvml.run("-c", VISIBLE)
    assert expected in (done.stdout or done.stderr)


@pytest.mark.parametrize(("command", "page"), [("validate", "live.md"), ("compare", "compare.md")])
def test_every_option_is_told_of(command: str, page: str) -> None:
    text = (DOCS / page).read_text()
    found = main.get_command(click.Context(main), command)
    assert found is not None
    options = [name for parameter in found.params for name in parameter.opts if name.startswith("--")]
    assert len(options) > 5
    for option in options:
        assert f"`{option}" in text, option


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--backend", "vllm"], "needs --model"),
        (["--backend", "vllm", "--model", "toy", "--url", "http://x"], "--url is of --backend openai"),
        (["--model", "toy"], "--model is of a live engine"),
        (["--gpu", "1"], "--gpu is of a live engine"),
        (["--backend", "openai"], "needs --url"),
        (["--backend", "openai", "--url", "http://x", "--replicas", "2"], "give --url once a replica"),
        (["--backend", "vllm", "--model", "toy", "--replicas", "2", "--gpu", "1"], "leave it out"),
        (["--router", "least-loaded"], "--router chooses among --replicas"),
        (["--backend", "openai", "--url", "http://x", "--engine", "max_num_seqs=4"], "server that runs"),
        (["--backend", "openai", "--url", "http://x", "--table", "mine"], "tells nothing of"),
        (
            ["--backend", "openai", "--url", "http://x", "--policy", "deadline", "--table", "x"],
            "no table 'x'",
        ),
        (["--backend", "openai", "--url", "x:80"], "--url takes http://HOST:PORT/v1, got 'x:80'"),
    ],
)
def test_options_of_a_live_engine_go_together(arguments: list[str], message: str, tmp_path: Path) -> None:
    write_trace(toy_trace([0.0]), tmp_path / "toy.parquet")
    result = CliRunner().invoke(main, [str(tmp_path / "toy.parquet"), *arguments])
    assert result.exit_code == 2
    assert message in result.output
