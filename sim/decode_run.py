"""Decode runs: steps in which nobody comes, goes or prefills, which differ only in their KV tokens.

A step of a run takes the same few operations however many requests decode; the requests themselves are
brought up to date once, at the end of the run. Every step is decided at the same moment and costs the same as
it would be one by one.
"""

from typing import NamedTuple

import numpy as np

from sim.compiled import compiled
from sim.engine_state import FLIGHT_END_S, GPU_END_S, INPUT_HEAD, NOW_S, RUNS_ALLOWED, Engine
from sim.gpu_step import Load, add_energy, run_on_gpu
from sim.host_time import process_s
from sim.kv_blocks import take_blocks
from sim.scheduler import begin_step, note_known_blocks
from sim.scheduler_state import (
    BLOCKS,
    COMPUTED,
    CROSSERS,
    FREE_BLOCKS,
    HEAD_BLOCKED,
    IN_FLIGHT,
    INPUT_S,
    NOBODY,
    OLDEST_FLIGHT,
    ORDER,
    OUTPUT_TOKENS,
    PROMPT_TOKENS,
    RECEIVED,
    ROW,
    RUNNING,
    STEADY,
    WAITING,
    Scheduler,
)
from sim.step_events import has_room, tell_run_step


class Shares(NamedTuple):
    """Sums over the steps of a run, from which each request's share follows.

    Attributes:
        each_j: Joules that every sequence gets.
        kv_token_j: Joules for each KV token that a sequence had at the run's first step.
        growth_j: Joules for the KV tokens that it has gained since: one more in each step.
    """

    each_j: float
    kv_token_j: float
    growth_j: float


@compiled
def may_run(e: Engine) -> bool:
    """Say whether the next step is one token for every running request, like the last one."""
    s = e.scheduler
    if s.number[STEADY] == 0 or s.number[IN_FLIGHT] != s.rules.depth - 1 or e.number[RUNS_ALLOWED] == 0:
        return False
    running = s.number[RUNNING]
    admits = s.number[WAITING] > 0 and running < min(s.rules.max_seqs, s.rules.budget)
    return running > 0 and (not admits or s.number[HEAD_BLOCKED] == 1)


@compiled
def run_decodes(e: Engine, open_until_s: float) -> int:
    """Run the decode steps that are decided before `open_until_s` and before anything else happens.

    Returns:
        How many there were.
    """
    s = e.scheduler
    most = longest_run(s)
    kv_tokens, longest_tokens = kv_tokens_of_next_step(s)
    find_crossings(s)
    before_s = min(open_until_s, next_input_s(e))
    running = s.number[RUNNING]
    steps = 0
    each_j = kv_token_j = growth_j = 0.0
    while steps < most and has_room(e) and (steps == 0 or e.tally[NOW_S] < before_s):
        if not took_new_blocks(s, steps):
            break
        begin_step(s)
        decided_s = e.tally[NOW_S]
        load = Load(0, 0, 0.0, running, kv_tokens, longest_tokens)
        _, decode_j, kv_j = run_on_gpu(e, load)
        each_j += (decode_j - kv_j) / running
        kv_token_j += kv_j / kv_tokens
        growth_j += kv_j / kv_tokens * steps
        tell_run_step(e, decided_s, load, steps)
        wait_for_oldest(e)
        kv_tokens += running
        longest_tokens += 1
        steps += 1
    update_requests(e, steps, Shares(each_j, kv_token_j, growth_j))
    return steps


@compiled
def longest_run(s: Scheduler) -> int:
    """Return how many steps every running request can still take before the first one has its last token."""
    least = np.iinfo(np.int64).max
    for place in range(s.number[RUNNING]):
        seat = s.seating[ORDER, place]
        row = s.seats[seat, ROW]
        most = s.requests[row, PROMPT_TOKENS] + s.requests[row, OUTPUT_TOKENS]
        least = min(least, most - 1 - s.seats[seat, COMPUTED])
    return least if s.rules.depth == 2 else least - 1


@compiled
def kv_tokens_of_next_step(s: Scheduler) -> tuple[int, int]:
    """Return the KV tokens that the running requests read in the next step, the new ones included.

    Returns:
        Their sum, and those of the request with the most.
    """
    kv_tokens = longest_tokens = 0
    for place in range(s.number[RUNNING]):
        tokens = s.seats[s.seating[ORDER, place], COMPUTED] + 1
        kv_tokens += tokens
        longest_tokens = max(longest_tokens, tokens)
    return kv_tokens, longest_tokens


@compiled
def find_crossings(s: Scheduler) -> None:
    """Sort the running seats by the step of a run in which they first want a new block, into CROSSERS."""
    block_size = s.rules.block_size
    s.crossing[:] = 0
    for place in range(s.number[RUNNING]):
        s.crossing[first_crossing(s, s.seating[ORDER, place])] += 1
    end = 0
    for step in range(block_size + 1):
        end += s.crossing[step]
        s.crossing[step] = end
    for place in range(s.number[RUNNING] - 1, -1, -1):
        step = first_crossing(s, s.seating[ORDER, place])
        s.crossing[step] -= 1
        s.seating[CROSSERS, s.crossing[step]] = s.seating[ORDER, place]


@compiled
def first_crossing(s: Scheduler, seat: int) -> int:
    """Return the step of a run in which a sequence first wants a new block."""
    return int(-s.seats[seat, COMPUTED] % s.rules.block_size)


@compiled
def took_new_blocks(s: Scheduler, step: int) -> bool:
    """Give a block to each sequence that wants one in this step of a run, if there are as many."""
    first = s.crossing[step % s.rules.block_size]
    behind = s.crossing[step % s.rules.block_size + 1]
    if behind - first > s.number[FREE_BLOCKS]:
        return False
    if s.rules.caches:
        for place in range(first, behind):
            take_blocks(s, s.seating[CROSSERS, place], 1)
    else:
        s.number[FREE_BLOCKS] -= behind - first
    return True


@compiled
def next_input_s(e: Engine) -> float:
    """Return when the next request reaches the engine core, infinity if none is on its way."""
    row = e.number[INPUT_HEAD]
    return np.inf if row == NOBODY else float(e.results[row, INPUT_S])


@compiled
def wait_for_oldest(e: Engine) -> None:
    """Wait for the output of the oldest step in flight, the one just launched being the newest."""
    ended_s = e.tally[GPU_END_S]
    if e.scheduler.rules.depth == 2:
        flight = FLIGHT_END_S + e.scheduler.number[OLDEST_FLIGHT]
        ended_s, e.tally[flight] = e.tally[flight], ended_s
    output_s = max(e.tally[NOW_S], ended_s) + e.host.output_s
    e.tally[NOW_S] = output_s + process_s(e.host, e.scheduler.number[RUNNING])


@compiled
def update_requests(e: Engine, steps: int, shares: Shares) -> None:
    """Bring the running requests up to date with the run's steps."""
    if steps == 0:
        return
    s = e.scheduler
    block_size = s.rules.block_size
    for place in range(s.number[RUNNING]):
        seat = s.seating[ORDER, place]
        row = s.seats[seat, ROW]
        kv_tokens = s.seats[seat, COMPUTED] + 1
        add_energy(e, row, shares.each_j + shares.kv_token_j * kv_tokens + shares.growth_j)
        s.seats[seat, COMPUTED] += steps
        s.seats[seat, BLOCKS] = (s.seats[seat, COMPUTED] + block_size - 1) // block_size
        s.requests[row, RECEIVED] += steps
        note_known_blocks(s, seat)
