"""The policy `deadline`: nobody is late who need not be, nobody goes before somebody has to."""

from dataclasses import replace
from pathlib import Path
from textwrap import dedent

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_table import toy_table
from toy_trace import toy_trace, traces

from sim import metrics
from sim.deadline import Deadline
from sim.gateway import Gateway
from sim.immediate import Immediate
from sim.length_prediction import predict_lengths
from sim.options import EngineOptions, FleetOptions
from sim.policy import HeldRequest
from sim.registry import make_policy, options_of
from sim.simulate import simulate
from sim.told_costs import tell_costs
from traces.record import Outcomes
from traces.trace import Trace

OPTIONS = EngineOptions()


def replayed(trace: Trace, policy: Deadline, replicas: int = 1) -> Outcomes:
    return simulate(trace, policy, OPTIONS, toy_table(), fleet=FleetOptions(replicas)).outcomes


@settings(deadline=None, max_examples=60)
@given(traces(longest_gap_s=3), st.sampled_from([0.5, 2.0, 7.0]), st.sampled_from([1, 3]))
def test_every_first_token_is_in_time_where_the_engine_can_do_it(
    trace: Trace, ttft_s: float, replicas: int
) -> None:
    assert (metrics.ttft_s(replayed(trace, Deadline(ttft_s), replicas)) <= ttft_s).all()


@settings(deadline=None, max_examples=60)
@given(traces(longest_gap_s=3), st.sampled_from([0.5, 2.0, 7.0]))
def test_requests_go_when_the_first_of_them_can_wait_no_longer(trace: Trace, ttft_s: float) -> None:
    outcomes = replayed(trace, Deadline(ttft_s, margin_s=0.0))
    for release_s in np.unique(outcomes.released_s):
        together = outcomes.released_s == release_s
        latest_s = metrics.ttft_s(outcomes)[together].max()
        assert latest_s > ttft_s - 0.08  # what the estimate keeps back for a capped clock and steps under way
        waiting = (outcomes.arrival_s < release_s) & (outcomes.released_s >= release_s)
        assert (waiting <= together).all()


def test_a_lone_request_waits_its_target_less_margin_and_prefill() -> None:
    (held_s,) = metrics.held_s(replayed(toy_trace([0.0], 100), Deadline(2.0, margin_s=0.25)))
    (at_once_s,) = metrics.ttft_s(simulate(toy_trace([0.0], 100), Immediate(), OPTIONS, toy_table()).outcomes)
    assert 1.75 - at_once_s - 0.01 < held_s < 1.75 - at_once_s + 1e-9


def test_a_prompt_longer_than_a_step_waits_too() -> None:
    options = EngineOptions(max_num_batched_tokens=256, max_num_seqs=8)
    trace = toy_trace([0.0, 5.0, 10.0], [300, 300, 700])
    outcomes = simulate(trace, Deadline(2.0), options, toy_table()).outcomes
    assert (metrics.ttft_s(outcomes) > 1.8).all()
    assert (metrics.ttft_s(outcomes) < 2.0).all()


def test_prompts_that_cannot_be_in_time_go_at_once() -> None:
    trace = toy_trace([float(second) for second in range(20)], 60_000)
    outcomes = replayed(trace, Deadline(2.0))
    late = metrics.ttft_s(outcomes) > 2.0
    assert late[10:].all()
    assert (metrics.held_s(outcomes)[10:] == 0.0).all()


def test_a_deadline_and_a_prediction_say_when_an_offline_request_has_to_begin() -> None:
    trace = replace(
        toy_trace([0.0, 1.0], 100, 40), is_offline=np.array([True, True]), deadline_s=np.array([60.0, 90.0])
    )
    assert (replayed(trace, Deadline(2.0)).released_s < 2.0).all()  # nobody predicts
    released_s = replayed(predict_lengths(trace, "oracle"), Deadline(2.0, tpot_s=0.5)).released_s
    assert 39.8 < released_s[0] == released_s[1] < 40.0 - 0.1
    online = replace(predict_lengths(trace, "oracle"), is_offline=None)
    assert (replayed(online, Deadline(2.0, tpot_s=0.5)).released_s < 2.0).all()


def test_without_a_table_it_is_refused() -> None:
    with pytest.raises(ValueError, match="policy Deadline estimates by a cost table, there is none"):
        tell_costs(Deadline(), None)
    with pytest.raises(ValueError, match="was not told what the engines cost; call learn_costs first"):
        Gateway(Deadline()).arrive(HeldRequest(0, 0.0, 10), 0.0)


def test_a_policy_in_a_file_is_told_the_costs_before_its_first_decision(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        dedent("""
        from dataclasses import dataclass
        from sim.policy import Decision

        @dataclass
        class Knowing:
            def learn_costs(self, costs):
                self.told = (costs.table.name, costs.options.max_num_seqs, costs.replicas)

            def decide(self, now_s, held, running):
                assert self.told == ("toy", 1024, 2)
                return Decision(tuple(held))
        """)
    )
    policy = make_policy(f"{path}:Knowing", {})
    simulate(toy_trace([0.0]), policy, OPTIONS, toy_table(), fleet=FleetOptions(2))
    assert options_of(policy) == {}


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"ttft_s": "0"}, "ttft_s must be > 0 and finite, got 0"),
        ({"tpot_s": "-1"}, "tpot_s must be >= 0 and finite, got -1"),
        ({"margin_s": "nan"}, "margin_s must be >= 0 and finite, got nan"),
    ],
)
def test_an_impossible_option_is_refused(option: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_policy("deadline", option)
