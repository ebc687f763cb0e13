"""How evenly a machine's processors run: one loop, timed on each of them."""

import os
import time
from collections.abc import Callable

ROUNDS = 20_000
BEST_OF = 4
"""A round that something else broke into says nothing; the best of a few does."""


def _loop_s() -> float:
    begin_s = time.perf_counter()
    total = 0
    for number in range(ROUNDS):
        total += number * number
    return time.perf_counter() - begin_s


def processor_times_s(loop_s: Callable[[], float] = _loop_s) -> dict[int, float]:
    """Return what a loop takes on each processor that this process may use, seconds by its number.

    A core that runs somebody else's thread beside this one takes up to 1.8 times as long. Systems that do not
    let a process choose its processor (macOS) give nothing.

    Args:
        loop_s: Runs the loop and returns its time; by default one of integers, about 2 ms.
    """
    if not hasattr(os, "sched_setaffinity"):
        return {}
    allowed = os.sched_getaffinity(0)
    times_s = {}
    try:
        for processor in sorted(allowed):
            os.sched_setaffinity(0, {processor})
            times_s[processor] = min(loop_s() for _ in range(BEST_OF))
    finally:
        os.sched_setaffinity(0, allowed)
    return times_s
