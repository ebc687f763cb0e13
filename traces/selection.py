"""A part of a trace, or the same trace faster or slower."""

import math
from dataclasses import replace

import numpy as np

from traces.trace import Floats, Trace


def select(
    trace: Trace,
    *,
    from_s: float | None = None,
    to_s: float | None = None,
    limit: int | None = None,
    stretch: float = 1.0,
) -> Trace:
    """Return the requests of a window of `trace`, then the first `limit` of them, then with times stretched.

    Args:
        trace: Sorted by arrival.
        from_s: Leave out what arrives before; this becomes time 0. None keeps the trace's own time 0.
        to_s: Leave out what arrives at or after this time of the trace.
        limit: Keep at most this many requests.
        stretch: Factor on arrivals, 0.25 is four times as fast; deadlines keep their distance to the arrival.

    Raises:
        ValueError: An option breaks its rule, or no request is left.
    """
    if not (math.isfinite(stretch) and stretch > 0):
        raise ValueError(f"stretch must be > 0, got {stretch:g}; 0.25 replays four times as fast")
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be >= 1 request, got {limit}")
    first, end = _window(trace, from_s, to_s)
    end = end if limit is None else min(end, first + limit)
    part = trace if (first, end) == (0, len(trace)) else trace.take(np.arange(first, end))
    zero_s = from_s or 0.0
    if zero_s == 0.0 and stretch == 1.0:
        return part
    arrival_s = (part.arrival_s - zero_s) * stretch
    return replace(part, arrival_s=arrival_s, deadline_s=_deadlines(part, arrival_s))


def _window(trace: Trace, from_s: float | None, to_s: float | None) -> tuple[int, int]:
    start_s = 0.0 if from_s is None else from_s
    end_s = math.inf if to_s is None else to_s
    if not (math.isfinite(start_s) and start_s >= 0):
        raise ValueError(f"from_s must be >= 0, got {start_s:g}")
    if not end_s > start_s:
        raise ValueError(f"to_s must be later than from_s, got {end_s:g} after {start_s:g}")
    first, end = np.searchsorted(trace.arrival_s, [start_s, end_s]).tolist()
    if first == end:
        span = f"{trace.arrival_s[0]:g} to {trace.arrival_s[-1]:g} s" if len(trace) else "no time at all"
        raise ValueError(
            f"no request arrives from {start_s:g} to {end_s:g} s; the trace {trace.name} covers {span}"
        )
    return first, end


def _deadlines(part: Trace, arrival_s: Floats) -> Floats | None:
    return None if part.deadline_s is None else arrival_s + (part.deadline_s - part.arrival_s)
