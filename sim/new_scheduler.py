"""A scheduler that has seen nothing yet, and the rules that its vLLM version follows."""

import numpy as np

from sim.options import EngineOptions
from sim.prefix_cache import prefix_ids
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
    OUTPUT_TOKENS,
    PRIORITY,
    PROMPT_TOKENS,
    REQUEST_COLUMNS,
    SEAT_COLUMNS,
    SPARE,
    SPARE_SEATS,
    WAITING_HEAD,
    WAITING_TAIL,
    Rules,
    Scheduler,
)
from traces.trace import Counts, Ints, Trace


def new_scheduler(trace: Trace, options: EngineOptions) -> Scheduler:
    """Return a scheduler that has seen none of the trace's requests.

    Raises:
        ValueError: Neither block_size nor the tokens of a prefix hash is a multiple of the other.
    """
    seats = options.max_num_seqs
    caches = options.enable_prefix_caching
    seating = np.zeros((LISTS, seats), np.int64)
    seating[SPARE] = np.arange(seats)[::-1]
    number = np.zeros(COUNTS, np.int64)
    number[[WAITING_HEAD, WAITING_TAIL, FINISHED_HEAD, FINISHED_TAIL]] = NOBODY
    number[FREE_BLOCKS] = options.num_gpu_blocks - 1
    number[SPARE_SEATS] = seats
    rules = rules_of(trace, options)
    longest_table = -(
        -min(options.max_model_len, options.num_gpu_blocks * options.block_size) // options.block_size
    )
    ids, offsets = prompt_blocks(trace, caches)
    return Scheduler(
        rules=rules,
        requests=requests_of(trace),
        seats=np.full((seats, SEAT_COLUMNS), NOBODY),
        batch=np.zeros((seats, BATCH_COLUMNS), np.int64),
        flights=np.zeros((2, seats, 2), np.int64),
        seating=seating,
        heap=np.zeros(len(trace) if rules.by_priority else 0, np.int32),
        crossing=np.zeros(options.block_size + 1, np.int64),
        blocks=queue_of(options.num_gpu_blocks if caches else 1),
        keys=np.full(options.num_gpu_blocks if caches else 0, NO_KEY),
        tables=np.zeros((seats + 1, longest_table) if caches else (0, 0), np.int32),
        prompt_ids=ids,
        prompt_offsets=offsets,
        number=number,
    )


def rules_of(trace: Trace, options: EngineOptions) -> Rules:
    """Return the options as numbers, with what changed between vLLM's versions."""
    hash_tokens = options.block_size if trace.prefix is None else trace.prefix.block_tokens
    block_size = options.block_size
    if options.enable_prefix_caching and hash_tokens % block_size and block_size % hash_tokens:
        raise ValueError(
            f"block_size must divide the {hash_tokens} tokens of a prefix hash of {trace.name} or be a "
            f"multiple of them, got {block_size}: change it, or turn enable_prefix_caching off"
        )
    version = tuple(map(int, options.vllm_version.split(".")[:2]))
    return Rules(
        budget=options.max_num_batched_tokens,
        max_seqs=options.max_num_seqs,
        block_size=block_size,
        longest_chunk=options.long_prefill_token_threshold or options.max_num_batched_tokens,
        chunks_prompts=options.enable_chunked_prefill,
        by_priority=options.scheduling_policy == "priority",
        caches=options.enable_prefix_caching,
        hash_tokens=hash_tokens,
        depth=2 if options.async_scheduling else 1,
        frees_to_front=version >= (0, 24),
        spares_lone_prompts=version >= (0, 32),
        always_steps_back=version >= (0, 30),
        outlives_own_preemption=version >= (0, 33) and options.scheduling_policy == "priority",
    )


def requests_of(trace: Trace) -> Counts:
    """Return the requests' columns; offline requests have a lower priority."""
    requests = np.zeros((len(trace), REQUEST_COLUMNS), np.int32)
    requests[:, PROMPT_TOKENS] = trace.prompt_tokens
    requests[:, OUTPUT_TOKENS] = trace.output_tokens
    requests[:, PRIORITY] = 0 if trace.is_offline is None else trace.is_offline
    return requests


def queue_of(blocks: int) -> Counts:
    """Return blocks that are all free, in the order of their numbers."""
    queue = np.zeros((1 << (blocks - 1).bit_length(), BLOCK_COLUMNS), np.int32)
    numbers = np.arange(blocks)
    queue[:blocks, BEHIND] = (numbers + 1) % blocks
    queue[:blocks, BEFORE] = (numbers - 1) % blocks
    return queue


def prompt_blocks(trace: Trace, caches: bool) -> tuple[Ints, Ints]:
    """Return ids of the prompts' blocks and where each request's begin; none where they are not asked for."""
    if trace.prefix is None or not caches:
        return np.zeros(0, np.int64), np.zeros(len(trace) + 1, np.int64)
    return prefix_ids(trace.prefix), np.ascontiguousarray(trace.prefix.offsets)
