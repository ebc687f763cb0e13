"""The policy `size-bins`: equals go together, and nobody waits too long."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_engine import ToyEngine
from toy_trace import toy_trace, traces

from sim.driver import Driver
from sim.length_prediction import predict_lengths
from sim.registry import make_policy
from sim.size_bins import SizeBins
from traces.trace import Trace


@settings(deadline=None)
@given(
    trace=traces(longest_gap_s=4),
    bin_size=st.integers(1, 4),
    max_wait_s=st.sampled_from([0.0, 3.0, 50.0]),
    how=st.sampled_from(["none", "oracle"]),
)
def test_a_bin_goes_exactly_when_it_is_full_or_late(
    trace: Trace, bin_size: int, max_wait_s: float, how: str
) -> None:
    trace = predict_lengths(trace, how)
    released_s = Driver(trace, SizeBins(bin_size, max_wait_s), ToyEngine(trace)).run()
    outputs = trace.output_tokens if how == "oracle" else np.zeros(len(trace))
    sizes = np.frexp(trace.prompt_tokens)[1] * 100 + np.frexp(outputs)[1]
    for size in np.unique(sizes):
        arrival_s, out_s = trace.arrival_s[sizes == size], released_s[sizes == size]
        first = 0
        while first < len(arrival_s):
            late_s = arrival_s[first] + max_wait_s
            members = min(bin_size, int((arrival_s[first:] <= late_s).sum()))
            goes_s = arrival_s[first + members - 1] if members == bin_size else late_s
            assert (out_s[first : first + members] == goes_s).all()
            first += members


def test_a_bin_holds_what_lies_between_two_powers_of_two() -> None:
    trace = toy_trace([0.0] * 6, [63, 64, 127, 128, 32, 100], [1, 1, 1, 1, 1, 1])
    released_s = Driver(trace, SizeBins(2, 9.0), ToyEngine(trace)).run()
    assert released_s.tolist() == [0.0, 0.0, 0.0, 9.0, 0.0, 9.0]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"bin_size": "0"}, "bin_size must be >= 1, got 0"),
        ({"max_wait_s": "inf"}, "max_wait_s must be >= 0 and finite, got inf"),
    ],
)
def test_an_impossible_option_is_refused(option: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_policy("size-bins", option)
