"""What the drivers feed to the gateway: the trace's requests, one by one, as objects."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from sim.policy import HeldRequest, Policy
from traces.trace import Trace

CHUNK = 4096
RETIMED = "The policy takes the trace as one batch: every arrival was set to 0 s, latencies count from there."


def as_offered(trace: Trace, policy: Policy) -> Trace:
    """Return the trace as the policy is to meet it: all at time 0 if the policy declares `retimes = True`.

    Deadlines keep their distance from the arrival.

    Raises:
        ValueError: The policy declares `needs_prediction = True`, and nobody predicts output lengths.
    """
    ensure_predicted(trace, policy)
    if not getattr(policy, "retimes", False):
        return trace
    deadline_s = None if trace.deadline_s is None else trace.deadline_s - trace.arrival_s
    return replace(
        trace,
        arrival_s=np.zeros_like(trace.arrival_s),
        deadline_s=deadline_s,
        notes=(*trace.notes, RETIMED),
    )


def ensure_predicted(trace: Trace, policy: Policy) -> None:
    """Refuse a policy that declares `needs_prediction = True` if nobody predicts output lengths.

    Raises:
        ValueError: That is so.
    """
    if getattr(policy, "needs_prediction", False) and trace.predicted_output_tokens is None:
        raise ValueError(
            f"policy {type(policy).__name__} needs a prediction of output lengths, there is none; "
            "give --length-prediction oracle or noisy:cv=F"
        )


def held_request(trace: Trace, row: int) -> HeldRequest:
    """Return what a gateway may know of request `row`."""
    request, predicted = trace.request(row), trace.predicted_output_tokens
    return HeldRequest(
        id=row,
        arrival_s=request.arrival_s,
        prompt_tokens=request.prompt_tokens,
        predicted_output_tokens=None if predicted is None else int(predicted[row]),
        prefix_hashes=request.prefix_hashes,
        session_id=request.session_id,
        request_class=request.request_class,
        deadline_s=request.deadline_s,
    )


def requests_of(trace: Trace) -> Iterator[HeldRequest]:
    """Yield what a gateway may know of the requests, in order; only a few at a time exist as objects."""
    predicted = trace.predicted_output_tokens
    plain = trace.prefix is None and trace.session_id is None and trace.deadline_s is None
    if not plain or trace.is_offline is not None:
        yield from (held_request(trace, row) for row in range(len(trace)))
        return
    for start in range(0, len(trace), CHUNK):
        rows = slice(start, start + CHUNK)
        columns = [trace.arrival_s[rows].tolist(), trace.prompt_tokens[rows].tolist()]
        if predicted is not None:
            columns.append(predicted[rows].tolist())
        for row, values in enumerate(zip(*columns, strict=True), start):
            yield HeldRequest(row, *values)
