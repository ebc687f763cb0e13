"""The laws of `valley-fill` and `carbon-aware`: online requests never wait, offline ones for their time."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_engine import ToyEngine, ToyLiveEngine
from toy_policies import GRID
from toy_table import toy_table
from toy_trace import toy_trace, traces
from virtual_loop import run_virtually

from backends.live import LiveReplay
from sim import metrics
from sim.carbon_aware import CarbonAware
from sim.concurrency import Concurrency
from sim.driver import Driver
from sim.immediate import Immediate
from sim.options import EngineOptions
from sim.policy import Decision, Held, Policy
from sim.registry import make_policy
from sim.simulate import simulate
from sim.told_costs import ToldCosts, tell_costs
from sim.valley_fill import ValleyFill
from traces.trace import Floats, Trace

LOW = ((5.0, 6.5), (12.0, 14.0))
"""When the intensity of GRID is at its lowest third."""


def valley_fill(most: int = 2, max_wait_s: float = 500.0) -> ValleyFill:
    policy = ValleyFill(most, lead_s=3.0, max_wait_s=max_wait_s)
    tell_costs(policy, ToldCosts(toy_table(), EngineOptions()))
    return policy


def carbon_aware(max_wait_s: float = 500.0) -> CarbonAware:
    return CarbonAware(GRID, quantile=0.33, lead_s=3.0, max_wait_s=max_wait_s)


both = pytest.mark.parametrize("make", [valley_fill, carbon_aware])
Make = Callable[..., Policy]


@st.composite
def mixed(draw: st.DrawFn) -> Trace:
    """Draw a trace of both classes, with and without deadlines."""
    trace = draw(traces(longest_gap_s=4))
    count = len(trace)
    wait_s = draw(st.lists(st.sampled_from([0.0, 4.0, 40.0, np.nan]), min_size=count, max_size=count))
    offline = draw(st.lists(st.booleans(), min_size=count, max_size=count))
    return replace(
        trace, is_offline=np.array(offline, dtype=np.bool_), deadline_s=trace.arrival_s + np.array(wait_s)
    )


def latest_s(trace: Trace, max_wait_s: float) -> Floats:
    assert trace.deadline_s is not None
    own_s = np.where(np.isnan(trace.deadline_s), trace.arrival_s + max_wait_s, trace.deadline_s - 3.0)
    return np.maximum(own_s, trace.arrival_s)


@both
@settings(deadline=None)
@given(trace=mixed(), max_wait_s=st.sampled_from([0.0, 7.0, 500.0]))
def test_online_requests_go_at_once_and_offline_ones_not_after_their_latest(
    make: Make, trace: Trace, max_wait_s: float
) -> None:
    released_s = Driver(trace, make(max_wait_s=max_wait_s), ToyEngine(trace)).run()
    assert trace.is_offline is not None
    online = ~trace.is_offline
    assert (released_s[online] == trace.arrival_s[online]).all()
    assert (released_s <= latest_s(trace, max_wait_s))[~online].all()


@both
@settings(deadline=None)
@given(trace=mixed())
def test_both_clocks_release_at_the_same_times(make: Make, trace: Trace) -> None:
    simulated_s = Driver(trace, make(), ToyEngine(trace)).run()
    live = run_virtually(LiveReplay(trace, make(), ToyLiveEngine()).run())
    assert live.released_s.tolist() == simulated_s.tolist()


@settings(deadline=None)
@given(mixed(), st.sampled_from([2.0, 500.0]))
def test_offline_requests_go_in_the_first_low_hour_or_when_they_must(trace: Trace, max_wait_s: float) -> None:
    released_s = Driver(trace, carbon_aware(max_wait_s), ToyEngine(trace)).run()
    for row, must_s in enumerate(latest_s(trace, max_wait_s)):
        request = trace.request(row)
        low_s = [max(request.arrival_s, begin_s) for begin_s, end_s in LOW if request.arrival_s < end_s]
        if request.request_class == "offline":
            assert released_s[row] == min([*low_s, must_s])


def test_a_threshold_or_a_period_says_which_hours_are_low() -> None:
    trace = replace(toy_trace([0.0, 7.0]), is_offline=np.array([True, True]))

    def released_s(**options: float) -> list[float]:
        return list(Driver(trace, CarbonAware(GRID, **options), ToyEngine(trace)).run())

    assert released_s(below_g_per_kwh=300.0) == [2.0, 12.0]
    assert released_s(below_g_per_kwh=90.0) == [12.0, 12.0]
    assert released_s(quantile=1.0) == [0.0, 7.0]
    assert released_s(below_g_per_kwh=10.0, max_wait_s=100.0) == [100.0, 107.0]
    late = replace(trace, arrival_s=trace.arrival_s + 20.0)
    engine = ToyEngine(late)
    assert Driver(late, CarbonAware(GRID, period_s=20.0), engine).run().tolist() == [25.0, 32.0]


class Watching:
    """Notes, for each offline request that goes, how many ran already."""

    def __init__(self, inside: Policy) -> None:
        self._inside = inside
        self.running: list[int] = []

    def decide(self, now_s: float, held: Held, running: int) -> Decision:
        decision = self._inside.decide(now_s, held, running)
        for place, request in enumerate(decision.release):
            if request.request_class == "offline":
                self.running.append(running + place)
        return decision


@settings(deadline=None)
@given(mixed(), st.integers(1, 4))
def test_no_offline_request_goes_while_as_many_run_as_may(trace: Trace, most: int) -> None:
    watching = Watching(valley_fill(most))
    without = replace(trace, deadline_s=None)
    Driver(without, watching, ToyEngine(trace)).run()
    assert all(running < most for running in watching.running)


def test_online_requests_keep_their_latencies_beside_a_heap_of_offline_ones() -> None:
    """A request twice a second, and at 10 s 300 offline ones with long prompts."""
    arrival_s = np.sort(np.concatenate([np.arange(120) * 0.5, np.full(300, 10.01)]))
    offline = arrival_s == 10.01
    prompts = np.where(offline, 2000, 200).tolist()
    outputs = np.where(offline, 20, 60).tolist()
    trace = replace(toy_trace(arrival_s.tolist(), prompts, outputs), is_offline=offline)

    def worst_s(policy: Policy) -> tuple[float, float]:
        outcomes = simulate(trace, policy, EngineOptions(), toy_table()).outcomes
        return metrics.ttft_s(outcomes)[~offline].max(), metrics.tpot_s(outcomes)[~offline].max()

    ttft_s, tpot_s = worst_s(Immediate())
    assert ttft_s > 5.0
    assert tpot_s > 0.2
    for target_s in (0.015, 0.03):
        ttft_s, tpot_s = worst_s(ValleyFill(tpot_s=target_s))
        assert ttft_s < 0.5
        assert 0.6 * target_s < tpot_s < target_s


def test_a_lull_is_filled_to_the_brim() -> None:
    trace = replace(toy_trace([0.0] * 40, 50, 30), is_offline=np.full(40, True))
    filled, bounded = (
        simulate(trace, policy, EngineOptions(), toy_table()).meta.makespan_s
        for policy in (ValleyFill(most=8), Concurrency(8))
    )
    assert bounded <= filled < 1.15 * bounded


@pytest.mark.parametrize(
    ("name", "option", "message"),
    [
        ("valley-fill", {"most": "0"}, "most must be >= 1, got 0"),
        ("valley-fill", {"tpot_s": "0"}, "tpot_s must be > 0 and finite, got 0"),
        ("valley-fill", {"lead_s": "-1"}, "lead_s must be >= 0 and finite, got -1"),
        ("valley-fill", {"max_wait_s": "inf"}, "max_wait_s must be >= 0 and finite, got inf"),
        ("carbon-aware", {}, "intensity is needed: a CSV file with columns time_s and g_per_kwh, got none"),
        ("carbon-aware", {"intensity": GRID, "quantile": "2"}, "quantile must be from 0 to 1, got 2"),
        ("carbon-aware", {"intensity": GRID, "period_s": "9"}, "period_s must be finite and after the last"),
        ("carbon-aware", {"intensity": GRID, "lead_s": "nan"}, "lead_s must be >= 0 and finite, got nan"),
    ],
)
def test_an_impossible_option_is_refused(name: str, option: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_policy(name, option)
