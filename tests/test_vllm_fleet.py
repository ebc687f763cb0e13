"""Two real vLLMs on the CPU behind one router, a scripted GPU each: what the record of a live fleet holds."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_vllm_live import Done, between, replay_on_cpu
from tiny_vllm import NEEDS_VLLM
from toy_trace import toy_trace

from traces.record import SERVED

pytestmark = [pytest.mark.vllm, NEEDS_VLLM]

POWERS_W = (300.0, 200.0)
TOTAL_W = sum(POWERS_W)
TICK_J = TOTAL_W * 0.1
FLEET = ["--replicas", str(len(POWERS_W)), "--router", "least-loaded"]
TRACE = toy_trace(
    [0.0, 0.0, 1.0, 1.0, 1.0, 2.5, 3.5, 3.55, 6.0],
    [10, 300, 33, 64, 7, 20, 100, 50, 40],
    [5, 3, 4, 20, 9, 6, 300, 8, 5],
)
"""Two at once, three at once, one that comes while a long one is served, and some alone."""
EACH_REPLICA = pytest.mark.parametrize("replica", range(len(POWERS_W)))


@pytest.fixture(scope="module")
def done(nvml_library: Path, tmp_path_factory: pytest.TempPathFactory) -> Done:
    return replay_on_cpu(nvml_library, tmp_path_factory.mktemp("fleet"), TRACE, POWERS_W, {}, *FLEET)


def steps_of(done: Done, replica: int) -> dict[str, Any]:
    """Return the columns of one replica's steps."""
    own = done.steps["replica"] == replica
    return {name: column[own] for name, column in done.steps.items()}


def test_the_record_is_valid_and_names_the_fleet(done: Done) -> None:
    meta = done.run.meta
    assert meta.invalid_reasons == ()
    assert meta.energy_valid
    assert (meta.kind, meta.energy_source, meta.gpus) == ("measured", "nvml", 2)
    options = meta.engine_options
    assert (options["replicas"], options["router"]) == (2, "least-loaded")
    assert (options["model"], options["block_size"], options["tensor_parallel_size"]) == ("tiny", 32, 1)


def test_every_request_gets_its_tokens(done: Done) -> None:
    outcomes = done.run.outcomes
    assert (outcomes.status == SERVED).all()
    assert outcomes.prompt_tokens.tolist() == TRACE.prompt_tokens.tolist()
    assert outcomes.output_tokens.tolist() == TRACE.output_tokens.tolist()
    assert (done.summary["served"], done.summary["failed"]) == (len(TRACE), 0)


def test_requests_at_once_go_to_different_replicas(done: Done) -> None:
    replica = done.sends["replica"]
    assert set(replica[TRACE.arrival_s == 0.0].tolist()) == {0, 1}
    assert sorted(replica[TRACE.arrival_s == 1.0].tolist()) == [0, 0, 1]


def test_each_request_goes_where_the_fewest_are(done: Done) -> None:
    sent_s, finished_s, replica = done.sends["sent_s"], done.run.outcomes.finished_s, done.sends["replica"]
    assert (np.diff(sent_s) > 0).all()
    for row, to in enumerate(replica):
        there = replica[:row][finished_s[:row] > sent_s[row]]
        assert to == np.bincount(there, minlength=len(POWERS_W)).argmin()


@EACH_REPLICA
def test_the_steps_of_a_replica_hold_the_tokens_sent_to_it(done: Done, replica: int) -> None:
    steps, sent = steps_of(done, replica), done.sends["replica"] == replica
    prompts, outputs = (tokens[sent] for tokens in (TRACE.prompt_tokens, TRACE.output_tokens))
    assert len(prompts) > 0
    assert steps["prefill_tokens"].sum() == prompts.sum()
    assert steps["decode_seqs"].sum() == (outputs - 1).sum()
    contexts = [sum(range(p + 1, p + o)) for p, o in zip(prompts.tolist(), outputs.tolist(), strict=True)]
    assert steps["kv_tokens"].sum() == sum(contexts)


def test_the_times_of_a_request_are_those_of_its_replicas_steps(done: Done) -> None:
    outcomes, sent_s = done.run.outcomes, done.sends["sent_s"]
    for row, output in enumerate(TRACE.output_tokens.tolist()):
        steps = steps_of(done, done.sends["replica"][row])
        assert between(steps, sent_s[row], outcomes.first_token_s[row]) >= 1
        assert between(steps, sent_s[row], outcomes.finished_s[row]) >= output
    assert done.steps["done_s"].max() <= done.run.meta.makespan_s == outcomes.finished_s.max()


def test_the_joules_are_those_of_both_gpus(done: Done) -> None:
    meta, power = done.run.meta, done.run.power
    assert meta.idle_w == pytest.approx(TOTAL_W, rel=0.01)
    assert done.summary["total_energy_j"] == pytest.approx(TOTAL_W * meta.makespan_s, abs=TICK_J)
    assert power.energy_j == pytest.approx(TOTAL_W * power.time_s, abs=TICK_J)


def test_each_replica_took_the_joules_of_its_own_gpu(done: Done) -> None:
    uses, makespan_s = done.run.meta.replicas, done.run.meta.makespan_s
    assert [use.requests for use in uses] == np.bincount(done.sends["replica"]).tolist()
    for use, power_w in zip(uses, POWERS_W, strict=True):
        assert use.total_j == pytest.approx(power_w * makespan_s, abs=power_w * 0.1)
        assert use.idle_w == pytest.approx(power_w, rel=0.01)


def test_the_steps_of_a_replica_take_the_joules_of_its_own_gpu(done: Done) -> None:
    meta, power, energy = done.run.meta, done.run.power, done.run.meta.energy
    assert energy is not None
    each_steps = [steps_of(done, replica) for replica in range(len(POWERS_W))]
    busy_s = [(steps["done_s"] - steps["scheduled_s"]).sum() for steps in each_steps]
    assert 0 < busy_s[1] < busy_s[0] < meta.makespan_s
    # As much energy may lie in another place as ticks were seen late.
    moved_j = np.abs(np.diff(power.energy_j) - TOTAL_W * np.diff(power.time_s)).sum()
    worked_j = energy.prefill_j + energy.decode_j
    assert worked_j == pytest.approx(np.dot(POWERS_W, busy_s), rel=0.02, abs=moved_j)
