"""A step on the GPU: when it runs, what it costs, and whose energy that is."""

from typing import NamedTuple

from sim.compiled import compiled, compiled_entry
from sim.engine_state import (
    DECODE_J,
    EXECUTED_STEPS,
    GPU_END_S,
    GPU_START_S,
    IDLE_J,
    IDLE_S,
    NEXT_TICK_S,
    NOW_S,
    OUTSIDE_STEPS,
    PIECES,
    PREFILL_J,
    STANDBY_J,
    TICK_S,
    Engine,
)
from sim.host_time import launch_s, lead_s
from sim.scheduler_state import BATCH_SIZE, CONTEXT, ENERGY_J, PREFILL_UNTIL, ROW, SEAT, TOKENS
from sim.step_cost import gap_energy, step_cost


class Load(NamedTuple):
    """What a step holds: the arguments of `step_cost`."""

    chunks: int
    prefill_tokens: int
    prefill_pairs: float
    decode_seqs: int
    kv_tokens: int
    longest_tokens: int


@compiled
def load_of_batch(e: Engine) -> Load:
    """Sum up the composed step.

    Who still computes its prompt, or recomputes after a preemption, is a chunk; the others decode.
    """
    batch, seats = e.scheduler.batch, e.scheduler.seats
    chunks = prefill_tokens = doubled_pairs = decode_seqs = kv_tokens = longest_tokens = 0
    for entry in range(e.scheduler.number[BATCH_SIZE]):
        tokens, context = batch[entry, TOKENS], batch[entry, CONTEXT]
        if context < seats[batch[entry, SEAT], PREFILL_UNTIL]:
            chunks += 1
            prefill_tokens += tokens
            doubled_pairs += tokens * (2 * context + tokens + 1)
        else:
            decode_seqs += 1
            kv_tokens += context + 1
            longest_tokens = max(longest_tokens, context + 1)
    return Load(chunks, prefill_tokens, 0.5 * doubled_pairs, decode_seqs, kv_tokens, longest_tokens)


@compiled
def run_on_gpu(e: Engine, load: Load) -> tuple[float, float, float]:
    """Launch a step now and run it as soon as the GPU is free and its first kernel is there.

    The engine core's thread is busy until the last kernel is launched; the step cannot end before.

    Returns:
        Joules by its chunks, joules by its decoding sequences, and the part of these for reading KV.
    """
    decided_s = e.tally[NOW_S]
    first_kernel_s = decided_s + lead_s(e.host, load.chunks, load.prefill_tokens, load.decode_seqs)
    e.tally[NOW_S] = decided_s + launch_s(e.host, load.chunks, load.prefill_tokens, load.decode_seqs)
    start_s = max(e.tally[GPU_END_S], first_kernel_s)
    rest_until(e, start_s)
    seconds, prefill_j, decode_j, kv_j, is_outside = step_cost(
        e.coefficients,
        e.gpu,
        load.chunks,
        load.prefill_tokens,
        load.prefill_pairs,
        load.decode_seqs,
        load.kv_tokens,
        load.longest_tokens,
        e.tally[NOW_S] - start_s,
    )
    before_j = total_j(e)
    e.tally[PREFILL_J] += prefill_j
    e.tally[DECODE_J] += decode_j
    e.tally[GPU_START_S] = start_s
    e.tally[GPU_END_S] = start_s + seconds
    note_power(e, start_s, before_j)
    e.number[EXECUTED_STEPS] += 1
    if is_outside:
        e.number[OUTSIDE_STEPS] += 1
    return prefill_j, decode_j, kv_j


@compiled_entry
def rest_until(e: Engine, start_s: float) -> None:
    """Let the GPU wait until `start_s`; that energy is nobody's."""
    end_s = e.tally[GPU_END_S]
    if start_s > end_s:
        before_j = total_j(e)
        e.tally[IDLE_J] += gap_energy(e.coefficients, e.gpu, start_s - end_s)
        e.tally[IDLE_S] += start_s - end_s
        e.tally[GPU_END_S] = start_s
        note_power(e, end_s, before_j)


@compiled_entry
def stand_by_until(e: Engine, until_s: float, joules: float) -> None:
    """Let the GPU take `joules` until `until_s`, and the engine core do nothing before."""
    end_s, before_j = e.tally[GPU_END_S], total_j(e)
    e.tally[STANDBY_J] += joules
    e.tally[GPU_END_S] = until_s
    e.tally[NOW_S] = max(e.tally[NOW_S], until_s)
    e.gpu[:] = 0.0
    note_power(e, end_s, before_j)


@compiled
def total_j(e: Engine) -> float:
    """Return the energy since time 0."""
    return float(e.tally[PREFILL_J] + e.tally[DECODE_J] + e.tally[IDLE_J] + e.tally[STANDBY_J])


@compiled
def note_power(e: Engine, from_s: float, from_j: float) -> None:
    """Keep the stretch from `from_s` to the GPU's present if a power sample falls into it."""
    to_s = e.tally[GPU_END_S]
    if to_s < e.tally[NEXT_TICK_S]:
        return
    piece = e.pieces[e.number[PIECES]]
    piece[0], piece[1], piece[2], piece[3] = from_s, from_j, to_s, total_j(e)
    e.number[PIECES] += 1
    e.tally[NEXT_TICK_S] = (to_s // e.tally[TICK_S] + 1) * e.tally[TICK_S]


@compiled
def share_out(e: Engine, load: Load, prefill_j: float, decode_j: float, kv_j: float) -> None:
    """Give each request of the composed step its share of the energy.

    Chunks share `prefill_j` by their tokens. Decoding sequences share `kv_j` by the KV tokens that they read
    and the rest of `decode_j` equally.
    """
    batch, seats = e.scheduler.batch, e.scheduler.seats
    each_j = (decode_j - kv_j) / max(load.decode_seqs, 1)
    kv_token_j = kv_j / max(load.kv_tokens, 1)
    prefill_token_j = prefill_j / max(load.prefill_tokens, 1)
    for entry in range(e.scheduler.number[BATCH_SIZE]):
        seat, context = batch[entry, SEAT], batch[entry, CONTEXT]
        if context < seats[seat, PREFILL_UNTIL]:
            add_energy(e, seats[seat, ROW], prefill_token_j * batch[entry, TOKENS])
        else:
            add_energy(e, seats[seat, ROW], each_j + kv_token_j * (context + 1))


@compiled
def add_energy(e: Engine, row: int, joules: float) -> None:
    """Add to a request's share, which is NaN until then."""
    so_far_j = e.results[row, ENERGY_J]
    e.results[row, ENERGY_J] = joules if so_far_j != so_far_j else so_far_j + joules
