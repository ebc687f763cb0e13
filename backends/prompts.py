"""Prompts: random token ids, drawn before a replay so that building them costs it nothing."""

from zlib import crc32

import numpy as np

from traces.trace import Counts, PrefixBlocks, Trace

LEAST_TOKEN = 10
"""Ids below are special tokens in many vocabularies."""

SAFE_VOCABULARY = 10_000
"""For a model of which only the name is known: text models' vocabularies have many times more tokens, and
most have their special tokens above this or below LEAST_TOKEN."""


def make_prompts(trace: Trace, vocabulary: int, seed: int, salt: str) -> list[list[int]]:
    """Return the token ids of each request's prompt, as long as the trace says.

    Where the trace has prefix hashes, equal hashes become equal blocks of tokens; all other tokens are
    independent, so that the prefix cache finds what the trace's own prompts would have shared, no more.

    Args:
        trace: The requests.
        vocabulary: Token ids are below it, above 10.
        seed: Seed of all tokens.
        salt: Name of the replay; two replays of one trace on one engine must differ in it, or the second
            finds the first one's prompts in the prefix cache.
    """
    if vocabulary <= LEAST_TOKEN:
        raise ValueError(f"a vocabulary must have more than {LEAST_TOKEN} tokens, got {vocabulary}")
    drawer = TokenDrawer(vocabulary, (seed, crc32(salt.encode())))
    numbers = np.arange(vocabulary).astype(object)  # one int object an id, however often it occurs
    prompts = []
    for row, tokens in enumerate(trace.prompt_tokens.tolist()):
        shared = drawer.shared(trace.prefix, row, tokens)
        drawn = np.concatenate([*shared, drawer.fresh(tokens - sum(map(len, shared)))])
        prompt: list[int] = numbers[drawn].tolist()
        prompts.append(prompt)
    return prompts


class TokenDrawer:
    """Draws tokens that nobody shares, and blocks that go with a hash."""

    def __init__(self, vocabulary: int, entropy: tuple[int, int]) -> None:
        """Prepare to draw ids below `vocabulary`, the same ones for the same `entropy`."""
        self._vocabulary = vocabulary
        self._entropy = entropy
        self._rng = np.random.default_rng(entropy)
        self._blocks: dict[int, Counts] = {}

    def fresh(self, tokens: int) -> Counts:
        """Return tokens drawn for nobody else."""
        return self._rng.integers(LEAST_TOKEN, self._vocabulary, tokens, dtype=np.int32)

    def shared(self, prefix: PrefixBlocks | None, row: int, tokens: int) -> list[Counts]:
        """Return the blocks of request `row`, cut to `tokens` in all."""
        if prefix is None:
            return []
        size = prefix.block_tokens
        hashes = prefix.of(row)[: -(-tokens // size)]
        return [self._block(one, size)[: tokens - place * size] for place, one in enumerate(hashes)]

    def _block(self, block_hash: int, size: int) -> Counts:
        if block_hash not in self._blocks:
            rng = np.random.default_rng((*self._entropy, block_hash % 2**64))
            self._blocks[block_hash] = rng.integers(LEAST_TOKEN, self._vocabulary, size, dtype=np.int32)
        return self._blocks[block_hash]
