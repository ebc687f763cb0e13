"""What the engine's own processor time costs a step: launching kernels, processing outputs.

The engine core's main thread decides a step, launches it (busy until the last kernel is queued), waits for
the oldest step's output, processes it, and decides again. A step of one CUDA graph begins on the GPU when it
is launched; other steps begin while their later kernels are still being launched, and cannot end before.
"""

import math
from typing import NamedTuple

from sim.compiled import compiled_entry


class HostTime(NamedTuple):
    """Seconds outside the GPU, measured beside the steps.

    Attributes:
        lead_s: From a decision to the first kernel on the GPU, for steps that are not one graph.
        graph_s, piecewise_s, eager_s: From a decision to the last kernel launched: decode as one CUDA graph,
            steps with prefill as piecewise graphs, steps larger than the largest graph.
        per_token_s, per_seq_s: On top for each prefill token, and for each request in the step.
        process_s, process_seq_s: To process a step's output, and on top for each request in it.
        output_s: From the step's end on the GPU, or from when the thread waits for it if that is later, to
            its output at the engine core.
        submit_s: From the client's call to the request waiting in the engine core.
        deliver_s: From the engine core's output to the client.
        graph_tokens: Largest CUDA graph.
        submit_token_s: On top of `submit_s` for each prompt token.
        send_s: What the client takes to send a request before it sends the next.
        wake_s, wake_after_s: How much longer the first launch takes after a long wait for work, when the
            processor has gone to sleep, and the time constant with which a wait becomes long.
        intake_s, intake_token_s: What taking in a request keeps the thread from the next decision, and on top
            for each prompt token.
    """

    lead_s: float
    graph_s: float
    piecewise_s: float
    eager_s: float
    per_token_s: float
    per_seq_s: float
    process_s: float
    process_seq_s: float
    output_s: float
    submit_s: float
    deliver_s: float
    graph_tokens: int
    submit_token_s: float = 0.0
    send_s: float = 0.0
    wake_s: float = 0.0
    wake_after_s: float = 1.0
    intake_s: float = 0.0
    intake_token_s: float = 0.0


@compiled_entry
def launch_s(h: HostTime, chunks: int, prefill_tokens: int, decode_seqs: int) -> float:
    """Return how long after the decision the engine core's main thread is free again."""
    if prefill_tokens + decode_seqs > h.graph_tokens:
        base_s = h.eager_s
    elif chunks == 0:
        base_s = h.graph_s
    else:
        base_s = h.piecewise_s
    return base_s + h.per_token_s * prefill_tokens + h.per_seq_s * (chunks + decode_seqs)


@compiled_entry
def is_one_graph(h: HostTime, chunks: int, decode_seqs: int) -> bool:
    """Return whether a step is launched as a whole: it only decodes, and no more than the largest graph."""
    return chunks == 0 and decode_seqs <= h.graph_tokens


@compiled_entry
def lead_s(h: HostTime, chunks: int, prefill_tokens: int, decode_seqs: int) -> float:
    """Return how long after the decision the step can begin on a free GPU."""
    if is_one_graph(h, chunks, decode_seqs):
        return launch_s(h, chunks, prefill_tokens, decode_seqs)
    return h.lead_s + h.per_seq_s * (chunks + decode_seqs)


@compiled_entry
def woken_s(h: HostTime, waited_s: float) -> float:
    """Return what the first launch takes longer after the engine core has waited for work."""
    return h.wake_s * (1.0 - math.exp(-waited_s / h.wake_after_s))


@compiled_entry
def process_s(h: HostTime, seqs: int) -> float:
    """Return how long processing the output of a step of `seqs` requests takes."""
    return h.process_s + h.process_seq_s * seqs


@compiled_entry
def intake_s(h: HostTime, prompt_tokens: int) -> float:
    """Return how long taking in a request keeps the engine core's main thread."""
    return h.intake_s + h.intake_token_s * prompt_tokens
