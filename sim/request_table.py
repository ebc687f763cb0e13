"""What engines know of requests: how long they are, how far they are, and what became of them."""

import numpy as np
from numpy.typing import NDArray

from sim.options import EngineOptions
from sim.prefix_cache import prefix_ids
from sim.scheduler_state import (
    OUTPUT_TOKENS,
    PRIORITY,
    PROMPT_TOKENS,
    REQUEST_COLUMNS,
    RESULT_COLUMNS,
)
from traces.trace import Ints, PrefixBlocks, Trace


class RequestTable:
    """A row for each request that is there, shared by the replicas of a fleet.

    A row can be used again for another request once its own has been served; so the table is as long as the
    most requests that were there at one time.

    Attributes:
        requests: Lengths and how far the scheduler is, columns PROMPT_TOKENS to ARRIVAL, shape
            (rows, REQUEST_COLUMNS).
        results: When what happened and its energy, columns INPUT_S to ENERGY_J, NaN until known, shape
            (rows, RESULT_COLUMNS).
        prompts: Where the row's blocks begin and end in `prompt_ids`, equal if nothing is known of them,
            shape (rows, 2).
        prompt_ids: Ids of prompts' blocks, equal where the prompts are equal up to the block's end.
        hash_tokens: Tokens of a block, None without `prompt_ids`.
    """

    def __init__(self, prefix: PrefixBlocks | None = None) -> None:
        """Make a table without rows.

        Args:
            prefix: What is known about equal prefixes, None if nothing or if nobody asks.
        """
        self.requests = np.zeros((0, REQUEST_COLUMNS), np.int32)
        self.results = np.zeros((0, RESULT_COLUMNS))
        self.prompts = np.zeros((0, 2), np.int64)
        self.prompt_ids = np.zeros(0, np.int64) if prefix is None else prefix_ids(prefix)
        self.hash_tokens = None if prefix is None else prefix.block_tokens
        self._spare: Ints = np.zeros(0, np.int64)

    def take(self, trace: Trace, own: slice = slice(None)) -> Ints:
        """Return rows for requests of `trace`, in its order; all arrays are replaced if it lacks rows.

        Args:
            trace: If it has hashes, these are the table's own.
            own: Which of its requests.
        """
        count = len(trace.arrival_s[own])
        if count > len(self._spare):
            self._grow(max(count - len(self._spare), len(self.requests)))
        rows, self._spare = self._spare[:count], self._spare[count:]
        self.requests[rows] = 0
        self.requests[rows, PROMPT_TOKENS] = trace.prompt_tokens[own]
        self.requests[rows, OUTPUT_TOKENS] = trace.output_tokens[own]
        if trace.is_offline is not None:
            self.requests[rows, PRIORITY] = trace.is_offline[own]  # offline requests have a lower priority
        self.results[rows] = np.nan
        if self.hash_tokens is not None and trace.prefix is not None:
            self.prompts[rows, 0] = trace.prefix.offsets[:-1][own]
            self.prompts[rows, 1] = trace.prefix.offsets[1:][own]
        return rows

    def give_back(self, rows: Ints) -> None:
        """Take rows back whose requests have been served."""
        self._spare = np.concatenate([rows, self._spare])

    def _grow(self, more: int) -> None:
        length = len(self.requests)
        self._spare = np.concatenate([self._spare, np.arange(length, length + more)])
        self.requests = np.concatenate([self.requests, np.zeros((more, REQUEST_COLUMNS), np.int32)])
        self.results = np.concatenate([self.results, np.zeros((more, RESULT_COLUMNS))])
        self.prompts = np.concatenate([self.prompts, np.zeros((more, 2), np.int64)])


def table_of(trace: Trace, options: EngineOptions) -> RequestTable:
    """Return a table in which request i of `trace` has row i.

    Raises:
        ValueError: A request cannot be served.
    """
    check_lengths(trace, options)
    table = RequestTable(known_prefixes(trace, options))
    table.take(trace)
    return table


def known_prefixes(trace: Trace, options: EngineOptions) -> PrefixBlocks | None:
    """Return what the trace says about equal prefixes if the engines make use of it.

    Raises:
        ValueError: Neither block_size nor the tokens of a prefix hash is a multiple of the other.
    """
    if trace.prefix is None or not options.enable_prefix_caching:
        return None
    block_size, hash_tokens = options.block_size, trace.prefix.block_tokens
    if hash_tokens % block_size and block_size % hash_tokens:
        raise ValueError(
            f"block_size must divide the {hash_tokens} tokens of a prefix hash of {trace.name} or be a "
            f"multiple of them, got {block_size}: change it, or turn enable_prefix_caching off"
        )
    return trace.prefix


def check_lengths(
    trace: Trace, options: EngineOptions, first_row: int = 0, among: NDArray[np.bool_] | None = None
) -> None:
    """Check that every request can be served.

    Args:
        trace: The requests, or a part of them.
        options: What the engines are told.
        first_row: Number of the part's first request, for the message.
        among: Whether each request matters, None if all do, shape (requests,).

    Raises:
        ValueError: A request is longer than max_model_len or than all KV blocks.
    """
    tokens = trace.prompt_tokens.astype(np.int64) + trace.output_tokens
    if among is not None:
        tokens = np.where(among, tokens, 0)
    place = int(tokens.argmax()) if len(tokens) else 0
    longest = int(tokens.max(initial=0))
    request = f"request {first_row + place} of {trace.name}"
    if longest > options.max_model_len:
        raise ValueError(
            f"{request} has {longest} tokens, max_model_len is {options.max_model_len}: "
            f"raise it or leave out the {np.sum(tokens > options.max_model_len)} longer requests"
        )
    room = (options.num_gpu_blocks - 1) * options.block_size
    if longest - 1 > room:
        raise ValueError(
            f"{request} needs KV for {longest - 1} tokens, num_gpu_blocks = "
            f"{options.num_gpu_blocks} holds {room}: "
            f"raise it or leave out the {np.sum(tokens - 1 > room)} longer requests"
        )
