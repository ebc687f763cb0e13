"""The shipped policies, and finding and setting policies by name."""

import re
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_engine import ToyEngine
from toy_policies import NEEDED, AtMost
from toy_trace import toy_trace, traces

from sim.arrivals import requests_of
from sim.batch_window import BatchWindow
from sim.driver import Driver
from sim.foreknown import release_times
from sim.gateway import Gateway
from sim.immediate import Immediate
from sim.offline import Offline
from sim.policy import Policy
from sim.registry import SHIPPED, make_policy, name_of, options_of, policy_names
from traces.trace import Floats, Trace


def released_s(trace: Trace, policy: Policy) -> Floats:
    return Driver(trace, policy, ToyEngine(trace)).run()


FORESEEING: dict[str, Callable[[], Policy]] = {
    "immediate": Immediate,
    "offline": Offline,
    "batch-window": BatchWindow,
    "batch-window of 0 s": lambda: BatchWindow(window_s=0.0),
    "batch-window of 2 s and 3": lambda: BatchWindow(window_s=2.0, max_batch=3),
    "batch-window of 1": lambda: BatchWindow(window_s=2.0, max_batch=1),
}


@pytest.mark.parametrize("name", FORESEEING)
@settings(deadline=None)
@given(whole_seconds=st.lists(st.integers(0, 9), min_size=1), trace=traces())
def test_what_a_policy_tells_beforehand_is_what_it_answers(
    name: str, whole_seconds: list[int], trace: Trace
) -> None:
    """On whole seconds, arrivals often fall on the very end of a window."""
    for offered in (trace, toy_trace(sorted(map(float, whole_seconds)))):
        told_s = release_times(FORESEEING[name](), offered.arrival_s)
        assert told_s is not None
        assert told_s.tolist() == released_s(offered, FORESEEING[name]()).tolist()


def test_only_a_replay_can_tell_what_depends_on_finishes() -> None:
    assert release_times(AtMost(), np.array([0.0])) is None


@pytest.mark.parametrize(
    ("told_s", "message"),
    [
        ([1.0, 1.9], r"request 1 at 1\.9 s; .* not before its arrival at 2\.0 s"),
        ([1.0, float("nan")], "request 1 at nan s; it must be finite"),
        ([float("inf"), 2.0], "request 0 at inf s; it must be finite"),
        ([1.0], "1 release times for 2 requests; tell one for each"),
    ],
)
def test_impossible_release_times_are_refused_by_name(told_s: list[float], message: str) -> None:
    class Seer(Immediate):
        def release_times(self, arrival_s: Floats) -> Floats:
            del arrival_s
            return np.array(told_s)

    with pytest.raises(ValueError, match=f"policy Seer .*{message}"):
        release_times(Seer(), np.array([1.0, 2.0]))


@given(traces())
def test_immediate_releases_at_arrival(trace: Trace) -> None:
    assert (released_s(trace, Immediate()) == trace.arrival_s).all()


@given(traces())
def test_offline_releases_everything_at_once(trace: Trace) -> None:
    gateway = Gateway(Offline())
    for request in requests_of(trace):
        assert gateway.arrive(request, 0.0) == (request,)


def test_a_window_counts_from_the_oldest_held_request() -> None:
    trace = toy_trace([1.0, 4.0, 10.9, 11.0, 11.1, 40.0])
    expected = [11.0, 11.0, 11.0, 11.0, 21.1, 50.0]
    assert released_s(trace, BatchWindow(window_s=10.0)).tolist() == expected


def test_a_full_batch_goes_early_and_the_window_starts_again() -> None:
    trace = toy_trace([0.0, 1.0, 2.0, 3.0, 5.0])
    expected = [2.0, 2.0, 2.0, 13.0, 13.0]
    assert released_s(trace, BatchWindow(window_s=10.0, max_batch=3)).tolist() == expected


def test_arrivals_at_one_instant_fill_one_batch_after_another() -> None:
    trace = toy_trace([2.0] * 5)
    expected = [2.0, 2.0, 2.0, 2.0, 7.0]
    assert released_s(trace, BatchWindow(window_s=5.0, max_batch=2)).tolist() == expected


@given(traces(), st.sampled_from([0.0, 0.5, 3.0, 60.0]), st.none() | st.integers(1, 5))
def test_batch_window_keeps_its_promise(trace: Trace, window_s: float, max_batch: int | None) -> None:
    """No request waits longer than the window, in order, and no batch is larger than it may be."""
    times = released_s(trace, BatchWindow(window_s, max_batch))
    assert (times >= trace.arrival_s).all()
    assert (times <= trace.arrival_s + window_s).all()
    assert (np.diff(times) >= 0).all()
    if max_batch == 1 or window_s == 0:
        assert (times == trace.arrival_s).all()
    if max_batch is None:
        for release_s in np.unique(times):
            assert release_s == trace.arrival_s[times == release_s].min() + window_s


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window_s": "-1"}, "window_s must be >= 0 and finite, got -1.0"),
        ({"window_s": "nan"}, "window_s must be >= 0 and finite, got nan"),
        ({"max_batch": "0"}, "max_batch must be >= 1 or none, got 0"),
        ({"window_s": "soon"}, "policy batch-window: window_s must be a number, got 'soon'"),
        ({"max_batch": "2.5"}, "policy batch-window: max_batch must be a whole number, got '2.5'"),
        ({"window": "1"}, "policy batch-window has no option 'window'; it has window_s, max_batch"),
    ],
)
def test_a_bad_option_is_named_with_the_rule(options: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        make_policy("batch-window", options)


def test_a_policy_without_options_says_so() -> None:
    with pytest.raises(ValueError, match="policy immediate has no option 'window_s'; it has none"):
        make_policy("immediate", {"window_s": "1"})


def test_options_are_read_by_their_types() -> None:
    policy = make_policy("batch-window", {"window-s": "2", "max_batch": "7"})
    assert policy == BatchWindow(2.0, 7)
    assert options_of(policy) == {"window_s": 2.0, "max_batch": 7}
    assert make_policy("batch-window", {"max_batch": "none"}) == BatchWindow()


@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_every_shipped_policy_can_be_made_by_name_and_tells_it(name: str) -> None:
    assert name in policy_names()
    assert name_of(make_policy(name, NEEDED.get(name, {}))) == name


def test_an_unknown_policy_names_those_there_are() -> None:
    expected = r"no policy 'batchwindow'; there are batch-window, .*offline.*, or give FILE\.py:CLASS"
    with pytest.raises(ValueError, match=expected):
        make_policy("batchwindow", {})


ALL_TYPES = dedent("""
    from dataclasses import dataclass, field
    from typing import ClassVar, Literal

    from sim.policy import Decision

    @dataclass
    class Typed:
        ratio: float = 0.5
        count: int = 1
        flag: bool = False
        label: str = "a"
        mode: Literal["fast", "slow"] = "fast"
        level: Literal[1, 2] = 1
        limit: float | None = 1.0
        table: tuple[int, ...] = ()
        seed: int = 0
        retimes: ClassVar[bool] = False
        _asked: int = field(default=0, init=False)

        def decide(self, now_s, held, running):
            self._asked += 1
            return Decision(release=tuple(held))

    @dataclass
    class Needy:
        count: int

        def decide(self, now_s, held, running):
            return Decision(release=tuple(held))

    class NoPolicy:
        pass
""")


@pytest.fixture
def policy_file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(ALL_TYPES)
    return path


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("ratio", "1e-3", 0.001),
        ("count", "-4", -4),
        ("flag", "TRUE", True),
        ("flag", "no", False),
        ("label", "3", "3"),
        ("mode", "slow", "slow"),
        ("level", "2", 2),
        ("limit", "none", None),
        ("limit", "2", 2.0),
    ],
)
def test_a_class_in_a_file_is_a_policy_and_its_fields_are_options(
    policy_file: Path, name: str, text: str, value: Any
) -> None:
    policy = make_policy(f"{policy_file}:Typed", {name: text})
    assert getattr(policy, name) == value
    assert type(getattr(policy, name)) is type(value)
    assert name_of(policy) == "Typed"
    assert (released_s(toy_trace([0.0, 1.0]), policy) == [0.0, 1.0]).all()
    assert set(options_of(policy)) == {
        *("ratio", "count", "flag", "label", "mode", "level", "limit", "table", "seed")
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"flag": "maybe"}, "flag must be true or false, got 'maybe'"),
        ({"mode": "warp"}, "mode must be one of fast, slow, got 'warp'"),
        ({"table": "1,2"}, "table cannot be given as text"),
        ({"_asked": "1"}, "has no option '_asked'"),
        ({"retimes": "1"}, "has no option 'retimes'"),
    ],
)
def test_a_bad_option_of_a_policy_in_a_file_is_refused(
    policy_file: Path, options: dict[str, str], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make_policy(f"{policy_file}:Typed", options)


def test_the_seed_reaches_a_policy_that_has_one_unless_it_is_set(policy_file: Path) -> None:
    assert options_of(make_policy(f"{policy_file}:Typed", {}, seed=5))["seed"] == 5
    assert options_of(make_policy(f"{policy_file}:Typed", {"seed": "9"}, seed=5))["seed"] == 9


def test_what_a_file_lacks_is_said(policy_file: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none\.py: no such file; --policy takes a name or FILE\.py:CLASS"):
        make_policy(f"{tmp_path}/none.py:A", {})
    with pytest.raises(ValueError, match=r"mine\.py: no class 'Other'; it has Needy, NoPolicy, Typed"):
        make_policy(f"{policy_file}:Other", {})
    with pytest.raises(ValueError, match=r"mine\.py:NoPolicy is not a policy; it needs a method decide"):
        make_policy(f"{policy_file}:NoPolicy", {})
    with pytest.raises(ValueError, match="give each field a default, or a value by --set"):
        make_policy(f"{policy_file}:Needy", {})
    assert options_of(make_policy(f"{policy_file}:Needy", {"count": "2"})) == {"count": 2}


@pytest.mark.parametrize(("source", "message"), [("def", "invalid syntax"), ("import no_such", "No module")])
def test_a_file_that_cannot_be_loaded_is_one_error(tmp_path: Path, source: str, message: str) -> None:
    path = tmp_path / "broken.py"
    path.write_text(source)
    with pytest.raises(ValueError, match=rf"broken\.py: cannot be loaded: .*{message}"):
        make_policy(f"{path}:Any", {})


def test_an_installed_package_can_bring_a_policy(
    policy_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "brought-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: brought\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        f"[replay.policies]\nbrought = {policy_file.stem}:Typed\nbad = {policy_file.stem}:NoPolicy\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert "brought" in policy_names()
    assert options_of(make_policy("brought", {"count": "3"}))["count"] == 3
    with pytest.raises(ValueError, match="entry point bad is not a policy"):
        make_policy("bad", {})


def test_held_requests_are_offered_oldest_first_to_a_policy_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "shortest.py"
    path.write_text(
        dedent("""
        from sim.policy import Decision

        class ShortestFirst:
            def decide(self, now_s, held, running):
                if running or not held:
                    return Decision()
                return Decision(release=(min(held, key=lambda r: r.prompt_tokens),))
        """)
    )
    trace = toy_trace([0.0, 0.01, 0.02, 0.03], prompt_tokens=[64, 192, 64, 128])
    engine = ToyEngine(trace)
    Driver(trace, make_policy(f"{path}:ShortestFirst", {}), engine).run()
    assert [row for _, row in engine.submitted] == [0, 2, 3, 1]
