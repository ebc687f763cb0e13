"""What a policy is told of output lengths, and that it is told nothing else of them."""

import gc
from dataclasses import asdict, fields, replace
from itertools import permutations
from types import FunctionType, ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_engine import ToyEngine, ToyLiveEngine
from toy_policies import NEEDED
from toy_table import toy_table
from toy_trace import toy_trace, traces
from virtual_loop import run_virtually

from backends.live import LiveReplay
from sim.arrivals import as_offered, requests_of
from sim.driver import Driver
from sim.immediate import Immediate
from sim.length_prediction import predict_lengths
from sim.options import EngineOptions
from sim.policy import Decision, Held, HeldRequest, Policy
from sim.registry import SHIPPED, make_policy
from sim.told_costs import ToldCosts, tell_costs
from traces.trace import Request, Trace

every_policy = pytest.mark.parametrize("name", [*sorted(SHIPPED), "deadline+size-bins"])


def told(name: str) -> Policy:
    """Return a policy that knows what it may."""
    policy = make_policy(name, NEEDED.get(name, {}))
    tell_costs(policy, ToldCosts(toy_table(), EngineOptions()))
    return policy


class Noting:
    """Keeps a copy of all it is shown."""

    def __init__(self) -> None:
        self.seen: list[HeldRequest] = []

    def decide(self, now_s: float, held: Held, running: int) -> Decision:
        del now_s, running
        self.seen.extend(held)
        return Decision(tuple(held))


def shown(trace: Trace) -> tuple[list[HeldRequest], list[HeldRequest]]:
    """Return what a policy is shown in simulation and live."""
    simulated, live = Noting(), Noting()
    Driver(trace, simulated, ToyEngine(trace)).run()
    run_virtually(LiveReplay(trace, live, ToyLiveEngine()).run())
    return simulated.seen, live.seen


def full(trace: Trace) -> Trace:
    """Return the trace with every column that a trace can have, none of which tells the output."""
    count = len(trace)
    return replace(
        trace,
        session_id=np.array([f"s{row}" for row in range(count)], dtype=object),
        is_offline=np.arange(count) % 2 == 0,
        deadline_s=trace.arrival_s + 1e6,
    )


@given(outputs=st.lists(st.integers(1, 300), min_size=3, max_size=3), is_full=st.booleans())
def test_without_a_prediction_no_output_length_reaches_a_policy(outputs: list[int], is_full: bool) -> None:
    """Requests far apart: whatever the outputs are, all that a policy is shown is the same."""
    views = []
    for order in permutations(outputs):
        trace = toy_trace([0.0, 1e3, 2e3], [5, 6, 7], order)
        views.append(shown(full(trace) if is_full else trace))
    assert all(view == views[0] for view in views)
    assert len(views[0][0]) == len(views[0][1]) == 3


class Reaching:
    """Looks, at each question, at all that can be reached from what the policy has and is handed."""

    def __init__(self, inside: Policy) -> None:
        self._inside = inside
        self.found: set[type] = set()

    def decide(self, now_s: float, held: Held, running: int) -> Decision:
        self._look(held)
        decision = self._inside.decide(now_s, held, running)
        self._look(self._inside, decision)
        return decision

    def _look(self, *roots: object) -> None:
        seen, queue = set[int](), list(roots)
        while queue:
            thing = queue.pop()
            if id(thing) not in seen and not isinstance(thing, type | ModuleType | FunctionType):
                seen.add(id(thing))
                self.found.add(type(thing))
                queue += gc.get_referents(thing)


@every_policy
def test_nothing_that_knows_outputs_can_be_reached_from_a_policy(name: str) -> None:
    trace = full(toy_trace([0.0, 0.0, 0.5, 4.0], [40, 30, 20, 10], [5, 6, 7, 8]))
    reaching = Reaching(told(name))
    Driver(trace, reaching, ToyEngine(trace)).run()
    assert HeldRequest in reaching.found
    assert not reaching.found & {Trace, Request, Driver, ToyEngine}


@every_policy
@settings(deadline=None, max_examples=20)
@given(traces(longest_gap_s=3), st.booleans(), st.integers(0, 9))
def test_releases_depend_on_no_output_length_but_through_the_engine(
    name: str, trace: Trace, is_full: bool, seed: int
) -> None:
    """The engine takes the same time for every request, whatever the trace says of its output."""
    trace = full(trace) if is_full else trace
    shuffled = np.random.default_rng(seed).permutation(trace.output_tokens)
    other = replace(trace, output_tokens=shuffled)
    equal = ToyEngine(replace(trace, output_tokens=np.full_like(shuffled, 9)))
    again = ToyEngine(replace(trace, output_tokens=np.full_like(shuffled, 9)))
    Driver(trace, told(name), equal).run()
    Driver(other, told(name), again).run()
    assert equal.submitted == again.submitted


def test_a_held_request_has_no_field_for_the_true_length_and_takes_none() -> None:
    assert "output_tokens" not in {field.name for field in fields(HeldRequest)}
    request = next(requests_of(toy_trace([0.0])))
    assert type(request) is HeldRequest
    assert not hasattr(request, "__dict__")
    with pytest.raises(AttributeError):
        request.output_tokens  # type: ignore[attr-defined]  # noqa: B018


@given(traces(), st.booleans())
def test_a_held_request_is_what_the_trace_says_but_for_the_output(trace: Trace, is_full: bool) -> None:
    trace = predict_lengths(full(trace) if is_full else trace, "oracle")
    for row, request in enumerate(requests_of(trace)):
        told, expected = asdict(request), asdict(trace.request(row))
        assert told.pop("predicted_output_tokens") == expected.pop("output_tokens")
        assert told == expected


@given(traces(), st.sampled_from(["none", "oracle", "noisy:cv=0.5"]))
def test_both_clocks_show_the_same_predictions(trace: Trace, how: str) -> None:
    simulated, live = shown(predict_lengths(trace, how, seed=3))
    assert simulated == live
    assert all((request.predicted_output_tokens is None) == (how == "none") for request in simulated)


@pytest.mark.parametrize("cv", [0.2, 0.5, 1.0])
def test_noise_keeps_the_mean_and_has_the_stated_coefficient_of_variation(cv: float) -> None:
    """200,000 draws: the mean's standard error is below 0.3 %, that of the ratio below 2 %."""
    trace = predict_lengths(toy_trace(np.zeros(200_000).tolist(), 1, 1000), f"noisy:cv={cv}", seed=1)
    assert trace.predicted_output_tokens is not None
    ratio = trace.predicted_output_tokens / 1000
    assert ratio.mean() == pytest.approx(1.0, rel=0.012)
    assert ratio.std() == pytest.approx(cv, rel=0.08)


@given(traces(), st.integers(0, 5), st.integers(1, 20))
def test_noise_is_the_seeds_and_does_not_depend_on_later_requests(
    trace: Trace, seed: int, count: int
) -> None:
    whole = predict_lengths(trace, "noisy:cv=0.7", seed).predicted_output_tokens
    part = predict_lengths(trace.part(0, count), "noisy:cv=0.7", seed).predicted_output_tokens
    assert whole is not None
    assert part is not None
    assert (whole >= 1).all()
    assert whole[:count].tolist() == part.tolist()


def test_another_seed_draws_other_noise_and_the_note_says_which() -> None:
    trace = toy_trace([0.0] * 20, 1, 1000)
    one, two = (predict_lengths(trace, "noisy:cv=0.5", seed) for seed in (1, 2))
    assert one.predicted_output_tokens is not None
    assert two.predicted_output_tokens is not None
    assert one.predicted_output_tokens.tolist() != two.predicted_output_tokens.tolist()
    assert one.notes == ("Policies were told output lengths, predicted as noisy:cv=0.5, seed 1.",)
    assert predict_lengths(trace, "none").notes == ()


@pytest.mark.parametrize(
    "how", ["", "Oracle", "noisy", "noisy:cv=", "noisy:cv=-1", "noisy:cv=nan", "noisy:cv=inf"]
)
def test_an_unknown_prediction_is_refused_with_those_there_are(how: str) -> None:
    with pytest.raises(ValueError, match="must be none, oracle or noisy:cv=F, F >= 0, got"):
        predict_lengths(toy_trace([0.0]), how)


def test_a_policy_that_needs_a_prediction_is_refused_without_one_on_both_clocks() -> None:
    class Needing(Immediate):
        needs_prediction = True

    trace, message = toy_trace([0.0]), "policy Needing needs a prediction .* give --length-prediction"
    with pytest.raises(ValueError, match=message):
        as_offered(trace, Needing())
    with pytest.raises(ValueError, match=message):
        LiveReplay(trace, Needing(), ToyLiveEngine())
    predicted = predict_lengths(trace, "oracle")
    assert as_offered(predicted, Needing()) is predicted
