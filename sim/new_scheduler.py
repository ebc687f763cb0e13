"""A scheduler that has seen nothing yet, and the rules that its vLLM version follows."""

import numpy as np

from sim.options import EngineOptions
from sim.request_table import RequestTable
from sim.scheduler_state import (
    BATCH_COLUMNS,
    BEFORE,
    BEHIND,
    BLOCK_COLUMNS,
    COUNTS,
    FINISHED_HEAD,
    FINISHED_TAIL,
    FREE_BLOCKS,
    LISTS,
    NO_KEY,
    NOBODY,
    SEAT_COLUMNS,
    SPARE,
    SPARE_SEATS,
    WAITING_HEAD,
    WAITING_TAIL,
    Rules,
    Scheduler,
)
from traces.trace import Counts

MOST_HELD = 4096
"""Finished requests of an engine whose KV is being sent; with more, nobody is admitted."""


def new_scheduler(table: RequestTable, options: EngineOptions, sends_kv: bool) -> Scheduler:
    """Return a scheduler that has seen none of the requests."""
    seats = options.max_num_seqs
    if sends_kv:  # who is held has a block of its own at least
        seats += min(options.num_gpu_blocks, MOST_HELD)
    caches = options.enable_prefix_caching
    seating = np.zeros((LISTS, seats), np.int64)
    seating[SPARE] = np.arange(seats)[::-1]
    number = np.zeros(COUNTS, np.int64)
    number[[WAITING_HEAD, WAITING_TAIL, FINISHED_HEAD, FINISHED_TAIL]] = NOBODY
    number[FREE_BLOCKS] = options.num_gpu_blocks - 1
    number[SPARE_SEATS] = seats
    rules = rules_of(table, options, sends_kv)
    longest_table = -(
        -min(options.max_model_len, options.num_gpu_blocks * options.block_size) // options.block_size
    )
    return Scheduler(
        rules=rules,
        requests=table.requests,
        seats=np.full((seats, SEAT_COLUMNS), NOBODY),
        batch=np.zeros((seats, BATCH_COLUMNS), np.int64),
        flights=np.zeros((2, seats, 2), np.int64),
        seating=seating,
        heap=np.zeros(len(table.requests) if rules.by_priority else 0, np.int32),
        crossing=np.zeros(options.block_size + 1, np.int64),
        blocks=queue_of(options.num_gpu_blocks if caches else 1),
        keys=np.full(options.num_gpu_blocks if caches else 0, NO_KEY),
        tables=np.zeros((seats + 1, longest_table) if caches else (0, 0), np.int32),
        prompts=table.prompts,
        prompt_ids=table.prompt_ids,
        number=number,
    )


def rules_of(table: RequestTable, options: EngineOptions, sends_kv: bool) -> Rules:
    """Return the options as numbers, with what changed between vLLM's versions."""
    version = tuple(map(int, options.vllm_version.split(".")[:2]))
    return Rules(
        budget=options.max_num_batched_tokens,
        max_seqs=options.max_num_seqs,
        block_size=options.block_size,
        longest_chunk=options.long_prefill_token_threshold or options.max_num_batched_tokens,
        chunks_prompts=options.enable_chunked_prefill,
        by_priority=options.scheduling_policy == "priority",
        caches=options.enable_prefix_caching,
        hash_tokens=table.hash_tokens or options.block_size,
        depth=2 if options.async_scheduling else 1,
        frees_to_front=version >= (0, 24),
        spares_lone_prompts=version >= (0, 32),
        always_steps_back=version >= (0, 30),
        outlives_own_preemption=version >= (0, 33) and options.scheduling_policy == "priority",
        sends_kv=sends_kv,
    )


def queue_of(blocks: int) -> Counts:
    """Return blocks that are all free, in the order of their numbers."""
    queue = np.zeros((1 << (blocks - 1).bit_length(), BLOCK_COLUMNS), np.int32)
    numbers = np.arange(blocks)
    queue[:blocks, BEHIND] = (numbers + 1) % blocks
    queue[:blocks, BEFORE] = (numbers - 1) % blocks
    return queue
