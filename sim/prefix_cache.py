"""The prefix cache: which KV block holds which content.

A content is named by a key. A full block of a prompt has the same key wherever the prompt up to its end is
the same. A block with any output in it, or of a prompt about which the trace says nothing, has a key that
only its request has.
"""

from itertools import pairwise

import numpy as np

from sim.compiled import compiled
from sim.scheduler_state import (
    ARRIVAL,
    BUCKET_FIRST,
    BUCKET_NEXT,
    NO_KEY,
    NULL_BLOCK,
    PROMPT_TOKENS,
    SPENT_KEY,
    Scheduler,
)
from traces.trace import Ints, PrefixBlocks

PLACES = 1 << 24
"""More than the blocks of one request."""


@compiled
def key_of(s: Scheduler, row: int, place: int) -> int:
    """Return the key of block `place` of a request."""
    block_size, hash_tokens = s.rules.block_size, s.rules.hash_tokens
    end = (place + 1) * block_size
    known = s.prompts[row, 0] + (end - 1) // hash_tokens
    if end > s.requests[row, PROMPT_TOKENS] or known >= s.prompts[row, 1]:
        return own_key(s, row, place)
    parts = max(hash_tokens // block_size, 1)
    return int(s.prompt_ids[known]) * parts + place % parts


@compiled
def own_key(s: Scheduler, row: int, place: int) -> int:
    """Return the key of what no other request has in its block `place`; rows are used again, arrivals not."""
    return SPENT_KEY - 1 - (int(s.requests[row, ARRIVAL]) * PLACES + place)


@compiled
def is_findable(s: Scheduler, block: int) -> bool:
    """Say whether the block is in the map."""
    return bool(s.keys[block] >= 0 or s.keys[block] < SPENT_KEY)


@compiled
def find(s: Scheduler, key: int) -> int:
    """Return the block registered first under the key, NULL_BLOCK if there is none."""
    block = int(s.blocks[key & (len(s.blocks) - 1), BUCKET_FIRST])
    while block != NULL_BLOCK and s.keys[block] != key:
        block = int(s.blocks[block, BUCKET_NEXT])
    return block


@compiled
def register(s: Scheduler, block: int, key: int) -> None:
    """Enter a block under its key, behind those entered before."""
    s.keys[block] = key
    s.blocks[block, BUCKET_NEXT] = NULL_BLOCK
    bucket = key & (len(s.blocks) - 1)
    last = int(s.blocks[bucket, BUCKET_FIRST])
    if last == NULL_BLOCK:
        s.blocks[bucket, BUCKET_FIRST] = block
        return
    while s.blocks[last, BUCKET_NEXT] != NULL_BLOCK:
        last = int(s.blocks[last, BUCKET_NEXT])
    s.blocks[last, BUCKET_NEXT] = block


@compiled
def forget(s: Scheduler, block: int) -> None:
    """Take a block out of the map; its key is the caller's matter."""
    bucket = s.keys[block] & (len(s.blocks) - 1)
    following = s.blocks[block, BUCKET_NEXT]
    before = int(s.blocks[bucket, BUCKET_FIRST])
    if before == block:
        s.blocks[bucket, BUCKET_FIRST] = following
        return
    while s.blocks[before, BUCKET_NEXT] != block:
        before = int(s.blocks[before, BUCKET_NEXT])
    s.blocks[before, BUCKET_NEXT] = following


def forget_all(s: Scheduler) -> None:
    """Let no block hold anything known; nobody uses one."""
    s.keys[:] = NO_KEY
    s.blocks[:, [BUCKET_FIRST, BUCKET_NEXT]] = NULL_BLOCK


def prefix_ids(prefix: PrefixBlocks) -> Ints:
    """Return a number for each block of each prompt, equal where the prompts are equal up to its end.

    Args:
        prefix: Hashes; prompts with equal leading hashes are equal that far, equal hashes behind different
            ones say nothing.

    Returns:
        Shape (blocks,), counting from 0.
    """
    ids = np.zeros(len(prefix.hashes), np.int64)
    known: dict[tuple[int, int], int] = {}
    hashes, offsets = prefix.hashes.tolist(), prefix.offsets.tolist()
    for start, end in pairwise(offsets):
        parent = -1
        for place in range(start, end):
            parent = known.setdefault((parent, hashes[place]), len(known))
            ids[place] = parent
    return ids
