"""Several simulated replicas: who serves what, and that none of them acts on what it cannot know yet."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from math import inf
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_policies import AtMost, Ticking
from toy_table import toy_table
from toy_trace import toy_trace, traces

from sim import foreknown
from sim.batch_window import BatchWindow
from sim.engine import SimulatedEngine
from sim.guards import check
from sim.immediate import Immediate
from sim.options import EngineOptions, FleetOptions
from sim.policy import Decision, Held, Policy
from sim.prefix_cache import own_key
from sim.replica_group import ReplicaGroup, sum_of
from sim.request_table import RequestTable
from sim.router_registry import ROUTERS
from sim.simulate import simulate
from traces.record import Run
from traces.record_files import read_run, write_run
from traces.trace import PrefixBlocks, Trace

OPTIONS = EngineOptions(max_num_batched_tokens=256, max_num_seqs=8, num_gpu_blocks=64, max_model_len=1000)
NO_WAY = toy_table(submit_s=0.0, deliver_s=0.0)


@dataclass(frozen=True, slots=True)
class Asked:
    """A policy that only `decide` tells of, so that it runs on the clock."""

    policy: Policy

    def decide(self, now_s: float, held: Held, running: int) -> Decision:
        return self.policy.decide(now_s, held, running)


POLICIES: dict[str, Callable[[], Policy]] = {
    "immediate": Immediate,
    "batch-window": lambda: BatchWindow(window_s=2.0, max_batch=5),
    "at most 2": AtMost,
    "ticking": Ticking,
}
every_policy = pytest.mark.parametrize("name", POLICIES)
every_router = pytest.mark.parametrize("router", ROUTERS)
few = settings(deadline=None, max_examples=15)


def replayed(trace: Trace, policy: Policy, replicas: int, router: str = "round-robin") -> Run:
    return simulate(trace, policy, OPTIONS, toy_table(), fleet=FleetOptions(replicas, router))


def replica_of(run: Run) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
    assert run.outcomes.replica is not None
    return run.outcomes.replica


def assert_same_results(one: Run, other: Run) -> None:
    for name in ("released_s", "first_token_s", "finished_s", "energy_j", "replica"):
        np.testing.assert_array_equal(getattr(one.outcomes, name), getattr(other.outcomes, name), name)
    np.testing.assert_array_equal(one.power.energy_j, other.power.energy_j)
    assert one.meta.energy == other.meta.energy


@pytest.mark.parametrize("count", [1, 2, 4])
def test_idle_replicas_cost_exactly_as_many_times_what_one_costs(count: int) -> None:
    def idle_j(replicas: int) -> float:
        group = ReplicaGroup(range(replicas), replicas, OPTIONS, toy_table(), 0.1)
        total = sum_of(group.close(12.34))
        assert total.power.energy_j[-1] == total.split.total_j == total.split.idle_j
        return total.split.idle_j

    assert idle_j(1) == pytest.approx(12.34 * 120.0)
    assert idle_j(count) == count * idle_j(1)


def test_replicas_that_get_nothing_idle_to_the_fleets_last_completion() -> None:
    trace = toy_trace([0.0], 100, 50)
    one, four = (replayed(trace, Immediate(), replicas) for replicas in (1, 4))
    assert one.meta.energy is not None
    assert four.meta.energy is not None
    assert four.meta.makespan_s == one.meta.makespan_s
    assert four.meta.energy.prefill_j == one.meta.energy.prefill_j
    assert four.meta.energy.decode_j == one.meta.energy.decode_j
    more_j = four.meta.energy.idle_j - one.meta.energy.idle_j
    assert more_j == pytest.approx(3 * 120.0 * one.meta.makespan_s, rel=1e-12)


@every_policy
@every_router
@few
@given(trace=traces(), replicas=st.integers(2, 4))
def test_every_guard_holds_of_a_fleet(name: str, router: str, trace: Trace, replicas: int) -> None:
    run = replayed(trace, POLICIES[name](), replicas, router)
    assert check(run) == ()
    assert run.meta.requests == np.count_nonzero(run.outcomes.finished_s > 0) == len(trace)


@every_policy
@every_router
@few
@given(trace=traces(), replicas=st.integers(2, 4))
def test_each_replica_does_what_it_does_alone(name: str, router: str, trace: Trace, replicas: int) -> None:
    """An engine that had run past a release would finish otherwise than one that was told beforehand."""
    run = replayed(trace, POLICIES[name](), replicas, router)
    decode_j = 0.0
    for replica in range(replicas):
        own = np.flatnonzero(replica_of(run) == replica)
        order = own[np.argsort(run.outcomes.released_s[own], kind="stable")]
        alone = SimulatedEngine(trace, OPTIONS, toy_table())
        if name == "at most 2":  # a finish releases the newest; then come those released as they arrive
            released_s, came_s = run.outcomes.released_s[own], trace.arrival_s[own]
            is_new = came_s == released_s
            order = own[np.lexsort((np.where(is_new, own, -own), is_new, released_s))]
        alone.submit(order, run.outcomes.released_s[order])
        alone.advance_past_finishes(inf)
        np.testing.assert_array_equal(alone.finished_s[own], run.outcomes.finished_s[own])
        np.testing.assert_array_equal(alone.first_token_s[own], run.outcomes.first_token_s[own])
        np.testing.assert_allclose(alone.energy_j[own], run.outcomes.energy_j[own], rtol=1e-9)
        decode_j += alone.split.decode_j
    assert run.meta.energy is not None
    assert run.meta.energy.decode_j == pytest.approx(decode_j, rel=1e-12)


@few
@given(trace=traces(max_requests=40, longest_gap_s=1), replicas=st.integers(2, 4))
def test_the_least_loaded_replica_is_the_one_with_the_fewest_unfinished(trace: Trace, replicas: int) -> None:
    run = replayed(trace, Immediate(), replicas, "least-loaded")
    o, replica = run.outcomes, replica_of(run)
    for row in range(len(trace)):
        there = o.finished_s[:row] > o.released_s[row]
        counts = np.bincount(replica[:row][there], minlength=replicas)
        assert replica[row] == int(counts.argmin())


@pytest.mark.parametrize("name", ["immediate", "batch-window"])
@few
@given(trace=traces(), replicas=st.integers(2, 4))
def test_a_fleet_on_the_clock_does_what_it_does_with_releases_known(
    name: str, trace: Trace, replicas: int
) -> None:
    known, asked = (
        replayed(trace, policy, replicas) for policy in (POLICIES[name](), Asked(POLICIES[name]()))
    )
    np.testing.assert_array_equal(known.outcomes.finished_s, asked.outcomes.finished_s)
    np.testing.assert_array_equal(known.outcomes.first_token_s, asked.outcomes.first_token_s)
    np.testing.assert_array_equal(replica_of(known), replica_of(asked))
    np.testing.assert_allclose(known.outcomes.energy_j, asked.outcomes.energy_j, rtol=1e-9)
    assert known.meta.energy == asked.meta.energy


@settings(deadline=None, max_examples=15)
@given(
    trace=traces(max_requests=40, longest_gap_s=1),
    replicas=st.integers(1, 3),
    requests=st.integers(1, 9),
    by_priority=st.booleans(),
    data=st.data(),
)
def test_how_a_trace_is_cut_into_stretches_changes_no_bit(
    trace: Trace, replicas: int, requests: int, by_priority: bool, data: st.DataObject
) -> None:
    """Also when blocks run out, so that requests return, and find what they and others left in the cache."""
    hashes = data.draw(st.lists(st.integers(0, 1), min_size=len(trace), max_size=len(trace)))
    blocks = PrefixBlocks(np.repeat(np.array(hashes, np.int64), 19), 19 * np.arange(len(trace) + 1), 16)
    trace = replace(
        trace,
        prompt_tokens=np.maximum(trace.prompt_tokens, 32),
        is_offline=np.arange(len(trace)) % 3 == 0,
        prefix=data.draw(st.sampled_from([None, blocks])),
    )
    options = replace(OPTIONS, scheduling_policy="priority" if by_priority else "fcfs", num_gpu_blocks=45)
    runs = []
    with pytest.MonkeyPatch.context() as patch:
        for stretch in (len(trace), requests):
            patch.setattr(foreknown, "STRETCH_REQUESTS", stretch)
            runs.append(simulate(trace, Immediate(), options, toy_table(), fleet=FleetOptions(replicas)))
    assert_same_results(*runs)
    assert runs[0].meta.notes == runs[1].meta.notes


def test_a_row_that_is_used_again_has_other_blocks_of_its_own() -> None:
    table = RequestTable()
    engine = SimulatedEngine(table, OPTIONS, toy_table())
    key_of_own = getattr(own_key, "py_func", own_key)
    rows_and_keys = []
    for at_s in (0.0, 100.0):
        rows = table.take(toy_trace([0.0]))
        engine.submit(rows, np.array([at_s]))
        engine.advance_past_finishes(inf)
        rows_and_keys.append((rows[0], key_of_own(engine._core.scheduler, int(rows[0]), 0)))
        table.give_back(rows)
    (first, key), (again, other_key) = rows_and_keys
    assert first == again
    assert key != other_key


@every_router
def test_engines_that_answer_at_once_wait_for_each_other_too(router: str) -> None:
    trace = toy_trace([0.0] * 12, 16, [3, 4, 5] * 4)
    policy, fleet = AtMost(4), FleetOptions(2, router)
    run = simulate(trace, policy, OPTIONS, NO_WAY, fleet=fleet)
    assert check(run) == ()
    released = np.sort(run.outcomes.released_s)
    assert np.isin(released[4:], run.outcomes.finished_s).all()


def test_the_record_tells_of_the_fleet(tmp_path: Path) -> None:
    trace = toy_trace([0.0, 1.0, 2.0])
    run = replayed(trace, Immediate(), 2)
    write_run(run, tmp_path / "run")
    back = read_run(tmp_path / "run")
    assert (back.meta.gpus, back.meta.idle_w, back.meta.power_limit_w) == (2, 240.0, 700.0)
    assert back.meta.engine_options == asdict(OPTIONS) | {"replicas": 2, "router": "round-robin"}
    assert replica_of(back).tolist() == [0, 1, 0]


def test_one_replica_leaves_no_trace_in_the_record() -> None:
    run = replayed(toy_trace([0.0, 1.0]), Immediate(), 1)
    assert run.meta.engine_options == asdict(OPTIONS)
    assert run.outcomes.replica is None


@pytest.mark.parametrize(
    ("replicas", "router", "message"),
    [(0, "round-robin", "replicas must be >= 1, got 0"), (2, "best", "no router 'best'; there are round-r")],
)
def test_impossible_fleets_are_refused(replicas: int, router: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FleetOptions(replicas, router)
