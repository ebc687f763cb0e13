"""The gateway: what it holds, what it asks, what it refuses."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.gateway import Gateway, HeldRequests
from sim.policy import Decision, Held, HeldRequest


@dataclass(slots=True)
class Scripted:
    """Answers by a function and remembers what it was asked."""

    answer: Callable[[float, Held, int], Decision] = lambda *_: Decision()
    asked: list[tuple[float, int, int]] = field(default_factory=list)

    def decide(self, now_s: float, held: Held, running: int) -> Decision:
        self.asked.append((now_s, len(held), running))
        return self.answer(now_s, held, running)


def request(row: int, arrival_s: float = 0.0) -> HeldRequest:
    return HeldRequest(row, arrival_s, 10, 10)


def holding(count: int, answer: Callable[[float, Held, int], Decision]) -> Gateway:
    """Return a gateway that holds rows 0 to count - 1 and asks `answer` from then on."""
    policy = Scripted()
    gateway = Gateway(policy)
    for row in range(count):
        gateway.arrive(request(row), 0.0)
    policy.answer = answer
    return gateway


def test_asks_at_each_arrival_finish_and_alarm_with_what_is_held_and_running() -> None:
    policy = Scripted(lambda now_s, held, _: Decision(tuple(held)[:1], wake_at_s=now_s + 1))
    gateway = Gateway(policy)
    first = request(0)
    assert gateway.arrive(first, 0.5) == (first,)
    gateway.finish(1.0)
    gateway.alarm(2.0)
    assert policy.asked == [(0.5, 1, 0), (1.0, 0, 0), (2.0, 0, 0)]


def test_running_counts_released_less_finished() -> None:
    gateway = holding(3, lambda _, held, __: Decision(tuple(held)))
    gateway.arrive(request(3), 1.0)
    assert (gateway.running, len(gateway.held)) == (4, 0)
    gateway.finish(2.0)
    assert gateway.running == 3


def test_an_answer_replaces_the_alarm() -> None:
    policy = Scripted(lambda *_: Decision(wake_at_s=5.0))
    gateway = Gateway(policy)
    gateway.arrive(request(0), 1.0)
    assert gateway.wake_at_s == 5.0
    policy.answer = lambda *_: Decision()
    gateway.arrive(request(1), 2.0)
    assert gateway.wake_at_s is None


def test_an_alarm_never_rings_before_its_time_and_time_never_runs_backwards() -> None:
    policy = Scripted(lambda now_s, *_: Decision(wake_at_s=now_s + 4))
    gateway = Gateway(policy)
    gateway.arrive(request(0), 1.0)
    gateway.alarm(4.999999)
    gateway.arrive(request(1), 4.9999995)
    assert [now_s for now_s, _, _ in policy.asked] == [1.0, 5.0, 5.0]


@pytest.mark.parametrize("wake_at_s", [1.0, 0.5, float("nan"), float("inf"), -float("inf")])
def test_an_alarm_that_is_not_in_the_future_is_refused_by_name(wake_at_s: float) -> None:
    gateway = Gateway(Scripted(lambda *_: Decision(wake_at_s=wake_at_s)))
    with pytest.raises(ValueError, match=r"policy Scripted asked at 1\.0 s to be woken at .* must be after"):
        gateway.arrive(request(0), 1.0)


def test_releasing_what_is_not_held_is_refused_and_changes_nothing() -> None:
    stranger = request(7)
    gateway = holding(2, lambda _, held, __: Decision((held[0], stranger)))
    with pytest.raises(ValueError, match=r"policy Scripted released request 7 at 1\.0 s, which is not held"):
        gateway.arrive(request(2), 1.0)
    assert (len(gateway.held), gateway.running) == (3, 0)


def test_a_copy_of_a_held_request_is_not_held() -> None:
    gateway = holding(1, lambda _, held, __: Decision((replace(held[0], prompt_tokens=1),)))
    with pytest.raises(ValueError, match="not held"):
        gateway.arrive(request(1), 1.0)


def test_releasing_twice_is_refused() -> None:
    at_once = holding(1, lambda _, held, __: Decision((held[0], held[0])))
    with pytest.raises(ValueError, match="released a request twice"):
        at_once.arrive(request(1), 1.0)
    kept = request(0)
    again = Gateway(Scripted(lambda *_: Decision((kept,))))
    again.arrive(kept, 0.0)
    with pytest.raises(ValueError, match=r"request 0 at 1\.0 s, which is not held"):
        again.finish(1.0)


@pytest.mark.parametrize("answer", [None, (), "all"])
def test_an_answer_that_is_no_decision_is_refused(answer: object) -> None:
    gateway = Gateway(Scripted(lambda *_: answer))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="must return a Decision"):
        gateway.arrive(request(0), 0.0)


def test_a_policy_that_holds_on_for_ever_is_stuck() -> None:
    gateway = Gateway(Scripted())
    gateway.arrive(request(0), 0.0)
    gateway.arrive(request(1), 3.0)
    with pytest.raises(ValueError, match=r"policy Scripted is stuck at 3\.0 s: it holds 2 requests"):
        gateway.complete()


def test_a_policy_gets_stuck_at_the_last_finish_not_before() -> None:
    gateway = holding(2, lambda _, held, running: Decision((held[0],) if not running else ()))
    gateway.arrive(request(2), 0.0)
    gateway.complete()
    gateway.finish(1.0)
    silent = Scripted(lambda now_s, held, _: Decision((held[0],) if now_s == 0 else ()))
    gateway = Gateway(silent)
    gateway.arrive(request(0), 0.0)
    gateway.arrive(request(1), 1.0)
    gateway.complete()
    with pytest.raises(ValueError, match="stuck"):
        gateway.finish(2.0)


def test_waiting_for_more_arrivals_or_an_alarm_is_not_stuck() -> None:
    policy = Scripted(lambda *_: Decision(wake_at_s=9.0))
    gateway = Gateway(policy)
    gateway.arrive(request(0), 0.0)
    gateway.complete()
    policy.answer = lambda _, held, __: Decision(tuple(held))
    assert len(gateway.alarm(9.0)) == 1


def test_drivers_mistakes_are_refused() -> None:
    gateway = Gateway(Scripted())
    gateway.arrive(request(0), 0.0)
    with pytest.raises(ValueError, match="arrived already"):
        gateway.arrive(request(0), 1.0)
    with pytest.raises(ValueError, match="none runs"):
        gateway.finish(1.0)
    with pytest.raises(ValueError, match="none is set"):
        gateway.alarm(1.0)


@given(st.data())
def test_held_is_a_list_in_order_of_arrival_whatever_is_released(data: st.DataObject) -> None:
    expected: list[HeldRequest] = []
    released: list[HeldRequest] = []
    policy = Scripted(lambda *_: Decision(tuple(released)))
    gateway = Gateway(policy)
    for row in range(data.draw(st.integers(1, 12))):
        arriving = request(row)
        expected.append(arriving)
        released = data.draw(st.lists(st.sampled_from(expected), unique_by=id))
        assert list(gateway.arrive(arriving, float(row))) == released
        expected = [r for r in expected if r not in released]
        held = gateway.held
        assert list(held) == expected
        assert len(held) == len(expected)
        assert list(reversed(held)) == expected[::-1]
        assert [held[i] for i in range(len(held))] == expected
        assert [held[-1 - i] for i in range(len(held))] == expected[::-1]
        assert all(r in held for r in expected)
        assert not any(r in held for r in released)


def test_an_index_outside_the_held_is_refused() -> None:
    held = HeldRequests()
    for index in (0, -1):
        with pytest.raises(IndexError, match="0 requests are held"):
            held[index]


def test_the_view_is_handed_over_uncopied() -> None:
    seen: list[int] = []

    def answer(_: float, held: Held, __: int) -> Decision:
        seen.append(id(held))
        return Decision((held[0],) if len(held) > 2 else ())

    gateway = Gateway(Scripted(answer))
    for row in range(6):
        gateway.arrive(request(row), 0.0)
    assert set(seen) == {id(gateway.held)}
