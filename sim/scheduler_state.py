"""What the scheduler remembers between its decisions, as arrays that compiled and plain code share.

Requests are named by their row of the trace, running requests also by their seat: one of `max_num_seqs`
places that hold what only a running request has. Arrays are few, because each one costs at every call from
Python: what belongs together is one array, its columns or entries named here.
"""

from typing import NamedTuple

import numpy as np

from sim.options import EngineOptions
from traces.trace import Counts, Ints, Trace

NOBODY = -1
"""Ends a list, and marks an empty seat: arrays have no None."""

(
    SCHEDULED_STEPS,  # calls of schedule() so far
    RUNNING,  # entries of `order`
    WAITING,  # requests waiting for a seat
    WAITING_HEAD,  # first of them, by the list in `Requests.next`
    WAITING_TAIL,  # last of them
    ARRIVALS,  # requests that ever joined the waiting
    SPARE_SEATS,  # entries of `spare_seats`
    FREE_BLOCKS,  # KV blocks that nobody uses
    BATCH_SIZE,  # entries of the step being composed
    BUDGET_LEFT,  # tokens that the step being composed may still take
    HEAD_BLOCKED,  # 1: the head of the waiting was refused blocks, and none became free since
    STEADY,  # 1: the last step was one token for every running request, and nobody came or went since
    IN_FLIGHT,  # steps scheduled whose output is not processed
    OLDEST_FLIGHT,  # index of the oldest of them
    PREEMPTIONS,  # requests ever preempted
    VICTIMS,  # those of the step being composed
    FINISHED_HEAD,  # first finished request not yet told to the client
    FINISHED_TAIL,  # last of them
    UNFLUSHED,  # 1: a finished request has not been told to the workers
    FLIGHT_SIZE,  # requests in flight 0; those in flight 1 are the next entry
    _,
    FLIGHT_SAMPLES,  # those of them that get a token; likewise
    _,
    COUNTS,  # how many counts there are
) = range(24)
(
    PROMPT_TOKENS,
    OUTPUT_TOKENS,
    RECEIVED,  # output tokens processed so far
    NEXT,  # who is behind it in the one list that it is in: input, waiting or finished
    PRIORITY,  # lower goes first, under the priority policy
    ARRIVAL,  # its place in the order in which requests joined the waiting
    REQUEST_COLUMNS,
) = range(7)
(
    ROW,  # who sits there, NOBODY if it is empty; also a column of flights
    COMPUTED,  # tokens whose KV is computed or being computed
    SAMPLING,  # tokens that steps in flight will sample (vLLM: num_output_placeholders)
    BLOCKS,  # KV blocks held
    PREFILL_UNTIL,  # tokens to compute before it decodes: those that it had when it was admitted
    SEAT_COLUMNS,
) = range(6)
(
    _,
    SEAT,  # who is in the step
    TOKENS,  # tokens that it computes for them
    CONTEXT,  # tokens that were computed before
    BATCH_COLUMNS,
) = range(5)
ORDER, SPARE, VICTIM_ROWS = range(
    3
)  # seats in order of admission; empty seats, a stack; rows preempted in a step
(
    INPUT_S,  # when it reaches the engine core
    FIRST_TOKEN_S,  # when its first and its last token reach the client
    FINISHED_S,
    ENERGY_J,  # its share of the energy so far
    RESULT_COLUMNS,
) = range(5)


class Rules(NamedTuple):
    """The options that decisions depend on, as numbers."""

    budget: int
    max_seqs: int
    block_size: int
    longest_chunk: int
    chunks_prompts: bool
    by_priority: bool
    depth: int


class Scheduler(NamedTuple):
    """All that vLLM's scheduler knows.

    Attributes:
        rules: The options.
        requests: Columns PROMPT_TOKENS to ARRIVAL, shape (requests, REQUEST_COLUMNS).
        seats: Columns ROW to PREFILL_UNTIL, shape (max_num_seqs, SEAT_COLUMNS).
        batch: The step being composed, in vLLM's order, columns SEAT to CONTEXT, shape
            (max_num_seqs, BATCH_COLUMNS).
        flights: Who gets a token from each step in flight, columns ROW and SEAT, shape (2, max_num_seqs, 2).
        seating: Lists ORDER, SPARE and VICTIM_ROWS, shape (3, max_num_seqs).
        heap: The waiting requests under the priority policy, shape (requests,), else (0,).
        crossing: Sequences that need a new block in step i of a decode run, at i modulo the block size, shape
            (block_size,).
        number: Single numbers, by the names above, shape (COUNTS,).
    """

    rules: Rules
    requests: Counts
    seats: Ints
    batch: Ints
    flights: Ints
    seating: Ints
    heap: Counts
    crossing: Ints
    number: Ints


def new_scheduler(trace: Trace, options: EngineOptions) -> Scheduler:
    """Return a scheduler that has seen none of the trace's requests."""
    seats = options.max_num_seqs
    by_priority = options.scheduling_policy == "priority"
    requests = np.zeros((len(trace), REQUEST_COLUMNS), np.int32)
    requests[:, PROMPT_TOKENS] = trace.prompt_tokens
    requests[:, OUTPUT_TOKENS] = trace.output_tokens
    requests[:, PRIORITY] = 0 if trace.is_offline is None else trace.is_offline
    seating = np.zeros((3, seats), np.int64)
    seating[SPARE] = np.arange(seats)[::-1]
    number = np.zeros(COUNTS, np.int64)
    number[[WAITING_HEAD, WAITING_TAIL, FINISHED_HEAD, FINISHED_TAIL]] = NOBODY
    number[FREE_BLOCKS] = options.num_gpu_blocks - 1
    number[SPARE_SEATS] = seats
    return Scheduler(
        rules=Rules(
            budget=options.max_num_batched_tokens,
            max_seqs=seats,
            block_size=options.block_size,
            longest_chunk=options.long_prefill_token_threshold or options.max_num_batched_tokens,
            chunks_prompts=options.enable_chunked_prefill,
            by_priority=by_priority,
            depth=2 if options.async_scheduling else 1,
        ),
        requests=requests,
        seats=np.full((seats, SEAT_COLUMNS), NOBODY),
        batch=np.zeros((seats, BATCH_COLUMNS), np.int64),
        flights=np.zeros((2, seats, 2), np.int64),
        seating=seating,
        heap=np.zeros(len(trace) if by_priority else 0, np.int32),
        crossing=np.zeros(options.block_size, np.int64),
        number=number,
    )
