"""vLLM's own OpenAI server on the CPU, with a tiny model and a scripted GPU, through `--backend openai`."""

import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from scripted_nvml import ScriptedNvml
from tiny_vllm import NEEDS_VLLM, OPTIONS, TIMEOUT_S, on_cpu, write_model
from toy_trace import toy_trace

from traces.parquet import write_trace
from traces.record import SERVED
from traces.record_files import read_attachment, read_run

pytestmark = [pytest.mark.vllm, NEEDS_VLLM]

POWER_W = 250.0
TRACE = toy_trace(
    [0.0, 0.0, 0.2, 0.9, 2.4, 2.4, 6.0], [1, 300, 33, 64, 500, 7, 128], [9, 30, 1, 2, 20, 40, 17]
)


@contextmanager
def serving(nvml: ScriptedNvml, model: Path) -> Iterator[str]:
    """Run the server and yield where its API begins."""
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model)]
    command += ["--skip-tokenizer-init", "--load-format", "dummy", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--dtype", OPTIONS["dtype"], "--enforce-eager", "--block-size", str(OPTIONS["block_size"])]
    log = model / "server.log"
    with open(log, "w") as out:
        server = subprocess.Popen(command, env=nvml.environment, stdout=out, stderr=subprocess.STDOUT)
    try:
        wait_for(f"http://127.0.0.1:{port}/health", server, log)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()
        server.wait(timeout=60)


def wait_for(url: str, server: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline_s = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline_s:
        assert server.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    raise AssertionError(f"the server does not come up: {log.read_text()}")


def test_a_replay_on_vllms_server_is_valid_and_has_the_scripted_joules(
    nvml: ScriptedNvml, tmp_path: Path
) -> None:
    nvml.add_gpu(0, POWER_W)
    nvml.say(-1.0, 0, process=77)
    model = write_model(tmp_path / "tiny")
    write_trace(TRACE, tmp_path / "toy.parquet")
    arguments = [str(tmp_path / "toy.parquet"), "--backend", "openai", "--model", str(model), "--gpu", "0"]
    with serving(on_cpu(nvml), model) as url:
        command = ["-m", "replay", *arguments, "--url", url, "--out", str(tmp_path / "run"), "--json"]
        ended = nvml.run(*command, timeout_s=TIMEOUT_S)
    assert ended.returncode == 0, ended.stderr
    run, sends = read_run(tmp_path / "run"), read_attachment(tmp_path / "run", "sends")
    assert sends is not None
    meta, outcomes = run.meta, run.outcomes
    assert meta.invalid_reasons == ()
    assert (meta.kind, meta.energy_source, meta.gpu) == ("measured", "nvml", "NVIDIA Invented 0")
    assert (outcomes.status == SERVED).all()
    assert outcomes.output_tokens.tolist() == TRACE.output_tokens.tolist()
    assert outcomes.arrival_s.tolist() == TRACE.arrival_s.tolist()
    assert (sends["sent_s"] >= outcomes.released_s).all()
    assert (outcomes.first_token_s > sends["sent_s"]).all()
    assert (outcomes.finished_s >= outcomes.first_token_s).all()
    total_j = json.loads(ended.stdout)["total_energy_j"]
    assert total_j == pytest.approx(POWER_W * meta.makespan_s, abs=POWER_W * 0.1)
