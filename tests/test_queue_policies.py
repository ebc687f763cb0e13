"""The laws of `pace`, `concurrency` and `shortest-first`, and what a long queue costs any policy."""

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_engine import ToyEngine
from toy_policies import NEEDED
from toy_table import toy_table
from toy_trace import toy_trace, traces

from sim.concurrency import Concurrency
from sim.driver import Driver
from sim.gateway import HeldRequests
from sim.length_prediction import predict_lengths
from sim.options import EngineOptions
from sim.pace import Pace
from sim.policy import Decision, Held, HeldRequest, Policy
from sim.registry import make_policy
from sim.shortest_first import ShortestFirst
from sim.told_costs import ToldCosts, tell_costs
from traces.trace import Trace


class Counting:
    """Notes how many run after each answer of the policy inside, and how many were held back."""

    def __init__(self, inside: Policy) -> None:
        self._inside = inside
        self.seen: list[tuple[int, int]] = []

    def decide(self, now_s: float, held: Held, running: int) -> Decision:
        decision = self._inside.decide(now_s, held, running)
        released = len(decision.release)
        self.seen.append((running + released, len(held) - released))
        return decision


def order_of(trace: Trace, policy: Policy) -> list[int]:
    engine = ToyEngine(trace)
    Driver(trace, policy, engine).run()
    return [row for _, row in engine.submitted]


@settings(deadline=None)
@given(traces(), st.sampled_from([0.01, 0.7, 5.0]), st.sampled_from([0.0, 0.3]), st.integers(0, 9))
def test_pace_keeps_its_interval_and_wastes_no_turn(
    trace: Trace, interval_s: float, jitter_s: float, seed: int
) -> None:
    released_s = Driver(trace, Pace(interval_s, jitter_s, seed), ToyEngine(trace)).run()
    before_s, after_s = released_s[:-1], released_s[1:]
    assert released_s[0] == trace.arrival_s[0]
    assert (after_s >= before_s + interval_s).all()
    assert (after_s <= np.maximum(trace.arrival_s[1:], before_s + interval_s + jitter_s)).all()


def test_pace_without_jitter_is_regular_and_jitter_is_the_seeds() -> None:
    trace = toy_trace([0.0] * 4)
    assert Driver(trace, Pace(0.5), ToyEngine(trace)).run().tolist() == [0.0, 0.5, 1.0, 1.5]
    one, again, other = (
        Driver(trace, Pace(0.5, 0.5, seed), ToyEngine(trace)).run().tolist() for seed in (1, 1, 2)
    )
    assert one == again != other


@pytest.mark.parametrize("policy", [Concurrency, ShortestFirst])
@settings(deadline=None)
@given(trace=traces(), most=st.integers(1, 6))
def test_no_more_run_than_may_and_none_waits_for_a_free_place(
    policy: type[Concurrency | ShortestFirst], trace: Trace, most: int
) -> None:
    counting = Counting(policy(most))
    assert sorted(order_of(trace, counting)) == list(range(len(trace)))
    assert all(running <= most for running, _ in counting.seen)
    assert all(running == most for running, waiting in counting.seen if waiting)


@given(traces(), st.integers(1, 6))
@settings(deadline=None)
def test_concurrency_keeps_the_order(trace: Trace, most: int) -> None:
    assert order_of(trace, Concurrency(most)) == list(range(len(trace)))


def test_shortest_first_goes_by_prompt_and_predicted_output_or_by_prompt_alone() -> None:
    trace = toy_trace([0.0, 0.01, 0.02, 0.03], [64, 192, 64, 128], [4, 4, 200, 4])
    assert order_of(trace, ShortestFirst(1)) == [0, 2, 3, 1]
    assert order_of(predict_lengths(trace, "oracle"), ShortestFirst(1)) == [0, 3, 1, 2]


class CountingHeld:
    """Counts how often it is asked for a request, and refuses to be walked through."""

    def __init__(self, held: HeldRequests) -> None:
        self._held = held
        self.asked = 0

    def __len__(self) -> int:
        return len(self._held)

    def __getitem__(self, index: int) -> HeldRequest:
        self.asked += 1
        return self._held[index]

    def __iter__(self) -> Iterator[HeldRequest]:
        raise AssertionError("walked through all that is held, to release none of it")


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("batch-window", {"window_s": "1e6"}),
        ("carbon-aware", {"below_g_per_kwh": "0", **NEEDED["carbon-aware"]}),
        ("deadline", {"ttft_s": "1e6"}),
        ("pace", {"interval_s": "1e6"}),
        ("shortest-first", {}),
        ("size-bins", {"bin_size": "1000", "max_wait_s": "1e6"}),
        ("static-batch", {}),
        ("valley-fill", {}),
        ("deadline+static-batch", {"ttft_s": "1e6"}),
    ],
)
def test_a_long_queue_is_not_looked_through_at_each_arrival(name: str, options: dict[str, str]) -> None:
    policy, held = make_policy(name, options), HeldRequests()
    tell_costs(policy, ToldCosts(toy_table(), EngineOptions()))
    if name == "pace":
        held._add(HeldRequest(-1, 0.0, 10))
        for request in policy.decide(0.0, held, 0).release:
            held._remove(request)
    counting = CountingHeld(held)
    for place in range(300):
        held._add(HeldRequest(place, float(place), 10, request_class="offline"))
        assert policy.decide(float(place), counting, 1000).release == ()
    assert counting.asked <= 300


@pytest.mark.parametrize(
    ("name", "option", "message"),
    [
        ("pace", {"interval_s": "0"}, "interval_s must be > 0 and finite, got 0"),
        ("pace", {"jitter_s": "-1"}, "jitter_s must be >= 0 and finite, got -1"),
        ("concurrency", {"most": "0"}, "most must be >= 1, got 0"),
        ("shortest-first", {"most": "0"}, "most must be >= 1, got 0"),
    ],
)
def test_an_impossible_option_is_refused(name: str, option: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_policy(name, option)
