"""What the engine tells about its steps, for those who ask: one row a step, one row a request in a step."""

from sim.compiled import compiled
from sim.engine_state import (
    ARRIVED,
    EVENTS_TOLD,
    GPU_END_S,
    GPU_START_S,
    PIECES,
    PREEMPTED,
    SCHEDULED,
    STEPS_TOLD,
    Engine,
)
from sim.gpu_step import Load
from sim.kv_blocks import blocks_for
from sim.scheduler_state import (
    BATCH_SIZE,
    BLOCKS,
    COMPUTED,
    CONTEXT,
    FREE_BLOCKS,
    ORDER,
    ROW,
    RUNNING,
    SCHEDULED_STEPS,
    SEAT,
    TOKENS,
    VICTIM_ROWS,
    VICTIMS,
    WAITING,
)


@compiled
def has_room(e: Engine) -> bool:
    """Say whether one more step can be told in full: at worst, every request arrives before it."""
    if e.number[PIECES] + 2 > len(e.pieces):
        return False
    if len(e.steps) == 0:
        return True
    most_events = len(e.scheduler.requests) + 2 * e.scheduler.rules.max_seqs
    return bool(e.number[STEPS_TOLD] < len(e.steps) and e.number[EVENTS_TOLD] + most_events <= len(e.events))


@compiled
def tell_arrival(e: Engine, row: int) -> None:
    """Tell that a request joined the waiting before the step that comes next."""
    if len(e.steps) > 0:
        tell_event(e, ARRIVED, row, 0, 0, 0)


@compiled
def tell_step(e: Engine, decided_s: float, load: Load) -> None:
    """Tell what the step just composed holds and whom it cost the seat."""
    if len(e.steps) == 0:
        return
    s = e.scheduler
    for place in range(s.number[VICTIMS]):
        tell_event(e, PREEMPTED, s.seating[VICTIM_ROWS, place], 0, 0, 0)
    for entry in range(s.number[BATCH_SIZE]):
        seat = s.batch[entry, SEAT]
        blocks = s.seats[seat, BLOCKS]
        tell_event(e, SCHEDULED, s.seats[seat, ROW], s.batch[entry, TOKENS], s.batch[entry, CONTEXT], blocks)
    tell_load(e, decided_s, load)


@compiled
def tell_run_step(e: Engine, decided_s: float, load: Load, step: int) -> None:
    """Tell the same of step number `step` of a decode run."""
    if len(e.steps) == 0:
        return
    s = e.scheduler
    for place in range(s.number[RUNNING]):
        seat = s.seating[ORDER, place]
        context = s.seats[seat, COMPUTED] + step
        tell_event(e, SCHEDULED, s.seats[seat, ROW], 1, context, blocks_for(context + 1, s.rules.block_size))
    tell_load(e, decided_s, load)


@compiled
def tell_load(e: Engine, decided_s: float, load: Load) -> None:
    """Add a row to `steps`; one that computes nothing starts and ends when it is decided."""
    step = e.steps[e.number[STEPS_TOLD]]
    e.number[STEPS_TOLD] += 1
    is_empty = load.chunks + load.decode_seqs == 0
    step[0] = decided_s
    step[1] = decided_s if is_empty else e.tally[GPU_START_S]
    step[2] = decided_s if is_empty else e.tally[GPU_END_S]
    step[3], step[4], step[5], step[6] = load.chunks, load.prefill_tokens, load.decode_seqs, load.kv_tokens
    step[7] = load.longest_tokens
    count = e.scheduler.number
    step[8], step[9], step[10] = count[FREE_BLOCKS], count[RUNNING], count[WAITING]


@compiled
def tell_event(e: Engine, kind: int, row: int, tokens: int, context: int, blocks: int) -> None:
    """Add a row to `events`; steps are numbered from 0."""
    event = e.events[e.number[EVENTS_TOLD]]
    e.number[EVENTS_TOLD] += 1
    step = e.scheduler.number[SCHEDULED_STEPS] - (0 if kind == ARRIVED else 1)
    event[0], event[1], event[2], event[3], event[4], event[5] = step, kind, row, tokens, context, blocks
