"""The simulated clock: a SimPy environment feeds the gateway, the engine runs ahead between events."""

from collections.abc import Callable, Generator, Sequence
from typing import Protocol

import numpy as np

from sim.arrivals import requests_of
from sim.clock import Clock, Moment, Order
from sim.gateway import Gateway
from sim.policy import HeldRequest, Policy
from traces.trace import Floats, Ints, Trace

Progress = Callable[[int], None]
"""Called with the number of requests that have just finished."""


class Advanced(Protocol):
    """How far an engine came."""

    @property
    def time_s(self) -> float:
        """The time reached."""
        ...

    @property
    def finished(self) -> Ints:
        """Rows of the trace whose last token reached the client at just that time."""
        ...


class Engine(Protocol):
    """What serves the released requests in simulated time."""

    @property
    def idle(self) -> bool:
        """Whether no submitted request is unfinished."""
        ...

    def submit(self, rows: Sequence[int] | Ints, at_s: float) -> None:
        """Take in rows of the trace, released at `at_s` in this order; times never decrease."""
        ...

    def advance(self, until_s: float) -> Advanced:
        """Run to the first finish or to `until_s`, whichever is first; decide nothing that happens later."""
        ...


class Driver:
    """One replay in simulated time.

    Nothing happens in the environment before its next event, so the engine may run to there on its own. What
    it finishes on the way becomes an event; single steps never do.
    """

    def __init__(
        self, trace: Trace, policy: Policy, engine: Engine, progress: Progress | None = None
    ) -> None:
        self._trace = trace
        self._engine = engine
        self._engine_s = 0.0
        self._progress = progress
        self._gateway = Gateway(policy)
        self._clock = Clock()
        self._alarm_s: float | None = None
        self._to_submit: list[int] = []
        self._all_arrived = False
        self._released_s: Floats = np.full(len(trace), np.nan)

    def run(self) -> Floats:
        """Replay the trace to the last finish and return when each request was released, shape (requests,).

        Raises:
            ValueError: The policy breaks a rule.
        """
        self._clock.process(self._arrivals())
        while not self._is_over:
            self._run_engine_ahead()
            self._clock.step()
        return self._released_s

    @property
    def _is_over(self) -> bool:
        return self._all_arrived and not self._gateway.held and self._gateway.running == 0

    def _arrivals(self) -> Generator[Moment, None, None]:
        for request in requests_of(self._trace):
            if request.arrival_s > self._clock.now:
                yield self._clock.at(request.arrival_s, Order.ARRIVAL)
            self._release(self._gateway.arrive(request, self._clock.now))
        self._all_arrived = True
        self._gateway.complete()

    def _run_engine_ahead(self) -> None:
        if self._to_submit:
            self._engine.submit(self._to_submit, self._clock.now)
            self._to_submit = []
        until_s = self._clock.peek()
        if self._engine.idle or until_s <= self._engine_s:
            return
        advanced = self._engine.advance(until_s)
        self._engine_s = advanced.time_s
        if len(advanced.finished):
            finish = self._clock.at(advanced.time_s, Order.FINISH)
            assert finish.callbacks is not None
            finish.callbacks.append(lambda _: self._finish(len(advanced.finished)))

    def _finish(self, count: int) -> None:
        for _ in range(count):
            self._release(self._gateway.finish(self._clock.now))
        if self._progress is not None:
            self._progress(count)

    def _release(self, requests: tuple[HeldRequest, ...]) -> None:
        rows = [request.id for request in requests]
        self._released_s[rows] = self._clock.now
        self._to_submit += rows
        self._set_alarm()

    def _set_alarm(self) -> None:
        wake_at_s = self._gateway.wake_at_s
        if wake_at_s is None or wake_at_s == self._alarm_s:
            return
        self._alarm_s = wake_at_s
        alarm = self._clock.at(wake_at_s, Order.ALARM)
        assert alarm.callbacks is not None
        alarm.callbacks.append(lambda _: self._ring(wake_at_s))

    def _ring(self, at_s: float) -> None:
        if at_s == self._alarm_s:
            self._alarm_s = None
        if at_s == self._gateway.wake_at_s:
            self._release(self._gateway.alarm(self._clock.now))
