"""What a step costs: seconds and joules by what the step holds, compiled."""

from typing import NamedTuple

import numpy as np
from numba import njit

from traces.trace import Floats


class Coefficients(NamedTuple):
    """The fitted numbers of a cost table, as the compiled engine takes them.

    Attributes:
        knots: Tokens in a step at which the linear layers were fitted, ascending, shape (knots,).
        linear_s, linear_j: Seconds and joules of the linear layers at the knots, shape (knots,).
        per_chunk, per_pair, per_seq, per_kv: Seconds and joules for each prefill chunk, each query-key
            pair of prefill attention, each decoding sequence, each KV token read in decode, shape (2,).
        limits: Largest measured prefill tokens, decode sequences, KV tokens and pairs of a step, shape (4,).
        idle_w: Power without work, all GPUs, model loaded.
    """

    knots: Floats
    linear_s: Floats
    linear_j: Floats
    per_chunk: Floats
    per_pair: Floats
    per_seq: Floats
    per_kv: Floats
    limits: Floats
    idle_w: float


def new_state() -> Floats:
    """Return the state of a GPU at rest, which `step_cost` and `gap_energy` read and update."""
    return np.zeros(4)


@njit(cache=True)  # type: ignore[untyped-decorator]
def step_cost(
    c: Coefficients,
    state: Floats,
    chunks: int,
    prefill_tokens: int,
    prefill_pairs: float,
    decode_seqs: int,
    kv_tokens: int,
) -> tuple[float, float, float, float, bool]:
    """Return seconds, prefill joules, decode joules, the part of these read as KV, and whether unmeasured.

    Args:
        c: The cost table's numbers.
        state: The GPU's state, updated in place.
        chunks: Prefill chunks in the step.
        prefill_tokens: Tokens of all chunks.
        prefill_pairs: Query-key pairs of all chunks: tokens * (context before + (tokens + 1) / 2), summed.
        decode_seqs: Sequences that generate one token.
        kv_tokens: Tokens of KV they read, the new one included, summed.
    """
    tokens = float(prefill_tokens + decode_seqs)
    seconds = (
        np.interp(tokens, c.knots, c.linear_s)
        + c.per_chunk[0] * chunks
        + c.per_pair[0] * prefill_pairs
        + c.per_seq[0] * decode_seqs
        + c.per_kv[0] * kv_tokens
    )
    linear_j = np.interp(tokens, c.knots, c.linear_j)
    prefill_j = c.per_chunk[1] * chunks + c.per_pair[1] * prefill_pairs + linear_j * prefill_tokens / tokens
    kv_j = c.per_kv[1] * kv_tokens
    decode_j = c.per_seq[1] * decode_seqs + kv_j + linear_j * decode_seqs / tokens
    outside = (
        prefill_tokens > c.limits[0]
        or decode_seqs > c.limits[1]
        or kv_tokens > c.limits[2]
        or prefill_pairs > c.limits[3]
    )
    return seconds, prefill_j, decode_j, kv_j, outside


@njit(cache=True)  # type: ignore[untyped-decorator]
def gap_energy(c: Coefficients, state: Floats, gap_s: float) -> float:
    """Return the joules of `gap_s` seconds without a step, and let the GPU's state relax."""
    return c.idle_w * gap_s
