"""Events at exact times, in a stated order within one instant."""

from enum import IntEnum
from math import inf, nextafter

import simpy
from simpy.events import EventPriority


class Order(IntEnum):
    """What goes first of the things that happen at one instant."""

    FINISH = 0
    ARRIVAL = 1
    ALARM = 2


class Moment(simpy.Event):
    """A SimPy event that happens at a given time.

    A `Timeout` would round, since it takes a delay, and could not be told its place among the events of its
    instant.
    """

    def __init__(self, env: simpy.Environment, at_s: float, order: Order) -> None:
        """Schedule the event.

        Args:
            env: The environment, whose time must not be after `at_s`.
            at_s: When it happens, at least 0, in seconds.
            order: Its place within that instant.
        """
        super().__init__(env)
        self._ok = True
        self._value = None
        env.schedule(self, EventPriority(order), delay_to(env.now, at_s))


def delay_to(now_s: float, at_s: float) -> float:
    """Return a delay that brings a clock from `now_s` exactly to `at_s`, both at least 0.

    `now_s + (at_s - now_s)` can miss `at_s` by one rounding; then a neighbour of the difference hits it.
    """
    delay_s = at_s - now_s
    while now_s + delay_s < at_s:
        delay_s = nextafter(delay_s, inf)
    while now_s + delay_s > at_s:
        delay_s = nextafter(delay_s, -inf)
    return delay_s
