"""A real vLLM on the CPU that has all requests before its first step: its steps; then its GPU is lost."""

import json
from pathlib import Path

import numpy as np
import pytest
from scripted_nvml import ScriptedNvml
from serving import serve
from tiny_vllm import NEEDS_VLLM, OPTIONS, TIMEOUT_S, on_cpu, write_model
from toy_trace import toy_trace

from replay.validate_compare import options_in_force
from sim.engine_state import STEP_COLUMNS
from sim.options import EngineOptions
from traces.parquet import write_trace
from traces.record import SERVED
from traces.record_files import read_attachment, read_run

pytestmark = [pytest.mark.vllm, NEEDS_VLLM]

RANDOM = np.random.default_rng(5)
CROWD = toy_trace([0.0] * 40, RANDOM.integers(1, 400, 40).tolist(), RANDOM.integers(1, 120, 40).tolist())
LIMITS = {
    "max_num_batched_tokens": 160,
    "max_num_seqs": 6,
    "max_model_len": 640,
    "num_gpu_blocks_override": 34,
}
"""KV for 1,056 tokens, so that requests preempt each other."""


@pytest.fixture(scope="module")
def records(nvml_library: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the records `crowd` and `lost`."""
    folder = tmp_path_factory.mktemp("replays")
    nvml = on_cpu(ScriptedNvml(nvml_library, folder / "nvml.script"))
    nvml.add_gpu(0, 300.0)
    write_trace(CROWD, folder / "crowd.parquet")
    write_trace(toy_trace([0.0] * 4, 64, 100), folder / "lost.parquet")
    code = str(Path(__file__).with_name("vllm_replays.py"))
    model, options = str(write_model(folder / "tiny")), json.dumps({**OPTIONS, **LIMITS})
    ended = nvml.run(code, model, options, str(folder), "crowd", "lost", timeout_s=TIMEOUT_S)
    assert ended.returncode == 0, ended.stderr
    return folder


def test_every_live_step_is_the_simulated_one(records: Path) -> None:
    run, live = read_run(records / "crowd"), read_attachment(records / "crowd", "steps")
    assert live is not None
    assert (run.outcomes.status == SERVED).all()
    options: EngineOptions = options_in_force(run)
    assert (options.num_gpu_blocks, options.async_scheduling) == (34, False)
    simulated = dict(zip(STEP_COLUMNS, serve(CROWD, options).log.steps.T, strict=True))
    holds = simulated["prefill_tokens"] + simulated["decode_seqs"] > 0
    assert len(live["done_s"]) == holds.sum() > 300
    for name in STEP_COLUMNS[STEP_COLUMNS.index("chunks") :]:
        np.testing.assert_array_equal(live[name], simulated[name][holds], err_msg=name)
    assert live["prefill_tokens"].sum() > CROWD.prompt_tokens.sum(), "nobody was preempted"


def test_a_gpu_that_is_lost_leaves_latencies_and_what_was_metered(records: Path) -> None:
    run, samples = read_run(records / "lost"), read_attachment(records / "lost", "meter")
    assert samples is not None
    assert (run.outcomes.status == SERVED).all()
    assert run.outcomes.output_tokens.tolist() == [100] * 4
    assert not run.meta.energy_valid
    assert any("failed: GPU is lost" in reason for reason in run.meta.invalid_reasons), (
        run.meta.invalid_reasons
    )
    assert (samples["time_s"] < 0).any()
