"""What the drivers feed to the gateway: the trace's requests, one by one, as objects."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from sim.policy import Policy
from traces.trace import Request, Trace

CHUNK = 4096
RETIMED = "The policy takes the trace as one batch: every arrival was set to 0 s, latencies count from there."


def as_offered(trace: Trace, policy: Policy) -> Trace:
    """Return the trace as the policy is to meet it: all at time 0 if the policy declares `retimes = True`.

    Deadlines keep their distance from the arrival.
    """
    if not getattr(policy, "retimes", False):
        return trace
    deadline_s = None if trace.deadline_s is None else trace.deadline_s - trace.arrival_s
    return replace(
        trace,
        arrival_s=np.zeros_like(trace.arrival_s),
        deadline_s=deadline_s,
        notes=(*trace.notes, RETIMED),
    )


def requests_of(trace: Trace) -> Iterator[Request]:
    """Yield the trace's requests in order; only a few at a time exist as objects."""
    plain = trace.prefix is None and trace.session_id is None and trace.deadline_s is None
    if not plain or trace.is_offline is not None:
        yield from map(trace.request, range(len(trace)))
        return
    for start in range(0, len(trace), CHUNK):
        rows = slice(start, start + CHUNK)
        columns = (trace.arrival_s[rows], trace.prompt_tokens[rows], trace.output_tokens[rows])
        for row, values in enumerate(zip(*(column.tolist() for column in columns), strict=True), start):
            yield Request(row, *values)
