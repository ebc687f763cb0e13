"""vLLM's V1 scheduler, rule by rule: which request computes how many tokens in the next step.

There is no prefill phase and no decode phase. A step gives each request some tokens so that what is computed
catches up with what it has; the step that makes it catch up samples one token more.
"""

from sim.compiled import compiled
from sim.kv_blocks import (
    blocks_to_admit,
    find_hits,
    missing_blocks,
    register_full_blocks,
    take_blocks,
    take_hits,
)
from sim.scheduler_state import (
    BATCH_SIZE,
    BRINGS_KV,
    BUDGET_LEFT,
    CACHED,
    CHUNK_LIMIT,
    COMPUTED,
    CONTEXT,
    FINISHED_HEAD,
    FINISHED_S,
    FINISHED_TAIL,
    FIRST_TOKEN_S,
    FLIGHT_SAMPLES,
    FLIGHT_SIZE,
    FREE_BLOCKS,
    HEAD_BLOCKED,
    IN_FLIGHT,
    NOBODY,
    OLDEST_FLIGHT,
    ORDER,
    OUTPUT_TOKENS,
    PREEMPTIONS,
    PREFILL_UNTIL,
    PROMPT_TOKENS,
    RECEIVED,
    ROW,
    RUNNING,
    SAMPLING,
    SCHEDULED_STEPS,
    SEAT,
    STEADY,
    TOKENS,
    UNFLUSHED,
    VICTIM_ROWS,
    VICTIMS,
    WAITING,
    Scheduler,
)
from sim.seats import close_ranks, has_seat, hold_blocks, leave_seat, take_seat
from sim.waiting import append, first, goes_before, leave, leave_first, rejoin
from traces.trace import Floats


@compiled
def has_requests(s: Scheduler) -> bool:
    """Say whether vLLM would schedule: somebody runs or waits, or a finish is not yet told to the workers."""
    return bool(s.number[RUNNING] > 0 or s.number[WAITING] > 0 or s.number[UNFLUSHED] > 0)


@compiled
def schedule(s: Scheduler) -> None:
    """Compose the next step and put it in flight: running requests first, then waiting ones."""
    begin_step(s)
    s.number[BATCH_SIZE] = 0
    s.number[VICTIMS] = 0
    s.number[BUDGET_LEFT] = s.rules.budget
    s.number[CHUNK_LIMIT] = chunk_limit(s)
    schedule_running(s)
    if s.number[VICTIMS] == 0:
        admit_waiting(s)
    launch(s)


@compiled
def chunk_limit(s: Scheduler) -> int:
    """Return the longest chunk of a prompt; newer versions set no limit for a request that is alone."""
    is_alone = s.number[RUNNING] + s.number[WAITING] <= 1
    return s.rules.budget if is_alone and s.rules.spares_lone_prompts else s.rules.longest_chunk


@compiled
def begin_step(s: Scheduler) -> None:
    """Count a step; it also tells the workers who finished."""
    s.number[SCHEDULED_STEPS] += 1
    s.number[UNFLUSHED] = 0


@compiled
def schedule_running(s: Scheduler) -> None:
    """Walk the running requests in order of admission while the budget lasts."""
    place = 0
    while place < s.number[RUNNING] and s.number[BUDGET_LEFT] > 0:
        seat = s.seating[ORDER, place]
        tokens = wanted_tokens(s, seat)
        if tokens == 0:
            place += 1
            continue
        place = make_room(s, place, tokens)
        if s.seats[seat, ROW] != NOBODY:
            extend(s, seat, tokens)
            place += 1
        elif not s.rules.outlives_own_preemption:
            return


@compiled
def make_room(s: Scheduler, place: int, tokens: int) -> int:
    """Preempt until the running request at `place` finds its blocks or is itself preempted.

    Returns:
        Where the walk goes on: victims ahead of it have moved it back.
    """
    seat = s.seating[ORDER, place]
    while s.seats[seat, ROW] != NOBODY and missing_blocks(s, seat, tokens) > s.number[FREE_BLOCKS]:
        victim = choose_victim(s)
        is_ahead = s.rules.always_steps_back and victim < place
        if was_withdrawn(s, s.seating[ORDER, victim]) or is_ahead:
            place -= 1
        preempt(s, victim)
    return place


@compiled
def wanted_tokens(s: Scheduler, seat: int) -> int:
    """Return how many tokens a running request computes in this step, 0 to leave it out.

    One whose last token is already being sampled is left out: that is known only for `max_tokens`, as here.
    """
    row, computed, sampling = s.seats[seat, ROW], s.seats[seat, COMPUTED], s.seats[seat, SAMPLING]
    most = s.requests[row, PROMPT_TOKENS] + s.requests[row, OUTPUT_TOKENS]
    if sampling > 0 and computed + 2 - sampling >= most:
        return 0
    behind = s.requests[row, PROMPT_TOKENS] + s.requests[row, RECEIVED] + sampling - computed
    return min(int(behind), int(s.number[CHUNK_LIMIT]), int(s.number[BUDGET_LEFT]))


@compiled
def choose_victim(s: Scheduler) -> int:
    """Return the place in `order` of who must give up its blocks: the last, or the one of least priority."""
    victim = int(s.number[RUNNING]) - 1
    if s.rules.by_priority:
        victim = 0
        for place in range(1, s.number[RUNNING]):
            if goes_before(
                s.requests, s.seats[s.seating[ORDER, victim], ROW], s.seats[s.seating[ORDER, place], ROW]
            ):
                victim = place
    return victim


@compiled
def was_withdrawn(s: Scheduler, seat: int) -> bool:
    """Take a victim out of the step being composed, its tokens back into the budget, if it is in it."""
    size = s.number[BATCH_SIZE]
    for entry in range(size):
        if s.batch[entry, SEAT] == seat:
            s.number[BUDGET_LEFT] += s.batch[entry, TOKENS]
            for later in range(entry + 1, size):
                s.batch[later - 1, SEAT] = s.batch[later, SEAT]
                s.batch[later - 1, TOKENS] = s.batch[later, TOKENS]
                s.batch[later - 1, CONTEXT] = s.batch[later, CONTEXT]
            s.number[BATCH_SIZE] = size - 1
            return True
    return False


@compiled
def preempt(s: Scheduler, place: int) -> None:
    """Send a running request back to wait, without blocks; it keeps its outputs and recomputes the rest."""
    seat = s.seating[ORDER, place]
    row = s.seats[seat, ROW]
    for later in range(place + 1, s.number[RUNNING]):
        s.seating[ORDER, later - 1] = s.seating[ORDER, later]
    s.number[RUNNING] -= 1
    leave_seat(s, seat, True)
    rejoin(s, row)
    s.seating[VICTIM_ROWS, s.number[VICTIMS]] = row
    s.number[VICTIMS] += 1
    s.number[PREEMPTIONS] += 1


@compiled
def admit_waiting(s: Scheduler) -> None:
    """Admit from the head of the waiting while there are seats, budget and blocks; nobody overtakes it.

    All that a request has must find blocks, though they are taken only as it is computed. One that brings
    its prompt's KV has only the last token to compute, as in vLLM, which samples its first output from that.
    """
    while s.number[WAITING] > 0 and s.number[BUDGET_LEFT] > 0 and has_seat(s):
        row = first(s)
        length = s.requests[row, PROMPT_TOKENS] + s.requests[row, RECEIVED]
        hits = find_hits(s, row, length)
        brought = length - 1 if s.requests[row, BRINGS_KV] == 1 else 0
        cached = max(hits * s.rules.block_size, brought)
        tokens = min(length - cached, s.number[CHUNK_LIMIT])
        is_refused = tokens > s.number[BUDGET_LEFT] and not s.rules.chunks_prompts
        if is_refused or blocks_to_admit(s, length, hits) > s.number[FREE_BLOCKS]:
            s.number[HEAD_BLOCKED] = 1
            return
        leave_first(s)
        seat = take_seat(s, row, length - s.requests[row, BRINGS_KV])
        s.requests[row, BRINGS_KV] = 0
        take_hits(s, seat, hits)
        s.seats[seat, COMPUTED] = cached
        extend(s, seat, min(tokens, s.number[BUDGET_LEFT]))


@compiled
def extend(s: Scheduler, seat: int, tokens: int) -> None:
    """Let the request compute `tokens` in the step being composed, with the blocks that this takes."""
    take_blocks(s, seat, missing_blocks(s, seat, tokens))
    register_full_blocks(s, seat, tokens)
    add_to_batch(s, seat, tokens)


@compiled
def add_to_batch(s: Scheduler, seat: int, tokens: int) -> None:
    """Let the request compute `tokens` in the step being composed."""
    entry = s.number[BATCH_SIZE]
    s.batch[entry, SEAT] = seat
    s.batch[entry, TOKENS] = tokens
    s.batch[entry, CONTEXT] = s.seats[seat, COMPUTED]
    s.number[BATCH_SIZE] = entry + 1
    s.number[BUDGET_LEFT] -= tokens


@compiled
def launch(s: Scheduler) -> None:
    """Put the composed step in flight: count its tokens as computed and note who samples one."""
    flight = (s.number[OLDEST_FLIGHT] + s.number[IN_FLIGHT]) % 2
    s.number[IN_FLIGHT] += 1
    samples = decodes = 0
    for entry in range(s.number[BATCH_SIZE]):
        seat = s.batch[entry, SEAT]
        row = s.seats[seat, ROW]
        s.seats[seat, COMPUTED] += s.batch[entry, TOKENS]
        prompt = s.requests[row, PROMPT_TOKENS]
        if s.seats[seat, COMPUTED] >= prompt + s.requests[row, RECEIVED] + s.seats[seat, SAMPLING]:
            s.seats[seat, SAMPLING] += 1
            s.flights[flight, samples, SEAT] = seat
            s.flights[flight, samples, ROW] = row
            samples += 1
        if s.batch[entry, CONTEXT] >= max(s.seats[seat, PREFILL_UNTIL], prompt):
            decodes += 1
    s.number[FLIGHT_SIZE + flight] = s.number[BATCH_SIZE]
    s.number[FLIGHT_SAMPLES + flight] = samples
    s.number[STEADY] = 1 if decodes == s.number[RUNNING] and decodes == samples else 0


@compiled
def process_output(s: Scheduler, results: Floats, client_s: float) -> None:
    """Give each request of the oldest step in flight its token, which reaches the client at `client_s`.

    Where KV is sent, a request that was preempted meanwhile has none to send: it loses the token.
    """
    flight = s.number[OLDEST_FLIGHT]
    s.number[OLDEST_FLIGHT] = (flight + 1) % 2
    s.number[IN_FLIGHT] -= 1
    anybody_finished = False
    for entry in range(s.number[FLIGHT_SAMPLES + flight]):
        seat, row = s.flights[flight, entry, SEAT], s.flights[flight, entry, ROW]
        is_seated = s.seats[seat, ROW] == row
        if s.rules.sends_kv and not is_seated:
            continue
        s.requests[row, RECEIVED] += 1
        if is_seated:
            s.seats[seat, SAMPLING] -= 1
            note_known_blocks(s, seat)
        if s.requests[row, RECEIVED] == 1:
            results[row, FIRST_TOKEN_S] = client_s
        if s.requests[row, RECEIVED] == s.requests[row, OUTPUT_TOKENS]:
            results[row, FINISHED_S] = client_s
            finish(s, seat, row, is_seated)
            anybody_finished = True
    if anybody_finished:
        close_ranks(s)


@compiled
def note_known_blocks(s: Scheduler, seat: int) -> None:
    """Count the blocks whose content an output has made known."""
    known = (s.seats[seat, COMPUTED] - s.seats[seat, SAMPLING]) // s.rules.block_size
    s.seats[seat, CACHED] = max(s.seats[seat, CACHED], known)


@compiled
def finish(s: Scheduler, seat: int, row: int, is_seated: bool) -> None:
    """Let go of a request that has all its tokens, be it preempted while the last one was in flight."""
    if s.rules.sends_kv:
        hold_blocks(s, seat, row)
    elif is_seated:
        leave_seat(s, seat, False)
    else:
        leave(s, row)
    append(s.requests, s.number, FINISHED_HEAD, FINISHED_TAIL, row)
    s.number[UNFLUSHED] = 1
