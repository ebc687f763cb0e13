"""The gateway: holds what has arrived and asks the policy what to release; it has no clock."""

from collections import OrderedDict
from collections.abc import Iterator
from itertools import islice

from sim.policy import Decision, HeldRequest, Policy


class HeldRequests:
    """The requests that wait, oldest first: the view that a policy is handed.

    Its length, either end and each step of an iteration cost O(1), however many wait. An index in between is
    a walk from the nearer end: iterate instead.
    """

    __slots__ = ("_by_id",)

    def __init__(self) -> None:
        self._by_id: OrderedDict[int, HeldRequest] = OrderedDict()

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[HeldRequest]:
        return iter(self._by_id.values())

    def __reversed__(self) -> Iterator[HeldRequest]:
        return reversed(self._by_id.values())

    def __contains__(self, request: object) -> bool:
        return isinstance(request, HeldRequest) and self._by_id.get(request.id) is request

    def __getitem__(self, index: int, /) -> HeldRequest:
        length = len(self._by_id)
        if not -length <= index < length:
            raise IndexError(f"{length} requests are held, there is none at {index}")
        from_start = index % length
        if from_start <= length // 2:
            return next(islice(self, from_start, None))
        return next(islice(reversed(self), length - 1 - from_start, None))

    def _add(self, request: HeldRequest) -> None:
        if request.id in self._by_id:
            raise ValueError(f"request {request.id} has arrived already; ids must be unique")
        self._by_id[request.id] = request

    def _remove(self, request: HeldRequest) -> None:
        del self._by_id[request.id]


class Gateway:
    """What stands before the engine: events in, released requests out.

    A driver tells it of each arrival, finish and alarm, one at a time, and submits what it answers. What
    happens at one instant is told in this order: finishes, arrivals, alarm. Each answer replaces the alarm.
    The time that the policy sees never runs backwards, and an alarm never rings early: clocks round.

    Attributes:
        held: What has arrived and is not released.
        running: Requests released and not finished.
        wake_at_s: When to ring the alarm if nothing happens before, None for never.
    """

    __slots__ = ("_complete", "_name", "_now_s", "_policy", "held", "running", "wake_at_s")

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._name = type(policy).__name__
        self._now_s = 0.0
        self._complete = False
        self.held = HeldRequests()
        self.running = 0
        self.wake_at_s: float | None = None

    def arrive(self, request: HeldRequest, now_s: float) -> tuple[HeldRequest, ...]:
        """Take in `request` and return what the policy releases.

        Raises:
            ValueError: A request of this id is held already, or the policy breaks a rule.
        """
        self.held._add(request)
        return self._ask(now_s)

    def finish(self, now_s: float) -> tuple[HeldRequest, ...]:
        """Note that one request has left the engine, served or failed; return what the policy releases."""
        if self.running == 0:
            raise ValueError(f"a request finished at {now_s} s, but none runs; tell of each finish once")
        self.running -= 1
        return self._ask(now_s)

    def alarm(self, now_s: float) -> tuple[HeldRequest, ...]:
        """Wake the policy at the later of `now_s` and the time it asked for, and return what it releases."""
        if self.wake_at_s is None:
            raise ValueError(f"an alarm rang at {now_s} s, but none is set; ring it only at wake_at_s")
        return self._ask(max(now_s, self.wake_at_s))

    def complete(self) -> None:
        """Note that nothing further will arrive; from now on a policy that holds on for ever is an error."""
        self._complete = True
        self._check_not_stuck()

    def _ask(self, now_s: float) -> tuple[HeldRequest, ...]:
        self._now_s = max(self._now_s, now_s)
        decision = self._policy.decide(self._now_s, self.held, self.running)
        self._check(decision)
        for request in decision.release:
            self.held._remove(request)
        self.running += len(decision.release)
        self.wake_at_s = decision.wake_at_s
        if self._complete:
            self._check_not_stuck()
        return decision.release

    def _check(self, decision: object) -> None:
        if not isinstance(decision, Decision):
            raise ValueError(f"policy {self._name} answered {decision!r}; decide() must return a Decision")
        for request in decision.release:
            if request not in self.held:
                self._refuse_release(request)
        if len(decision.release) > 1 and len({r.id for r in decision.release}) < len(decision.release):
            raise ValueError(
                f"policy {self._name} released a request twice at {self._now_s} s; release each request once"
            )
        # Written so that NaN is refused too.
        if decision.wake_at_s is not None and not self._now_s < decision.wake_at_s < float("inf"):
            raise ValueError(
                f"policy {self._name} asked at {self._now_s} s to be woken at {decision.wake_at_s} s; "
                "wake_at_s must be after now_s and finite, or None"
            )

    def _refuse_release(self, request: object) -> None:
        what = f"request {request.id}" if isinstance(request, HeldRequest) else repr(request)
        raise ValueError(
            f"policy {self._name} released {what} at {self._now_s} s, which is not held; "
            "release requests out of `held`, each once"
        )

    def _check_not_stuck(self) -> None:
        if self.held and self.running == 0 and self.wake_at_s is None:
            raise ValueError(
                f"policy {self._name} is stuck at {self._now_s} s: it holds {len(self.held)} requests, "
                "nothing runs, nothing will arrive and no alarm is set; release them or set wake_at_s"
            )
