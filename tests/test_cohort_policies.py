"""The laws of `offline-sorted` and `static-batch`."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_engine import ToyEngine
from toy_trace import toy_trace, traces

from sim.arrivals import as_offered
from sim.driver import Driver
from sim.length_prediction import predict_lengths
from sim.offline_sorted import GATHERING_S
from sim.policy import Policy
from sim.registry import make_policy
from sim.static_batch import StaticBatch
from traces.trace import Trace


def submitted(trace: Trace, policy: Policy) -> tuple[list[int], ToyEngine]:
    """Return the rows in the order of their release, and the engine that served them."""
    offered = as_offered(trace, policy)
    engine = ToyEngine(offered)
    Driver(offered, policy, engine).run()
    return [row for _, row in engine.submitted], engine


@settings(deadline=None)
@given(traces(), st.sampled_from(["longest", "shortest"]), st.booleans())
def test_a_batch_job_goes_whole_in_the_order_of_length(trace: Trace, first: str, is_predicted: bool) -> None:
    trace = predict_lengths(trace, "oracle" if is_predicted else "none")
    order, engine = submitted(trace, make_policy("offline-sorted", {"first": first}))
    assert {at_s for at_s, _ in engine.submitted} == {GATHERING_S}
    tokens = trace.prompt_tokens + (trace.output_tokens if is_predicted else 0)
    assert order == np.argsort(-tokens if first == "longest" else tokens, kind="stable").tolist()


@settings(deadline=None)
@given(traces(longest_gap_s=5), st.integers(1, 5), st.sampled_from([0.0, 2.0, 30.0]))
def test_a_cohort_starts_when_the_last_has_drained_and_it_is_full_or_late(
    trace: Trace, batch_size: int, max_wait_s: float
) -> None:
    order, engine = submitted(trace, StaticBatch(batch_size, max_wait_s))
    assert order == list(range(len(trace)))
    drained_s, first = 0.0, 0
    while first < len(trace):
        start_s = engine.submitted[first][0]
        end = first + sum(at_s == start_s for at_s, _ in engine.submitted[first:])
        assert end - first <= batch_size
        full = first + batch_size - 1
        full_s = trace.arrival_s[full] if full < len(trace) else np.inf
        assert start_s == max(drained_s, min(full_s, trace.arrival_s[first] + max_wait_s))
        drained_s = engine.finished_s[first:end].max()
        first = end


def test_a_cohort_waits_for_its_longest_request() -> None:
    trace = toy_trace([0.0, 0.0, 0.1, 0.1], 16, [1, 81, 1, 1])
    _, engine = submitted(trace, StaticBatch(2, max_wait_s=1.0))
    assert [at_s for at_s, _ in engine.submitted] == [0.0, 0.0, engine.finished_s[1], engine.finished_s[1]]


@pytest.mark.parametrize(
    ("name", "option", "message"),
    [
        ("offline-sorted", {"first": "fattest"}, "first must be one of longest, shortest, got 'fattest'"),
        ("static-batch", {"batch_size": "0"}, "batch_size must be >= 1, got 0"),
        ("static-batch", {"max_wait_s": "-1"}, "max_wait_s must be >= 0 and finite, got -1"),
    ],
)
def test_an_impossible_option_is_refused(name: str, option: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_policy(name, option)
