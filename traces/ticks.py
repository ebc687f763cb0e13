"""Arrivals recorded on a coarse clock, spread over its ticks."""

import math
from dataclasses import replace

import numpy as np

from traces.trace import Trace


def spread(trace: Trace, spread_s: float, seed: int) -> Trace:
    """Return `trace` with each arrival drawn uniformly from its tick.

    A tick lasts from its recorded time for `spread_s`, or to the next recorded time if that comes first; the
    order of requests does not change, and deadlines keep their distance from the arrival.

    Args:
        trace: Sorted by arrival.
        spread_s: Length of a tick, in seconds.
        seed: Seed of the draws.

    Raises:
        ValueError: `spread_s` is not a positive number.
    """
    if not (math.isfinite(spread_s) and spread_s > 0):
        raise ValueError(f"the spread must be > 0 seconds, got {spread_s:g}")
    ticks_s, tick_of = np.unique(trace.arrival_s, return_inverse=True)
    lasts_s = np.minimum(np.append(np.diff(ticks_s), math.inf), spread_s)
    drawn_s = trace.arrival_s + np.random.default_rng(seed).random(len(trace)) * lasts_s[tick_of]
    arrival_s = np.sort(drawn_s)
    note = f"Arrivals spread over ticks of up to {spread_s:g} s, seed {seed}."
    return replace(
        trace,
        arrival_s=arrival_s,
        deadline_s=None if trace.deadline_s is None else trace.deadline_s - trace.arrival_s + arrival_s,
        notes=(*(one for one in trace.notes if "--spread" not in one), note),
    )
