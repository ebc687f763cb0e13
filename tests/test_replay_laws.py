"""What must hold of every replay, whatever the policy, and what energy must be where it can be worked out."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_policies import GRID, NEEDED, AtMost, Drawing, Ticking
from toy_table import toy_table
from toy_trace import toy_trace, traces

from sim import metrics
from sim.batch_window import BatchWindow
from sim.carbon_aware import CarbonAware
from sim.concurrency import Concurrency
from sim.deadline import Deadline
from sim.guards import check
from sim.immediate import Immediate
from sim.offline import Offline
from sim.offline_sorted import OfflineSorted
from sim.options import EngineOptions
from sim.pace import Pace
from sim.policy import Decision, Held, Policy
from sim.registry import SHIPPED, make_policy
from sim.shortest_first import ShortestFirst
from sim.simulate import simulate
from sim.size_bins import SizeBins
from sim.static_batch import StaticBatch
from sim.summary import summarize
from sim.valley_fill import ValleyFill
from traces.record import SERVED, Run
from traces.trace import Trace

POLICIES: dict[str, Callable[[], Policy]] = {
    "immediate": Immediate,
    "offline": Offline,
    "batch-window": BatchWindow,
    "batch-window of 3": lambda: BatchWindow(window_s=2.0, max_batch=3),
    "concurrency of 2": lambda: Concurrency(most=2),
    "deadline": lambda: Deadline(ttft_s=3.0),
    "offline-sorted": OfflineSorted,
    "pace": lambda: Pace(interval_s=0.75, jitter_s=0.5),
    "shortest-first of 2": lambda: ShortestFirst(most=2),
    "size-bins": lambda: SizeBins(bin_size=2, max_wait_s=3.0),
    "static-batch": lambda: StaticBatch(batch_size=3, max_wait_s=2.0),
    "carbon-aware": lambda: CarbonAware(GRID),
    "valley-fill": ValleyFill,
    "deadline+size-bins": lambda: make_policy("deadline+size-bins", {"ttft_s": "3"}),
    "at most 2": AtMost,
    "ticking": Ticking,
    "drawing": Drawing,
}
RETIMED = ("offline", "offline-sorted")
OPTIONS = EngineOptions(max_num_batched_tokens=256, max_num_seqs=8, num_gpu_blocks=64, max_model_len=1000)
every_policy = pytest.mark.parametrize("name", POLICIES)


def replayed(trace: Trace, name: str) -> Run:
    return simulate(trace, POLICIES[name](), OPTIONS, toy_table())


def test_every_shipped_policy_is_under_these_laws() -> None:
    tested = {type(make()) for make in POLICIES.values()}
    assert {type(make_policy(name, NEEDED.get(name, {}))) for name in SHIPPED} <= tested


@every_policy
@settings(deadline=None, max_examples=30)
@given(trace=traces())
def test_every_guard_holds(name: str, trace: Trace) -> None:
    run = replayed(trace, name)
    assert check(run) == ()
    assert run.meta.energy_valid


@every_policy
@settings(deadline=None, max_examples=30)
@given(trace=traces())
def test_every_request_is_served_once_with_its_tokens(name: str, trace: Trace) -> None:
    outcomes = replayed(trace, name).outcomes
    assert (outcomes.status == SERVED).all()
    assert outcomes.request_id.tolist() == list(range(len(trace)))
    assert (outcomes.output_tokens == trace.output_tokens).all()
    assert (outcomes.prompt_tokens == trace.prompt_tokens).all()


@every_policy
@settings(deadline=None, max_examples=30)
@given(trace=traces())
def test_causes_precede_effects(name: str, trace: Trace) -> None:
    run = replayed(trace, name)
    o, host = run.outcomes, toy_table().host
    assert (o.arrival_s == (0 if name in RETIMED else trace.arrival_s)).all()
    assert (o.released_s >= o.arrival_s).all()
    assert (o.first_token_s > o.released_s + host.submit_s + host.output_s + host.deliver_s).all()
    assert ((o.finished_s > o.first_token_s) == (o.output_tokens > 1)).all()
    assert run.meta.makespan_s == o.finished_s.max()


@every_policy
@settings(deadline=None, max_examples=20)
@given(trace=traces())
def test_the_same_replay_twice_is_the_same_to_the_last_bit(name: str, trace: Trace) -> None:
    once, again = replayed(trace, name), replayed(trace, name)
    assert replace(once.meta, started_at="", run_id="") == replace(again.meta, started_at="", run_id="")
    for column in ("released_s", "first_token_s", "finished_s", "energy_j", "status"):
        assert (getattr(once.outcomes, column) == getattr(again.outcomes, column)).all()
    assert (once.power.time_s == again.power.time_s).all()
    assert (once.power.energy_j == again.power.energy_j).all()


@every_policy
@settings(deadline=None, max_examples=20)
@given(trace=traces(), earlier=st.integers(1, 19))
def test_the_future_does_not_change_the_past(name: str, trace: Trace, earlier: int) -> None:
    """What was released before a request came does not depend on it."""
    if name in RETIMED or earlier >= len(trace):
        return
    whole = replayed(trace, name).outcomes
    part = replayed(trace.take(np.arange(earlier)), name).outcomes
    cut_s = trace.arrival_s[earlier]
    for column in ("released_s", "first_token_s", "finished_s"):
        before = getattr(whole, column)[:earlier] < cut_s
        assert (getattr(whole, column)[:earlier][before] == getattr(part, column)[before]).all()


class Asked:
    """A policy that can only be asked, whatever else the one inside can do."""

    def __init__(self, inside: Policy) -> None:
        self._inside = inside
        self.retimes = getattr(inside, "retimes", False)

    def decide(self, now_s: float, held: Held, running: int) -> Decision:
        return self._inside.decide(now_s, held, running)


@pytest.mark.parametrize("name", ["immediate", "offline", "batch-window", "batch-window of 3"])
@settings(deadline=None, max_examples=50)
@given(trace=traces())
def test_a_replay_told_beforehand_is_the_replay_asked_step_by_step(name: str, trace: Trace) -> None:
    told = replayed(trace, name)
    asked = simulate(trace, Asked(POLICIES[name]()), OPTIONS, toy_table())
    for column in ("released_s", "first_token_s", "finished_s"):
        assert (getattr(told.outcomes, column) == getattr(asked.outcomes, column)).all()
    np.testing.assert_allclose(told.outcomes.energy_j, asked.outcomes.energy_j, rtol=1e-12)
    assert told.meta.energy is not None
    assert asked.meta.energy is not None
    assert told.meta.energy.total_j == pytest.approx(asked.meta.energy.total_j, rel=1e-12)


def test_one_request_costs_its_steps_and_the_idle_power_around_them() -> None:
    """A prompt of 100 tokens and 5 output tokens, at 3 s, by the toy table's numbers."""
    run = simulate(toy_trace([3.0], 100, 5), Immediate(), OPTIONS, toy_table())
    between = (100 - 64) / (256 - 64)
    prefill_s = 0.005 + between * 0.0015 + 1e-4 + 5050 * 2e-9
    prefill_j = 2.5 + between * 1.5 + 0.03 + 5050 * 1e-6
    decode_s = sum(0.005 + 4e-6 + (2.5e-8 + 0.3 * 2.5e-8) * (100 + step) for step in (1, 2, 3, 4))
    decode_j = sum(2.0 + 0.001 + 1.2e-5 * (100 + step) for step in (1, 2, 3, 4))
    split = run.meta.energy
    assert split is not None
    assert split.prefill_j == pytest.approx(prefill_j)
    assert split.decode_j == pytest.approx(decode_j)
    assert split.idle_j == pytest.approx(120.0 * (run.meta.makespan_s - prefill_s - decode_s))
    assert run.outcomes.energy_j[0] == pytest.approx(prefill_j + decode_j)
    submit_s, lead_s, output_s, process_s, deliver_s = 0.001, 0.0015 + 2e-6, 0.0002, 0.0003 + 5e-6, 0.0008
    ttft_s = submit_s + lead_s + prefill_s + output_s + process_s + deliver_s
    assert metrics.ttft_s(run.outcomes)[0] == pytest.approx(ttft_s)


@given(wait_s=st.floats(0, 1e4))
@settings(deadline=None, max_examples=30)
def test_waiting_for_the_first_request_costs_idle_power(wait_s: float) -> None:
    now = simulate(toy_trace([0.0]), Immediate(), OPTIONS, toy_table())
    later = simulate(toy_trace([wait_s]), Immediate(), OPTIONS, toy_table())
    assert now.meta.energy is not None
    assert later.meta.energy is not None
    waited_j = toy_table().coefficients.idle_w * wait_s
    assert later.meta.energy.total_j == pytest.approx(now.meta.energy.total_j + waited_j)
    assert later.meta.energy.prefill_j == now.meta.energy.prefill_j


def test_holding_a_lone_request_adds_the_window_to_its_latency_and_idle_power_to_its_energy() -> None:
    at_once = simulate(toy_trace([0.0]), Immediate(), OPTIONS, toy_table())
    held = simulate(toy_trace([0.0]), BatchWindow(window_s=4.0), OPTIONS, toy_table())
    assert metrics.ttft_s(held.outcomes)[0] == pytest.approx(metrics.ttft_s(at_once.outcomes)[0] + 4.0)
    assert metrics.held_s(held.outcomes)[0] == 4.0
    assert held.meta.energy is not None
    assert at_once.meta.energy is not None
    assert held.meta.energy.total_j == pytest.approx(at_once.meta.energy.total_j + 4.0 * 120.0)


def test_company_saves_decode_energy() -> None:
    alone = simulate(toy_trace([0.0, 30.0, 60.0], 16, 200), Immediate(), OPTIONS, toy_table())
    together = simulate(toy_trace([0.0, 30.0, 60.0], 16, 200), BatchWindow(60.0), OPTIONS, toy_table())
    assert alone.meta.energy is not None
    assert together.meta.energy is not None
    assert together.meta.energy.decode_j < 0.5 * alone.meta.energy.decode_j


def test_offline_counts_from_time_0_and_says_so() -> None:
    run = simulate(toy_trace([5.0, 100.0, 200.0]), Offline(), OPTIONS, toy_table())
    assert run.outcomes.arrival_s.tolist() == [0.0] * 3
    assert run.outcomes.released_s.tolist() == [0.0] * 3
    assert run.meta.makespan_s < 5.0
    assert any("every arrival was set to 0 s" in note for note in run.meta.notes)
    assert "every arrival" not in "".join(replayed(toy_trace([5.0]), "immediate").meta.notes)


def test_the_gpus_of_an_engine_are_counted_once() -> None:
    """A table of an engine over 2 GPUs holds the energy of both: nothing multiplies it again."""
    one = simulate(toy_trace([0.0, 1.0]), Immediate(), OPTIONS, toy_table())
    two = simulate(toy_trace([0.0, 1.0]), Immediate(), OPTIONS, toy_table(gpus=2))
    assert two.meta.gpus == 2
    assert two.meta.energy == one.meta.energy
    assert summarize(two).mean_power_w == summarize(one).mean_power_w


def test_the_run_says_how_it_was_made() -> None:
    trace = replace(toy_trace([0.0]), notes=("The reader left out 3 rows.",))
    run = simulate(trace, BatchWindow(max_batch=4), OPTIONS, toy_table(), seed=7)
    meta = run.meta
    assert (meta.policy, meta.policy_options) == ("batch-window", {"window_s": 10.0, "max_batch": 4})
    assert (meta.trace_sha256, meta.seed, meta.kind) == (trace.sha256, 7, "simulated")
    assert meta.engine_options["max_num_seqs"] == 8
    assert (meta.table, meta.table_source) == ("toy", "nowhere: invented numbers")
    assert set(meta.versions) == {"python", "replay", "numpy", "numba", "simpy"}
    assert "The reader left out 3 rows." in meta.notes


def test_an_assumed_table_is_labelled_and_a_measured_one_is_not() -> None:
    assumed = simulate(toy_trace([0.0]), Immediate(), OPTIONS, toy_table(source="assumed"))
    assert assumed.meta.energy_source == "assumed"
    assert any("Table toy is assumed, not measured" in note for note in assumed.meta.notes)
    measured = simulate(toy_trace([0.0]), Immediate(), OPTIONS, toy_table(source="measured"))
    assert measured.meta.energy_source == "simulated"
    assert not any("assumed" in note for note in measured.meta.notes)


def test_steps_outside_the_table_are_counted_said_and_held_against_the_run() -> None:
    table = toy_table(limits=np.array([50.0, 1024.0, 4e6, 2e8]))
    run = simulate(toy_trace([0.0], prompt_tokens=100, output_tokens=4), Immediate(), OPTIONS, table)
    assert run.meta.out_of_range_fraction == 0.25
    assert "1 of 4 steps lie outside what table toy measured." in run.meta.notes
    assert not run.meta.energy_valid
    assert "25 % of the steps" in run.meta.invalid_reasons[0]


def test_preemptions_are_said() -> None:
    options = replace(OPTIONS, num_gpu_blocks=8, max_model_len=100)
    run = simulate(toy_trace([0.0, 0.0], 40, 50), Immediate(), options, toy_table())
    assert any("a request was preempted" in note for note in run.meta.notes)


def test_progress_counts_every_request() -> None:
    seen: list[int] = []
    simulate(toy_trace([0.0, 0.0, 5.0]), Immediate(), OPTIONS, toy_table(), progress=seen.append)
    assert sum(seen) == 3


def test_an_empty_trace_is_refused() -> None:
    with pytest.raises(ValueError, match="trace toy has no requests; a replay needs at least 1"):
        simulate(toy_trace([]), Immediate(), OPTIONS, toy_table())


def test_a_request_that_does_not_fit_is_refused_before_anything_runs() -> None:
    with pytest.raises(ValueError, match=r"request 1 of toy has 1004 tokens, max_model_len is 1000"):
        simulate(toy_trace([0.0, 1.0], [10, 1000]), Immediate(), OPTIONS, toy_table())
