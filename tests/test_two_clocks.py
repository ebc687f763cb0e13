"""One policy, two clocks: what is released does not depend on who drives. And the live driver alone."""

import asyncio
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_engine import FIRST_TOKEN_S, ToyEngine, ToyLiveEngine, service_s
from toy_policies import GRID, NEEDED, AtMost, Drawing, Ticking
from toy_table import toy_table
from toy_trace import toy_trace, traces
from virtual_loop import VirtualLoop, run_virtually

from backends.live import LiveReplay
from sim.arrivals import as_offered
from sim.batch_window import BatchWindow
from sim.carbon_aware import CarbonAware
from sim.concurrency import Concurrency
from sim.deadline import Deadline
from sim.driver import Driver
from sim.immediate import Immediate
from sim.offline import Offline
from sim.offline_sorted import OfflineSorted
from sim.options import EngineOptions
from sim.pace import Pace
from sim.policy import Decision, Held, Policy
from sim.registry import SHIPPED, make_policy
from sim.shortest_first import ShortestFirst
from sim.size_bins import SizeBins
from sim.static_batch import StaticBatch
from sim.told_costs import ToldCosts, tell_costs
from sim.valley_fill import ValleyFill
from traces.record import FAILED, SERVED, UNFINISHED
from traces.trace import Trace


def told(policy: Policy) -> Policy:
    tell_costs(policy, ToldCosts(toy_table(), EngineOptions()))
    return policy


POLICIES: dict[str, Callable[[], Policy]] = {
    "immediate": Immediate,
    "offline": Offline,
    "batch-window": BatchWindow,
    "batch-window of 3": lambda: BatchWindow(window_s=2.0, max_batch=3),
    "batch-window of 0 s": lambda: BatchWindow(window_s=0.0),
    "batch-window of 0.1 s": lambda: BatchWindow(window_s=0.1),
    "concurrency of 2": lambda: Concurrency(most=2),
    "deadline": lambda: told(Deadline(ttft_s=3.0)),
    "offline-sorted": OfflineSorted,
    "pace": lambda: Pace(interval_s=0.75, jitter_s=0.5),
    "shortest-first of 2": lambda: ShortestFirst(most=2),
    "size-bins": lambda: SizeBins(bin_size=2, max_wait_s=3.0),
    "static-batch": lambda: StaticBatch(batch_size=3, max_wait_s=2.0),
    "carbon-aware": lambda: CarbonAware(GRID),
    "valley-fill": lambda: told(ValleyFill()),
    "deadline+size-bins": lambda: told(make_policy("deadline+size-bins", {"ttft_s": "3"})),
    "at most 2": AtMost,
    "ticking": Ticking,
    "drawing": Drawing,
}


ROUNDED = ("ticking", "at most 2", "drawing", "concurrency of 2", "shortest-first of 2")
"""Where a rounded time may let another request go first, so that the releases differ."""


def test_every_shipped_policy_is_among_those_tested() -> None:
    tested = {type(make()) for make in POLICIES.values()}
    assert {type(make_policy(name, NEEDED.get(name, {}))) for name in SHIPPED} <= tested


@pytest.mark.parametrize("name", POLICIES)
@settings(deadline=None)
@given(trace=traces())
def test_both_drivers_release_the_same_requests_at_the_same_times(name: str, trace: Trace) -> None:
    offered = as_offered(trace, POLICIES[name]())
    engine = ToyEngine(offered)
    simulated_s = Driver(offered, POLICIES[name](), engine).run()
    live_engine = ToyLiveEngine()
    live = run_virtually(LiveReplay(trace, POLICIES[name](), live_engine).run())
    assert live.released_s.tolist() == simulated_s.tolist()
    assert live_engine.order == [row for _, row in engine.submitted]
    assert live.finished_s.tolist() == engine.finished_s.tolist()
    assert (live.status == SERVED).all()


@pytest.mark.parametrize("name", [name for name in POLICIES if name not in ROUNDED])
@settings(deadline=None)
@given(trace=traces(), start_s=st.floats(1e3, 1e7))
def test_a_clock_that_starts_anywhere_and_rounds_releases_at_the_same_times(
    name: str, trace: Trace, start_s: float
) -> None:
    offered = as_offered(trace, POLICIES[name]())
    simulated_s = Driver(offered, POLICIES[name](), ToyEngine(offered)).run()
    live = run_virtually(LiveReplay(trace, POLICIES[name](), ToyLiveEngine()).run(), start_s)
    np.testing.assert_allclose(live.released_s, simulated_s, rtol=0, atol=1e-8)
    assert (live.released_s >= live.arrival_s).all()


class Watching:
    """Asks to be woken at a time that binary fractions miss, and notes when it is."""

    def __init__(self) -> None:
        self.woken_s: list[float] = []

    def decide(self, now_s: float, held: Held, running: int) -> Decision:
        del running
        if not held:
            return Decision()
        wake_at_s = held[0].arrival_s + 0.1
        if now_s < wake_at_s:
            return Decision(wake_at_s=wake_at_s)
        self.woken_s.append(now_s)
        return Decision(tuple(held))


@given(arrival_ms=st.integers(0, 10**6), start_s=st.floats(0, 1e7))
def test_both_drivers_wake_a_policy_no_earlier_than_it_asked(arrival_ms: int, start_s: float) -> None:
    trace = toy_trace([arrival_ms / 1000])
    simulated, live = Watching(), Watching()
    Driver(trace, simulated, ToyEngine(trace)).run()
    run_virtually(LiveReplay(trace, live, ToyLiveEngine()).run(), start_s)
    assert simulated.woken_s == [arrival_ms / 1000 + 0.1]
    assert len(live.woken_s) == 1
    assert live.woken_s[0] >= arrival_ms / 1000 + 0.1


def test_an_arrival_on_the_very_end_of_a_window_goes_with_it_on_both_clocks() -> None:
    trace = toy_trace([0.1, 10.1, 10.2])
    assert (0.1 + 10.0) == 10.1
    expected = [10.1, 10.1, 20.2]
    assert Driver(trace, BatchWindow(10.0), ToyEngine(trace)).run().tolist() == expected
    live = run_virtually(LiveReplay(trace, BatchWindow(10.0), ToyLiveEngine()).run())
    assert live.released_s.tolist() == expected


def test_live_times_are_the_clients() -> None:
    trace = toy_trace([0.0, 2.0], output_tokens=[5, 1])
    live = run_virtually(LiveReplay(trace, BatchWindow(1.0), ToyLiveEngine()).run())
    service = [service_s(trace.request(row)) for row in range(2)]
    assert live.first_token_s.tolist() == [1.0 + FIRST_TOKEN_S, 3.0 + FIRST_TOKEN_S]
    assert live.finished_s.tolist() == [1.0 + service[0], 3.0 + FIRST_TOKEN_S]
    assert live.output_tokens.tolist() == [5, 1]
    assert np.isnan(live.energy_j).all()


def test_a_failed_request_is_failed_never_served_and_the_replay_goes_on() -> None:
    trace = toy_trace([0.0, 0.1, 0.2, 0.3])
    engine = ToyLiveEngine(failing=frozenset({1}), short=frozenset({2}))
    replay = LiveReplay(trace, AtMost(1), engine)
    live = run_virtually(replay.run())
    assert live.status.tolist() == [SERVED, FAILED, FAILED, SERVED]
    assert replay.failures == {
        1: "RuntimeError: out of memory",
        2: "ValueError: the engine gave 3 of 4 tokens",
    }
    assert np.isnan(live.finished_s[1:3]).all()
    assert live.output_tokens.tolist() == [4, 1, 3, 4]


def test_a_slow_engine_delays_no_arrival() -> None:
    trace = toy_trace([row / 10 for row in range(50)], output_tokens=1000)
    replay = LiveReplay(trace, Immediate(), ToyLiveEngine())
    live = run_virtually(replay.run())
    assert (replay.arrived_s == trace.arrival_s).all()
    assert (replay.sent_s == trace.arrival_s).all()
    assert live.finished_s.min() > trace.arrival_s.max()


def test_a_late_loop_shows_as_lag_and_loses_nothing() -> None:
    async def hog(replay: LiveReplay, loop: VirtualLoop) -> None:
        run = asyncio.create_task(replay.run())
        await asyncio.sleep(0.5)
        loop.skip(2.0)  # as if a callback had blocked the loop for 2 s
        await run

    trace = toy_trace([0.0, 1.0, 2.0, 3.0])
    replay = LiveReplay(trace, BatchWindow(0.25), ToyLiveEngine())
    loop = VirtualLoop()
    loop.run_until_complete(hog(replay, loop))
    loop.close()
    live = replay.outcomes()
    assert replay.arrived_s.tolist() == [0.0, 2.5, 2.5, 3.0]
    assert live.released_s.tolist() == [0.25, 2.5, 2.5, 3.25]
    assert (live.status == SERVED).all()


def test_a_request_after_a_long_pause_is_no_later_than_others() -> None:
    trace = toy_trace([0.0, 40.0, 40.05])
    replay = LiveReplay(trace, Immediate(), ToyLiveEngine())
    loop = VirtualLoop(slack=1e-3)  # as Linux does
    loop.run_until_complete(replay.run())
    loop.close()
    lag_s = replay.arrived_s - trace.arrival_s
    assert (lag_s >= 0).all()
    assert lag_s.max() < 2e-4


def test_a_cancelled_replay_keeps_what_it_saw_and_leaves_nothing_running() -> None:
    async def cancel(replay: LiveReplay) -> int:
        run = asyncio.create_task(replay.run())
        await asyncio.sleep(1.05)
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
        return len(asyncio.all_tasks())

    trace = toy_trace([0.0, 1.0, 2.0], output_tokens=[1, 100, 1])
    replay = LiveReplay(trace, Immediate(), ToyLiveEngine())
    assert run_virtually(cancel(replay)) == 1
    live = replay.outcomes()
    assert live.status.tolist() == [SERVED, UNFINISHED, UNFINISHED]
    assert live.released_s[:2].tolist() == [0.0, 1.0]
    assert np.isnan(live.released_s[2])


class Stuck:
    """Never releases anything."""

    def decide(self, now_s: float, held: Held, running: int) -> Decision:
        del now_s, held, running
        return Decision()


class Greedy:
    """Releases its first request again and again."""

    def __init__(self) -> None:
        self._first: Decision | None = None

    def decide(self, now_s: float, held: Held, running: int) -> Decision:
        del now_s, running
        self._first = self._first or Decision((held[0],))
        return self._first


@pytest.mark.parametrize(("policy", "message"), [(Stuck, "is stuck at"), (Greedy, "which is not held")])
def test_a_policy_that_breaks_a_rule_ends_both_replays_with_its_name(
    policy: Callable[[], Policy], message: str
) -> None:
    trace = toy_trace([0.0, 1.0])
    with pytest.raises(ValueError, match=f"policy {policy.__name__} .*{message}"):
        Driver(trace, policy(), ToyEngine(trace)).run()
    with pytest.raises(ValueError, match=f"policy {policy.__name__} .*{message}"):
        run_virtually(LiveReplay(trace, policy(), ToyLiveEngine()).run())


def test_a_ticking_policy_ends_with_its_last_request() -> None:
    trace = toy_trace([0.0, 0.1])
    assert Driver(trace, Ticking(), ToyEngine(trace)).run().tolist() == [0.0, 0.75]
