"""The engine core's loop: take in what has arrived, decide a step, wait for the oldest one's output.

With async scheduling two steps are in flight: step k + 1 is decided when the output of step k - 1 has been
processed, while step k is on the GPU. Without, one step is in flight.
"""

from sim.compiled import compiled, compiled_entry
from sim.decode_run import may_run, next_input_s, run_decodes
from sim.engine_state import (
    FINISHED_NOW,
    FLIGHT_END_S,
    GPU_END_S,
    INPUT_HEAD,
    INPUT_TAIL,
    LINK_FREE_S,
    NOW_S,
    Engine,
)
from sim.gpu_step import load_of_batch, run_on_gpu, share_out
from sim.host_time import intake_s, process_s, woken_s
from sim.scheduler import has_requests, process_output, schedule
from sim.scheduler_state import (
    BATCH_SIZE,
    FINISHED_HEAD,
    FINISHED_S,
    FINISHED_TAIL,
    FLIGHT_SIZE,
    HEAD_BLOCKED,
    HELD,
    IN_FLIGHT,
    NEXT,
    NOBODY,
    OLDEST_FLIGHT,
    PROMPT_TOKENS,
    RUNNING,
    SPARE_SEATS,
    UNFLUSHED,
    WAITING,
)
from sim.seats import first_held, free_first_held
from sim.step_events import has_room, tell_arrival, tell_step
from sim.waiting import join, take_first

REACHED, FINISHED, FULL = range(3)


@compiled_entry
def advance(e: Engine, until_s: float, stops_at_finish: bool) -> int:
    """Go on to `until_s`, or only to the first finish at a client if that is before.

    Returns:
        FINISHED, with the rows in `outbox`; REACHED; or FULL if what is told has to be collected first.
    """
    while True:
        if stops_at_finish and e.scheduler.number[FINISHED_HEAD] != NOBODY and next_finish_s(e) <= until_s:
            take_finished(e, next_finish_s(e))
            return FINISHED
        if not has_room(e):
            return FULL
        if not went_on(e, until_s + e.host.submit_s):
            return REACHED


@compiled_entry
def earliest_finish_s(e: Engine) -> float:
    """Return when a last token can reach its client at the earliest, infinity if there is nothing to do."""
    if e.scheduler.number[FINISHED_HEAD] != NOBODY:
        return next_finish_s(e)
    if e.scheduler.number[IN_FLIGHT] > 0 or has_requests(e.scheduler):
        return float(e.tally[NOW_S] + e.host.deliver_s)
    return float(max(next_input_s(e), e.tally[NOW_S]) + e.host.deliver_s)


@compiled
def next_finish_s(e: Engine) -> float:
    """Return when the next request that has finished is known to its client; there is one."""
    return float(e.results[e.scheduler.number[FINISHED_HEAD], FINISHED_S])


@compiled_entry
def take_finished(e: Engine, until_s: float) -> None:
    """Write the rows that finish up to `until_s` into `outbox`, as many as fit."""
    s = e.scheduler
    taken = 0
    while taken < len(e.outbox) and s.number[FINISHED_HEAD] != NOBODY and next_finish_s(e) <= until_s:
        e.outbox[taken] = take_first(s.requests, s.number, FINISHED_HEAD, FINISHED_TAIL)
        taken += 1
    e.number[FINISHED_NOW] = taken


@compiled
def went_on(e: Engine, open_until_s: float) -> bool:
    """Do what the engine core does next, unless it is a decision at `open_until_s` or later.

    A request submitted later can reach the engine core as early as that, and must be seen by the decision.
    """
    s = e.scheduler
    if s.number[IN_FLIGHT] == s.rules.depth:
        process_oldest(e)
        return True
    if s.number[IN_FLIGHT] == 0 and not has_requests(s):
        if e.number[INPUT_HEAD] == NOBODY:
            return False
        input_s = next_input_s(e)
        if input_s > e.tally[NOW_S]:
            e.tally[NOW_S] = input_s + woken_s(e.host, input_s - e.tally[NOW_S])
    if waits_for_held_blocks(e):
        change_s = min(e.results[first_held(s), FINISHED_S], next_input_s(e))
        if change_s >= open_until_s:
            return False
        e.tally[NOW_S] = max(e.tally[NOW_S], change_s)
    if e.tally[NOW_S] >= open_until_s:
        return False
    take_in(e)
    if e.tally[NOW_S] >= open_until_s:
        return False
    if s.number[HELD] > 0:
        free_sent(e, e.tally[NOW_S])
    if has_requests(s):
        decide(e, open_until_s)
    else:
        process_oldest(e)
    return True


@compiled
def waits_for_held_blocks(e: Engine) -> bool:
    """Say whether steps would be empty until held blocks are free or somebody else comes."""
    number = e.scheduler.number
    is_in_flight = number[IN_FLIGHT] > 0 and number[FLIGHT_SIZE + number[OLDEST_FLIGHT]] > 0
    is_idle = number[RUNNING] == 0 and number[UNFLUSHED] == 0 and not is_in_flight
    is_refused = number[HEAD_BLOCKED] == 1 or number[SPARE_SEATS] == 0
    return bool(number[HELD] > 0 and number[WAITING] > 0 and is_idle and is_refused)


@compiled_entry
def free_sent(e: Engine, now_s: float) -> None:
    """Free the held blocks of those whose KV has been sent by now."""
    s = e.scheduler
    while s.number[HELD] > 0 and e.results[first_held(s), FINISHED_S] <= now_s:
        free_first_held(s)


@compiled
def take_in(e: Engine) -> None:
    """Let the requests wait that have reached the engine core by now; it takes in one after the other."""
    while next_input_s(e) <= e.tally[NOW_S]:
        row = take_first(e.scheduler.requests, e.number, INPUT_HEAD, INPUT_TAIL)
        e.tally[NOW_S] += intake_s(e.host, e.scheduler.requests[row, PROMPT_TOKENS])
        join(e.scheduler, row)
        tell_arrival(e, row)


@compiled
def decide(e: Engine, open_until_s: float) -> None:
    """Schedule the next step, or as many as are alike."""
    if not may_run(e) or run_decodes(e, open_until_s) == 0:
        decide_step(e)


@compiled
def decide_step(e: Engine) -> None:
    """Schedule one step and run it; an empty one costs nothing and is done at once."""
    s = e.scheduler
    decided_s = e.tally[NOW_S]
    flight = (s.number[OLDEST_FLIGHT] + s.number[IN_FLIGHT]) % 2
    schedule(s)
    load = load_of_batch(e)
    e.tally[FLIGHT_END_S + flight] = decided_s
    if s.number[BATCH_SIZE] > 0:
        prefill_j, decode_j, kv_j = run_on_gpu(e, load)
        share_out(e, load, prefill_j, decode_j, kv_j)
        e.tally[FLIGHT_END_S + flight] = e.tally[GPU_END_S]
    tell_step(e, decided_s, load)


@compiled
def process_oldest(e: Engine) -> None:
    """Wait for the oldest step in flight and process its output."""
    s = e.scheduler
    oldest = s.number[OLDEST_FLIGHT]
    size = int(s.number[FLIGHT_SIZE + oldest])
    ended_s = max(e.tally[NOW_S], e.tally[FLIGHT_END_S + oldest])
    e.tally[NOW_S] = ended_s + e.host.output_s + process_s(e.host, size) if size > 0 else ended_s
    last_finished = s.number[FINISHED_TAIL]
    process_output(s, e.results, e.tally[NOW_S] + e.host.deliver_s)
    if s.rules.sends_kv:
        send_kv(e, s.number[FINISHED_HEAD] if last_finished == NOBODY else s.requests[last_finished, NEXT])


@compiled
def send_kv(e: Engine, row: int) -> None:
    """Send the KV of a request and of those behind it, which have finished; they finish when it arrives."""
    while row != NOBODY:
        begin_s = max(e.results[row, FINISHED_S], e.tally[LINK_FREE_S])
        free_s = begin_s + e.link.token_s * e.scheduler.requests[row, PROMPT_TOKENS]
        e.tally[LINK_FREE_S] = free_s
        e.results[row, FINISHED_S] = free_s + e.link.latency_s
        row = e.scheduler.requests[row, NEXT]
