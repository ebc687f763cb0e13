"""The KV blocks: how many a request needs, taking them and giving them back.

Without prefix caching they are only counted. With it each block is known: the free ones stand in a queue,
whose front is taken next, and a block that still holds a known content is found again until it is taken.
"""

from sim.compiled import compiled
from sim.prefix_cache import find, forget, is_findable, key_of, own_key, register
from sim.scheduler_state import (
    BEFORE,
    BEHIND,
    BLOCKS,
    CACHED,
    COMPUTED,
    FREE_BLOCKS,
    HEAD_BLOCKED,
    NO_KEY,
    NULL_BLOCK,
    PROMPT_TOKENS,
    RECEIVED,
    ROW,
    SPENT_KEY,
    USERS,
    Scheduler,
)


@compiled
def blocks_for(tokens: int, block_size: int) -> int:
    """Return how many blocks `tokens` fill, the last one perhaps in part."""
    return (tokens + block_size - 1) // block_size


@compiled
def missing_blocks(s: Scheduler, seat: int, tokens: int) -> int:
    """Return how many blocks the request lacks to compute `tokens` more."""
    wanted = blocks_for(int(s.seats[seat, COMPUTED]) + tokens, s.rules.block_size)
    return max(wanted - int(s.seats[seat, BLOCKS]), 0)


@compiled
def take_blocks(s: Scheduler, seat: int, blocks: int) -> None:
    """Give the request `blocks` more from the front of the queue; there are that many."""
    if s.rules.caches:
        for _ in range(blocks):
            block = int(s.blocks[NULL_BLOCK, BEHIND])
            unqueue(s, block)
            if is_findable(s, block):
                forget(s, block)
            s.keys[block] = NO_KEY
            hold(s, seat, block)
    else:
        s.seats[seat, BLOCKS] += blocks
        s.number[FREE_BLOCKS] -= blocks


@compiled
def hold(s: Scheduler, seat: int, block: int) -> None:
    """Put a block at the end of those that the request has."""
    s.blocks[block, USERS] += 1
    s.tables[seat, s.seats[seat, BLOCKS]] = block
    s.seats[seat, BLOCKS] += 1


@compiled
def find_hits(s: Scheduler, row: int, length: int) -> int:
    """Return how many leading blocks of a request are cached, and list them in the last row of `tables`.

    At least one token is left to compute.
    """
    if not s.rules.caches:
        return 0
    most = (length - 1) // s.rules.block_size
    for place in range(most):
        block = find(s, key_of(s, row, place))
        if block == NULL_BLOCK:
            return place
        s.tables[len(s.seats), place] = block
    return most


@compiled
def blocks_to_admit(s: Scheduler, length: int, hits: int) -> int:
    """Return how many free blocks a request of `length` tokens takes: unused hits are among the free."""
    needed = blocks_for(length, s.rules.block_size) - hits
    for place in range(hits):
        if s.blocks[s.tables[len(s.seats), place], USERS] == 0:
            needed += 1
    return needed


@compiled
def take_hits(s: Scheduler, seat: int, hits: int) -> None:
    """Let the request use the cached blocks that were found for it."""
    for place in range(hits):
        block = int(s.tables[len(s.seats), place])
        if s.blocks[block, USERS] == 0:
            unqueue(s, block)
        hold(s, seat, block)
    s.seats[seat, CACHED] = hits


@compiled
def register_full_blocks(s: Scheduler, seat: int, tokens: int) -> None:
    """Make the blocks findable that `tokens` more will fill with what is already known.

    They are so before the step has run. What only this request can look for waits until it is preempted.
    """
    if not s.rules.caches:
        return
    row = s.seats[seat, ROW]
    known = s.requests[row, PROMPT_TOKENS] + s.requests[row, RECEIVED]
    full = min(s.seats[seat, COMPUTED] + tokens, known) // s.rules.block_size
    for place in range(s.seats[seat, CACHED], full):
        key = key_of(s, row, place)
        if key >= 0:
            register(s, s.tables[seat, place], key)
    s.seats[seat, CACHED] = max(s.seats[seat, CACHED], full)


@compiled
def free_blocks(s: Scheduler, seat: int, returns: bool) -> None:
    """Take back all blocks of a request, the last one first.

    Blocks of known content go to the back of the queue, the others to the front. A request that `returns`,
    because it was preempted, will look for its own.
    """
    s.number[HEAD_BLOCKED] = 0
    if not s.rules.caches:
        s.number[FREE_BLOCKS] += s.seats[seat, BLOCKS]
        s.seats[seat, BLOCKS] = 0
        return
    last_in_front = NULL_BLOCK
    for place in range(s.seats[seat, BLOCKS] - 1, -1, -1):
        block = int(s.tables[seat, place])
        if place < s.seats[seat, CACHED]:
            settle_key(s, block, own_key(s, s.seats[seat, ROW], place), returns)
        s.blocks[block, USERS] -= 1
        if s.blocks[block, USERS] > 0:
            continue
        if s.keys[block] == NO_KEY and s.rules.frees_to_front:
            queue_behind(s, block, last_in_front)
            last_in_front = block
        else:
            queue_behind(s, block, int(s.blocks[NULL_BLOCK, BEFORE]))
    s.seats[seat, BLOCKS] = 0


@compiled
def settle_key(s: Scheduler, block: int, key: int, returns: bool) -> None:
    """Register a full block under the request's own key, or mark that nobody will ever look for it."""
    if s.keys[block] >= 0:
        return
    if returns:
        if s.keys[block] == NO_KEY:
            register(s, block, key)
        return
    if is_findable(s, block):
        forget(s, block)
    s.keys[block] = SPENT_KEY


@compiled
def queue_behind(s: Scheduler, block: int, before: int) -> None:
    """Put a free block behind another one in the queue, behind the null block to make it the first."""
    behind = s.blocks[before, BEHIND]
    s.blocks[block, BEFORE], s.blocks[block, BEHIND] = before, behind
    s.blocks[before, BEHIND] = s.blocks[behind, BEFORE] = block
    s.number[FREE_BLOCKS] += 1


@compiled
def unqueue(s: Scheduler, block: int) -> None:
    """Take a free block out of the queue."""
    before, behind = s.blocks[block, BEFORE], s.blocks[block, BEHIND]
    s.blocks[before, BEHIND], s.blocks[behind, BEFORE] = behind, before
    s.number[FREE_BLOCKS] -= 1
