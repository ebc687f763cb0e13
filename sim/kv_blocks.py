"""The KV blocks: how many a request needs, taking and giving them back."""

from sim.compiled import compiled
from sim.scheduler_state import BLOCKS, COMPUTED, FREE_BLOCKS, HEAD_BLOCKED, Scheduler


@compiled
def blocks_for(tokens: int, block_size: int) -> int:
    """Return how many blocks `tokens` fill, the last one perhaps in part."""
    return (tokens + block_size - 1) // block_size


@compiled
def missing_blocks(s: Scheduler, seat: int, tokens: int) -> int:
    """Return how many blocks the request lacks to compute `tokens` more."""
    wanted = blocks_for(s.seats[seat, COMPUTED] + tokens, s.rules.block_size)
    return max(wanted - int(s.seats[seat, BLOCKS]), 0)


@compiled
def take_blocks(s: Scheduler, seat: int, blocks: int) -> None:
    """Give the request `blocks` more; there are that many."""
    s.seats[seat, BLOCKS] += blocks
    s.number[FREE_BLOCKS] -= blocks


@compiled
def free_blocks(s: Scheduler, seat: int) -> None:
    """Take back all blocks of the request."""
    s.number[FREE_BLOCKS] += s.seats[seat, BLOCKS]
    s.seats[seat, BLOCKS] = 0
    s.number[HEAD_BLOCKED] = 0
