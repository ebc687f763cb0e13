"""Policies one behind the other: each decides as if it were alone before the next."""

from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_two_clocks import POLICIES
from toy_engine import ToyEngine, ToyLiveEngine
from toy_trace import toy_trace, traces
from virtual_loop import run_virtually

from backends.live import LiveReplay
from sim.arrivals import as_offered
from sim.batch_window import BatchWindow
from sim.chain import Chain
from sim.concurrency import Concurrency
from sim.driver import Driver
from sim.immediate import Immediate
from sim.pace import Pace
from sim.policy import Policy
from sim.registry import make_policy, name_of, options_of, settings_of_policy
from sim.size_bins import SizeBins
from sim.static_batch import StaticBatch
from traces.trace import Trace

MEMBERS: dict[str, Callable[[], Policy]] = {
    "batch-window": lambda: BatchWindow(2.0, 3),
    "concurrency": lambda: Concurrency(2),
    "pace": lambda: Pace(0.75),
    "size-bins": lambda: SizeBins(2, 1.5),
    "static-batch": lambda: StaticBatch(3),
}
members = st.sampled_from(sorted(MEMBERS))


def chain(outer: Policy, inner: Policy) -> Chain:
    return Chain(("outer", "inner"), (outer, inner))


def submissions(trace: Trace, policy: Policy) -> list[tuple[float, int]]:
    offered = as_offered(trace, policy)
    engine = ToyEngine(offered)
    Driver(offered, policy, engine).run()
    return engine.submitted


@pytest.mark.parametrize("name", POLICIES)
@settings(deadline=None, max_examples=30)
@given(trace=traces(longest_gap_s=5))
def test_immediate_before_or_behind_a_policy_changes_nothing(name: str, trace: Trace) -> None:
    alone = submissions(trace, POLICIES[name]())
    assert submissions(trace, chain(Immediate(), POLICIES[name]())) == alone
    assert submissions(trace, chain(POLICIES[name](), Immediate())) == alone


@settings(deadline=None)
@given(traces(longest_gap_s=5), members, members, members)
def test_brackets_do_not_matter(trace: Trace, one: str, two: str, three: str) -> None:
    left = chain(chain(MEMBERS[one](), MEMBERS[two]()), MEMBERS[three]())
    right = chain(MEMBERS[one](), chain(MEMBERS[two](), MEMBERS[three]()))
    assert submissions(trace, left) == submissions(trace, right)


@settings(deadline=None)
@given(traces(longest_gap_s=5), members, members)
def test_both_clocks_release_the_same(trace: Trace, outer: str, inner: str) -> None:
    def made() -> Chain:
        return chain(MEMBERS[outer](), MEMBERS[inner]())

    live = run_virtually(LiveReplay(trace, made(), ToyLiveEngine()).run())
    assert live.released_s.tolist() == Driver(trace, made(), ToyEngine(trace)).run().tolist()


def test_what_the_outer_one_releases_the_inner_one_holds() -> None:
    """A window of 2 s, then one request at a time."""
    trace = toy_trace([0.0, 1.0, 1.5], output_tokens=1)
    policy = make_policy("batch-window+concurrency", {"window_s": "2", "most": "1"})
    first_s, *others_s = (at_s for at_s, _ in submissions(trace, policy))
    assert first_s == 2.0
    assert others_s == [2.0 + 0.25 + 2**-16, 2.0 + 2 * (0.25 + 2**-16)]


def test_to_the_outer_one_all_that_it_has_released_runs() -> None:
    trace = toy_trace([0.0] * 6, output_tokens=1)
    policy = make_policy("concurrency+pace", {"most": "2", "interval_s": "10"})
    assert [at_s for at_s, _ in submissions(trace, policy)] == [0.0, 10.0, 20.0, 30.0, 40.0, 50.0]
    assert isinstance(policy, Chain)


def test_one_that_takes_the_trace_as_one_batch_makes_the_chain_do_so() -> None:
    trace = toy_trace([0.0, 50.0, 60.0], [64, 192, 32], 1)
    policy = make_policy("offline+shortest-first", {"most": "1"})
    assert [row for _, row in submissions(trace, policy)] == [0, 2, 1]


def test_options_go_to_those_that_have_them_or_to_the_one_named() -> None:
    policy = make_policy(
        "size-bins+static-batch+pace", {"max-wait-s": "3", "size-bins.bin_size": "2"}, seed=7
    )
    assert name_of(policy) == "size-bins+static-batch+pace"
    assert options_of(policy) == {
        "size-bins.bin_size": 2,
        "size-bins.max_wait_s": 3.0,
        "static-batch.batch_size": 32,
        "static-batch.max_wait_s": 3.0,
        "pace.interval_s": 0.1,
        "pace.jitter_s": 0.0,
        "pace.seed": 7,
    }
    assert set(settings_of_policy("size-bins+pace")) == {
        "bin_size",
        "max_wait_s",
        "interval_s",
        "jitter_s",
        "seed",
    }


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("pace+nothing", {}, "no policy 'nothing'"),
        ("pace+", {}, "no policy ''"),
        ("pace+pace", {}, "each policy can stand in a chain once"),
        ("pace+immediate", {"most": "1"}, "has no option 'most'; it has pace.interval_s, pace.jitter_s"),
        ("pace+immediate", {"concurrency.most": "1"}, "has no option 'concurrency.most'"),
        ("pace+immediate", {"immediate.interval_s": "1"}, "policy immediate has no option 'interval_s'"),
        ("pace+concurrency", {"most": "0"}, "most must be >= 1, got 0"),
    ],
)
def test_a_bad_chain_is_refused(name: str, options: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_policy(name, options)


def test_policies_in_files_can_stand_in_a_chain(tmp_path: Path) -> None:
    folder = tmp_path / "a+b"
    folder.mkdir()
    path = folder / "mine.py"
    path.write_text(
        dedent("""
        from dataclasses import dataclass
        from sim.policy import Decision

        @dataclass
        class Newest:
            most: int = 1

            def decide(self, now_s, held, running):
                if running >= self.most or not len(held):
                    return Decision()
                return Decision((held[-1],))
        """)
    )
    trace = toy_trace([0.0, 0.0, 0.0], output_tokens=1)
    assert [row for _, row in submissions(trace, make_policy(f"{path}:Newest", {}))] == [0, 2, 1]
    with pytest.raises(ValueError, match="no such file"):  # a path with a + stands alone
        make_policy(f"batch-window+{path}:Newest", {})
    plain = tmp_path / "mine.py"
    path.rename(plain)
    policy = make_policy(f"batch-window+{plain}:Newest", {"window_s": "1", f"{plain}:Newest.most": "1"})
    assert [row for _, row in submissions(trace, policy)] == [0, 2, 1]
    before = make_policy(f"{plain}:Newest+batch-window", {"window_s": "1"})
    assert submissions(trace, before)[0][0] == 1.0
