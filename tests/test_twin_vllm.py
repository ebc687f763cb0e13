"""A real vLLM on the twin of the default table, through the command: tokens, steps, joules, and the note."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_trace import toy_trace

from sim.step_cost import gap_energy, new_state, step_cost
from sim.table_files import DEFAULT, load_table
from traces.parquet import write_trace
from traces.record import SERVED, Run
from traces.record_files import read_attachment, read_run
from traces.trace import PrefixBlocks

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed"),
]

TRACE = toy_trace(
    [0.0, 0.0, 0.0, 0.5, 1.0, 1.0, 2.5, 4.0, 5.0],
    [9000, 3000, 1, 17, 500, 501, 64, 2000, 100],
    [40, 200, 1, 2, 300, 30, 16, 100, 120],
)
CROWDED = {"num_gpu_blocks_override": 60, "max_num_batched_tokens": 256, "max_model_len": 900}
"""KV for 944 tokens: requests of up to 700 preempt each other."""


@dataclass(frozen=True)
class Done:
    """What a replay on the twin has left behind."""

    run: Run
    steps: dict[str, Any]
    summary: dict[str, Any]


def replayed(trace: Path, out: Path, *arguments: str) -> Done:
    environment = {**os.environ, "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}
    environment.pop("VLLM_TARGET_DEVICE", None)
    command = [sys.executable, "-m", "replay", str(trace), "--backend", "vllm", "--device", "twin", "--json"]
    done = subprocess.run(
        [*command, "--out", str(out), *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Nothing was measured: the GPU was a twin" in done.stderr
    steps = read_attachment(out, "steps")
    assert steps is not None
    return Done(read_run(out), steps, json.loads(done.stdout))


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Done:
    folder = tmp_path_factory.mktemp("twin")
    write_trace(TRACE, folder / "toy.parquet")
    return replayed(folder / "toy.parquet", folder / "run")


def test_the_record_says_twin_and_is_valid(done: Done) -> None:
    meta = done.run.meta
    assert meta.invalid_reasons == ()
    assert (meta.kind, meta.energy_source, meta.table) == ("twin", "twin", DEFAULT)
    assert (meta.gpu, meta.out_of_range_fraction) == (load_table(DEFAULT).gpu, 0.0)
    assert done.summary["energy_source"] == "twin"


def test_the_engine_has_the_tables_options(done: Done) -> None:
    engine, options = load_table(DEFAULT).engine, done.run.meta.engine_options
    for name in ("max_num_batched_tokens", "max_num_seqs", "max_model_len", "num_gpu_blocks", "block_size"):
        assert options[name] == engine[name], name
    for name in (
        "async_scheduling",
        "enable_prefix_caching",
        "enable_chunked_prefill",
        "dtype",
        "vocabulary",
    ):
        assert options[name] == engine[name], name


def test_every_request_gets_its_tokens_and_takes_at_least_the_tables_time(done: Done) -> None:
    outcomes = done.run.outcomes
    assert (outcomes.status == SERVED).all()
    assert outcomes.output_tokens.tolist() == TRACE.output_tokens.tolist()
    least_step_s = float(load_table(DEFAULT).coefficients.linear_s[0])
    took_s = outcomes.finished_s - outcomes.first_token_s
    late_s = 0.005  # a first token is sometimes delivered later than the next
    assert (took_s > least_step_s * (TRACE.output_tokens - 1) - late_s).all()
    assert done.steps["prefill_tokens"].sum() == TRACE.prompt_tokens.sum()
    assert done.steps["decode_seqs"].sum() == (TRACE.output_tokens - 1).sum()


def by_the_table_j(steps: dict[str, Any], makespan_s: float) -> float:
    """Return what an engine's steps, and the rest of the makespan, cost by the default table."""
    costs, state = load_table(DEFAULT).coefficients, new_state()
    ran_s = steps_j = 0.0
    columns = ("chunks", "prefill_tokens", "prefill_pairs", "decode_seqs", "kv_tokens", "longest_tokens")
    for load in zip(*(steps[name].tolist() for name in columns), strict=True):
        seconds, prefill_j, decode_j, _, _ = step_cost(costs, state, *load)
        ran_s, steps_j = ran_s + seconds, steps_j + prefill_j + decode_j
    return steps_j + gap_energy(costs, new_state(), makespan_s - ran_s)


def test_the_joules_are_what_the_table_says_of_the_steps_that_ran(done: Done) -> None:
    meta = done.run.meta
    assert meta.idle_w == pytest.approx(load_table(DEFAULT).coefficients.idle_w, rel=0.01)
    expected_j = by_the_table_j(done.steps, meta.makespan_s)
    assert done.summary["total_energy_j"] == pytest.approx(expected_j, rel=0.02)


def test_several_twins_are_a_fleet(tmp_path: Path) -> None:
    write_trace(TRACE, tmp_path / "toy.parquet")
    arguments = ("--replicas", "2", "--router", "least-loaded")
    fleet = replayed(tmp_path / "toy.parquet", tmp_path / "run", *arguments)
    meta, outcomes = fleet.run.meta, fleet.run.outcomes
    assert meta.invalid_reasons == ()
    assert (meta.kind, meta.energy_source, meta.table, meta.gpus) == ("twin", "twin", DEFAULT, 2)
    assert (outcomes.status == SERVED).all()
    assert outcomes.output_tokens.tolist() == TRACE.output_tokens.tolist()
    assert meta.idle_w == pytest.approx(2 * load_table(DEFAULT).coefficients.idle_w, rel=0.01)
    for replica, use in enumerate(meta.replicas):
        own = fleet.steps["replica"] == replica
        steps = {name: column[own] for name, column in fleet.steps.items()}
        assert use.total_j == pytest.approx(by_the_table_j(steps, meta.makespan_s), rel=0.02)
    assert [use.requests > 0 for use in meta.replicas] == [True, True]
    assert fleet.summary["total_energy_j"] == pytest.approx(sum(use.total_j for use in meta.replicas))


def test_preempted_requests_get_their_tokens_too(tmp_path: Path) -> None:
    trace = toy_trace([0.0] * 4 + [5.5], [300, 280, 260, 200, 10], [400, 380, 360, 300, 5])
    write_trace(trace, tmp_path / "toy.parquet")
    options = [f"--engine={name}={value}" for name, value in CROWDED.items()]
    crowded = replayed(tmp_path / "toy.parquet", tmp_path / "run", *options)
    assert crowded.run.outcomes.output_tokens.tolist() == trace.output_tokens.tolist()
    assert (crowded.run.outcomes.status == SERVED).all()
    assert crowded.steps["prefill_tokens"].sum() > trace.prompt_tokens.sum(), "nobody was preempted"
    assert np.max(crowded.steps["running"]) > 1


def test_a_prompt_computed_before_is_found_in_the_cache(tmp_path: Path) -> None:
    blocks = PrefixBlocks(np.array([*range(20), *range(20)]), np.array([0, 20, 40]), block_tokens=16)
    trace = replace(toy_trace([0.0, 5.5], 320, 4), prefix=blocks)
    write_trace(trace, tmp_path / "toy.parquet")
    cached = replayed(tmp_path / "toy.parquet", tmp_path / "run")
    assert cached.steps["prefill_tokens"].sum() == 320 + 16
