"""Simulated time: SimPy with events at exact times, in a stated order within one instant."""

from enum import IntEnum
from heapq import heappush

import simpy
from simpy.events import EventPriority


class Order(IntEnum):
    """What goes first of the things that happen at one instant."""

    FINISH = 0
    ARRIVAL = 1
    ALARM = 2


class Moment(simpy.Event):
    """An event that is certain to happen, at a time that its maker schedules."""

    def __init__(self, env: simpy.Environment) -> None:
        super().__init__(env)
        self._ok = True
        self._value = None


class Clock(simpy.Environment):
    """An environment that takes times as well as delays.

    `now + (at - now)` misses `at` by a rounding now and then, and no other delay need hit it. Releases at
    equal times on both clocks, and the order of what happens at one instant, need the time itself.
    """

    def at(self, time_s: float, order: Order) -> Moment:
        """Return an event that happens at `time_s`, not before now, at its place in that instant."""
        if not time_s >= self.now:
            raise ValueError(f"an event at {time_s} s is before now, {self.now} s; times only go forward")
        moment = Moment(self)
        heappush(self._queue, (time_s, EventPriority(order), next(self._eid), moment))
        return moment
