"""How late attention over a batch ends, by its contexts and their order.

Attention cuts a batch into pieces, one for each KV head of a sequence or several where its context is long,
and the GPU's multiprocessors take them in the batch's order, each the next when it is done with one; those
who are done wait for the last. While few still work, each of them reads faster than its even share of the
memory's bandwidth. Pieces are cut as FlashAttention-3 does; docs/design.md, point 11, compares with steps.
"""

import heapq
from collections.abc import Iterator, Sequence

import numpy as np

WORKERS = 132
"""Multiprocessors of an H100 or H200."""

KV_HEADS = 8
"""Of Llama 3 up to 70B, on one GPU."""

BLOCK = 128
"""KV tokens that are read at a time."""

MOST_PIECES = 32
"""Into which one KV head of a sequence is cut at most."""

PIECE = 1.1
"""Blocks of the largest piece, in those of a worker's even share."""

ALONE = 2.0
"""Speed of a worker while others rest, at most, in its even share of the bandwidth."""

ORDERS = 12
"""Random orders that one is chosen from."""


def lateness(tokens: Sequence[int], heads: int = KV_HEADS) -> float:
    """Return what waiting for the last worker adds to the time of attention, as a fraction.

    Args:
        tokens: KV tokens of each sequence, in the batch's order.
        heads: KV heads that the GPU holds.
    """
    busy = [0.0] * WORKERS
    for piece in _pieces(tokens, heads):
        heapq.heapreplace(busy, busy[0] + piece)
    until = np.sort(busy)
    still_working = WORKERS - np.arange(WORKERS)
    time = np.sum(np.diff(until, prepend=0.0) * np.maximum(still_working, WORKERS / ALONE))
    return float(time / np.sum(until)) - 1.0


def _pieces(tokens: Sequence[int], heads: int) -> Iterator[float]:
    """Yield the KV tokens of each piece, in the order in which workers take them."""
    blocks = [-(-count // BLOCK) for count in tokens]
    most_blocks = -(-sum(blocks) * heads * PIECE // WORKERS)
    for count, of_head in zip(tokens, blocks, strict=True):
        cut = int(min(-(-of_head // most_blocks), MOST_PIECES))
        yield from [count / cut] * (heads * cut)


def typical_order(tokens: Sequence[int], seed: int) -> list[int]:
    """Return a random order of a batch in which attention ends as late as random orders do on average.

    One drawn order is up to twice as late, another not at all. Equal contexts stay as they are.

    Args:
        tokens: KV tokens of each sequence.
        seed: Other seeds give other orders.
    """
    if len(set(tokens)) < 2:
        return list(range(len(tokens)))
    rng = np.random.default_rng(seed)
    contexts = np.array(tokens)
    orders = [rng.permutation(len(contexts)) for _ in range(ORDERS)]
    late = np.array([lateness(contexts[order].tolist()) for order in orders])
    return list(orders[int(np.argmin(np.abs(late - late.mean())))].tolist())
