"""What the scheduler remembers between its decisions, as arrays that compiled and plain code share.

Requests are named by their row of a `RequestTable`, running requests also by their seat: one of
`max_num_seqs` places that hold what only a running request has. Arrays are few, because each one costs at
every call from Python: what belongs together is one array, its columns or entries named here.
"""

from typing import NamedTuple

from traces.trace import Counts, Ints

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
    CHUNK_LIMIT,  # longest chunk in the step being composed
    FLIGHT_SAMPLES,  # those of them that get a token; likewise
    _,
    HELD,  # finished requests whose blocks are held while their KV is sent
    HELD_FIRST,  # place of the first of them in HELD_SEATS, a ring
    COUNTS,  # how many counts there are
) = range(27)
(
    PROMPT_TOKENS,
    OUTPUT_TOKENS,
    RECEIVED,  # output tokens processed so far
    NEXT,  # who is behind it in the one list that it is in: input, waiting or finished
    PRIORITY,  # lower goes first, under the priority policy
    ARRIVAL,  # its place in the order in which requests joined the waiting, from 1
    BRINGS_KV,  # 1: the KV of its prompt comes with it, from another engine
    REQUEST_COLUMNS,
) = range(8)
(
    ROW,  # who sits there, NOBODY if it is empty; also a column of flights
    COMPUTED,  # tokens whose KV is computed or being computed
    SAMPLING,  # tokens that steps in flight will sample (vLLM: num_output_placeholders)
    BLOCKS,  # KV blocks held
    PREFILL_UNTIL,  # tokens to compute before it decodes: those that it had when it was admitted
    CACHED,  # leading blocks whose content is known, by prefix caching
    SEAT_COLUMNS,
) = range(7)
(
    _,
    SEAT,  # who is in the step
    TOKENS,  # tokens that it computes for them
    CONTEXT,  # tokens that were computed before
    BATCH_COLUMNS,
) = range(5)
(
    ORDER,  # seats in order of admission
    SPARE,  # empty seats, a stack
    VICTIM_ROWS,  # rows preempted in a step
    CROSSERS,  # seats of a decode run by the step in which they first want a new block
    HELD_SEATS,  # seats whose blocks are held, in the order of their sending
    HELD_ROWS,  # whose they were
    LISTS,
) = range(7)
(
    USERS,  # requests that hold the block
    BEFORE,  # the free block before it in the queue, a ring through the null block
    BEHIND,  # the free block behind it
    BUCKET_FIRST,  # first block whose key ends like this row's number
    BUCKET_NEXT,  # the next such block
    BLOCK_COLUMNS,
) = range(6)
NULL_BLOCK = 0
"""vLLM's null block, which nobody gets: here the ends of the queue, and no block."""
NO_KEY, SPENT_KEY = -1, -2
"""Of a block that is not full, and of one whose content nobody will look for; other keys are findable."""
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
    caches: bool
    hash_tokens: int
    depth: int
    frees_to_front: bool
    spares_lone_prompts: bool
    always_steps_back: bool
    outlives_own_preemption: bool
    sends_kv: bool


class Scheduler(NamedTuple):
    """All that vLLM's scheduler knows.

    Attributes:
        rules: The options.
        requests: Columns PROMPT_TOKENS to BRINGS_KV, shape (requests, REQUEST_COLUMNS).
        seats: Columns ROW to CACHED, shape (seats, SEAT_COLUMNS): max_num_seqs, and more for blocks that
            are held where KV is sent.
        batch: The step being composed, in vLLM's order, columns SEAT to CONTEXT, shape
            (seats, BATCH_COLUMNS).
        flights: Who gets a token from each step in flight, columns ROW and SEAT, shape (2, seats, 2).
        seating: Lists ORDER to HELD_ROWS, shape (LISTS, seats).
        heap: The waiting requests under the priority policy, shape (requests,), else (0,).
        crossing: Where the seats begin in CROSSERS that want a new block in step i of a decode run, at i
            modulo the block size, shape (block_size + 1,).
        blocks: With prefix caching, columns USERS to BUCKET_NEXT, shape (blocks up to a power of two,
            BLOCK_COLUMNS).
        keys: Key of each block's content, shape (blocks,).
        tables: Blocks that each seat holds, last the hits found for an admission, shape
            (seats + 1, blocks).
        prompts, prompt_ids: What is known about equal prefixes, as in `RequestTable`.
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
    blocks: Counts
    keys: Ints
    tables: Counts
    prompts: Ints
    prompt_ids: Ints
    number: Ints
