"""The way from the client to the engine core: requests in a row, long prompts, a core that wakes up."""

import math
from typing import Any

import numpy as np
import pytest
from toy_table import toy_table
from toy_trace import toy_trace

from sim.engine import SimulatedEngine
from sim.options import EngineOptions
from traces.trace import Floats

FAR_APART_S = 2.0


def first_tokens_s(arrivals_s: list[float], prompts: list[int], **host: Any) -> Floats:
    """Serve requests of one token each, submitted all at once or by time, and return their first tokens."""
    trace = toy_trace(arrivals_s, prompts, [1] * len(prompts))
    engine = SimulatedEngine(trace, EngineOptions(), toy_table(**host))
    engine.submit(np.arange(len(trace)), np.array(arrivals_s))
    for _ in prompts:
        engine.advance(math.inf)
    return np.array(engine.first_token_s)


def test_what_is_released_at_once_is_sent_one_after_the_other() -> None:
    together = first_tokens_s([0.0, 0.0, 0.0], [64, 64, 64], send_s=FAR_APART_S)
    alone = first_tokens_s([0.0], [64])
    assert together == pytest.approx(alone[0] + FAR_APART_S * np.arange(3))


def test_a_client_that_is_free_sends_at_once() -> None:
    arrivals_s = [0.0, 3.0, 3.0, 9.0]
    sent_late = first_tokens_s(arrivals_s, [64] * 4, send_s=FAR_APART_S)
    at_once = first_tokens_s(arrivals_s, [64] * 4)
    assert (sent_late - at_once)[[0, 3]] == pytest.approx(0.0)
    assert sent_late[1] < at_once[1]  # alone in its step, no longer with the next
    assert sent_late[2] - sent_late[1] == pytest.approx(FAR_APART_S)


def test_submitting_one_by_one_or_together_is_the_same() -> None:
    trace = toy_trace([0.0, 0.0, 0.1, 5.0], [64, 64, 64, 64], [3] * 4)
    engines = [SimulatedEngine(trace, EngineOptions(), toy_table(send_s=0.07)) for _ in range(2)]
    engines[0].submit(np.arange(4), trace.arrival_s)
    for row, at_s in enumerate(trace.arrival_s.tolist()):
        engines[1].submit([row], at_s)
    for engine in engines:
        for _ in range(len(trace)):
            engine.advance(math.inf)
    assert engines[0].first_token_s.tolist() == engines[1].first_token_s.tolist()


def test_a_long_prompt_is_longer_on_its_way() -> None:
    slow, quick = (first_tokens_s([0.0], [1000], submit_token_s=token_s)[0] for token_s in (1e-5, 0.0))
    assert slow - quick == pytest.approx(0.01)


def test_an_engine_that_waited_long_launches_later() -> None:
    arrivals_s = [1.0, 4.0]
    sleepy = first_tokens_s(arrivals_s, [64, 64], wake_s=0.002, wake_after_s=1.0)
    quick = first_tokens_s(arrivals_s, [64, 64])
    waits_s = [1.0, 3.0]  # but for the way to the engine and the first request, some milliseconds
    expected_s = [0.002 * (1 - math.exp(-wait_s)) for wait_s in waits_s]
    assert sleepy - quick == pytest.approx(expected_s, rel=0.02)


def test_requests_are_taken_in_one_after_the_other_before_a_step_is_decided() -> None:
    """Who comes while another is taken in is there when the first step is decided."""
    at_once = first_tokens_s([0.0] * 5, [100] * 5, send_s=1e-3)
    assert len(set(at_once.tolist())) == 2  # the first has a step of its own
    taken_in = first_tokens_s([0.0] * 5, [100] * 5, send_s=1e-3, intake_s=1e-3, intake_token_s=1e-6)
    assert len(set(taken_in.tolist())) == 1
    alone_s = first_tokens_s([0.0], [500], intake_s=0.0)[0]
    last_s = first_tokens_s([0.0], [500], intake_s=5e-3, intake_token_s=1e-6)[0]
    assert last_s - alone_s == pytest.approx(5e-3 + 500 * 1e-6)


def test_how_the_time_is_cut_does_not_matter_while_requests_are_taken_in() -> None:
    trace = toy_trace([0.0] * 12, [500] * 12, [9] * 12)
    engines = [
        SimulatedEngine(trace, EngineOptions(), toy_table(send_s=2e-4, intake_s=3e-4, intake_token_s=1e-6))
        for _ in range(2)
    ]
    for engine in engines:
        engine.submit(np.arange(12), trace.arrival_s)
    for cut_s in np.arange(0.0, 5.0, 0.0003).tolist():
        engines[0].advance_past_finishes(cut_s)
    for engine in engines:
        engine.advance_past_finishes(math.inf)
    assert engines[0].finished_s.tolist() == engines[1].finished_s.tolist()
    assert engines[0].energy_j == pytest.approx(engines[1].energy_j)
