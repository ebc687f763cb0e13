"""A window, a limit and a stretch take what they say, and nothing else changes."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy_trace import toy_trace

from traces.selection import select
from traces.trace import Trace

TRACE = toy_trace([0.0, 1.0, 2.0, 2.0, 5.0], prompt_tokens=[1, 2, 3, 4, 5])


def with_deadlines(trace: Trace, after_s: list[float]) -> Trace:
    return replace(trace, deadline_s=trace.arrival_s + np.array(after_s))


def test_nothing_asked_changes_nothing() -> None:
    assert select(TRACE) is TRACE


def test_a_window_starts_at_its_time_0_and_leaves_out_its_end() -> None:
    part = select(TRACE, from_s=1.0, to_s=5.0)
    assert part.arrival_s.tolist() == [0.0, 1.0, 1.0]
    assert part.prompt_tokens.tolist() == [2, 3, 4]


def test_an_end_alone_keeps_the_trace_s_own_time_0() -> None:
    assert select(toy_trace([3.0, 4.0, 9.0]), to_s=5.0).arrival_s.tolist() == [3.0, 4.0]


def test_a_limit_counts_from_the_window() -> None:
    assert select(TRACE, from_s=2.0, limit=1).prompt_tokens.tolist() == [3]
    assert len(select(TRACE, limit=100)) == 5


def test_a_quarter_is_four_times_as_fast_and_deadlines_keep_their_distance() -> None:
    trace = with_deadlines(TRACE, [10.0, 10.0, 3.0, np.nan, 1.0])
    fast = select(trace, from_s=1.0, stretch=0.25)
    assert fast.arrival_s.tolist() == [0.0, 0.25, 0.25, 1.0]
    assert fast.deadline_s is not None
    np.testing.assert_allclose(fast.deadline_s - fast.arrival_s, [10.0, 3.0, np.nan, 1.0])


@given(
    st.lists(st.integers(0, 100_000), min_size=1, max_size=30),
    st.integers(0, 100_000),
    st.integers(1, 100_000),
    st.floats(0.01, 100),
)
def test_a_window_holds_exactly_what_arrives_in_it(
    arrivals_ms: list[int], from_ms: int, length_ms: int, stretch: float
) -> None:
    arrival_s = np.sort(arrivals_ms) / 1000
    from_s, to_s = from_ms / 1000, (from_ms + length_ms) / 1000
    inside = arrival_s[(arrival_s >= from_s) & (arrival_s < to_s)]
    trace = toy_trace(arrival_s.tolist())
    if not len(inside):
        with pytest.raises(ValueError, match="no request arrives"):
            select(trace, from_s=from_s, to_s=to_s, stretch=stretch)
        return
    part = select(trace, from_s=from_s, to_s=to_s, stretch=stretch)
    np.testing.assert_array_equal(part.arrival_s, (inside - from_s) * stretch)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stretch": 0.0}, "stretch must be > 0, got 0"),
        ({"stretch": float("nan")}, "stretch must be > 0, got nan"),
        ({"stretch": float("inf")}, "stretch must be > 0, got inf"),
        ({"limit": 0}, "limit must be >= 1 request, got 0"),
        ({"from_s": -1.0}, "from_s must be >= 0, got -1"),
        ({"from_s": float("nan")}, "from_s must be >= 0, got nan"),
        ({"from_s": 2.0, "to_s": 2.0}, "to_s must be later than from_s, got 2 after 2"),
        ({"to_s": float("nan")}, "to_s must be later"),
        ({"from_s": 6.0}, "no request arrives from 6 to inf s; the trace toy covers 0 to 5 s"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        select(TRACE, **options)  # type: ignore[arg-type]
