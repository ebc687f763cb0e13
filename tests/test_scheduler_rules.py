"""The scheduler, rule by rule, on workloads small enough to check by hand."""

import numpy as np
import pytest
from serving import batches, serve, small_options, steps_of, trace_of
from toy_table import toy_table

from sim.engine import SimulatedEngine
from traces.trace import PrefixBlocks, Trace


def test_a_prompt_that_fits_is_prefilled_at_once_and_then_decodes_one_token_a_step() -> None:
    assert batches([5], [3]) == [[(0, 5)], [(0, 1)], [(0, 1)]]


def test_a_long_prompt_is_cut_by_the_budget() -> None:
    assert batches([40], [1]) == [[(0, 16)], [(0, 16)], [(0, 8)]]


def test_an_unfinished_prefill_takes_the_budget_before_those_behind_it() -> None:
    assert batches([20, 6], [2, 2], max_num_batched_tokens=8) == [
        [(0, 8)],
        [(0, 8)],
        [(0, 4), (1, 4)],
        [(0, 1), (1, 2)],
        [(1, 1)],
    ]


def test_a_decode_keeps_its_place_before_a_later_prefill() -> None:
    assert batches([2, 30], [4, 1])[:3] == [[(0, 2), (1, 14)], [(0, 1), (1, 15)], [(0, 1), (1, 1)]]


def test_a_chunk_is_no_longer_than_the_threshold() -> None:
    assert batches([9, 9], [1, 1], long_prefill_token_threshold=4) == [
        [(0, 4), (1, 4)],
        [(0, 4), (1, 4)],
        [(0, 1), (1, 1)],
    ]


def test_without_chunked_prefill_a_prompt_waits_for_a_whole_budget() -> None:
    assert batches([10, 10, 3], [1, 1, 1], enable_chunked_prefill=False, max_model_len=16) == [
        [(0, 10)],
        [(1, 10), (2, 3)],
    ]


def test_no_more_requests_run_than_there_are_seats() -> None:
    assert batches([1, 1, 1], [2, 1, 1], max_num_seqs=2) == [[(0, 1), (1, 1)], [(0, 1), (2, 1)]]


def test_nobody_overtakes_a_head_that_finds_no_blocks() -> None:
    # Three blocks of 4 tokens: row 0 holds two, row 1 wants two and waits; row 2 would fit, but is behind it.
    assert batches([8, 8, 1], [1, 1, 1], num_gpu_blocks=4) == [[(0, 8)], [(1, 8), (2, 1)]]


def test_a_prompt_is_not_begun_before_all_of_it_finds_blocks() -> None:
    # Five blocks: row 0 has one; row 1 wants five, its first chunk of 15 tokens only four.
    assert batches([1, 20], [2, 1], num_gpu_blocks=6)[:3] == [[(0, 1)], [(0, 1)], [(1, 16)]]


def test_the_last_admitted_gives_up_its_blocks_and_is_the_first_to_come_back() -> None:
    # Four blocks, two for each prompt. Row 0 wants a third one for its ninth token.
    engine = serve(trace_of([8, 8, 1], [4, 2, 1]), small_options(num_gpu_blocks=5))
    steps = steps_of(engine)
    assert [step.batch for step in steps] == [
        [(0, 8), (1, 8)],
        [(0, 1)],  # row 1 is preempted, and nobody is admitted in such a step
        [(0, 1)],  # row 1 wants 9 tokens in three blocks, one is free; row 2 waits behind it
        [(0, 1)],
        [(1, 9), (2, 1)],  # its prompt and its first output are recomputed
    ]
    assert [step.preempted for step in steps] == [[], [1], [], [], []]
    assert engine.preemptions == 1


def test_who_is_alone_with_too_few_blocks_is_refused_before_the_start() -> None:
    with pytest.raises(
        ValueError, match="request 0 of lengths needs KV for 13 tokens, num_gpu_blocks = 4 holds 12"
    ):
        SimulatedEngine(trace_of([12], [2]), small_options(num_gpu_blocks=4), toy_table())
    SimulatedEngine(trace_of([12], [1]), small_options(num_gpu_blocks=4), toy_table())


def test_who_is_longer_than_the_model_is_refused_before_the_start() -> None:
    with pytest.raises(ValueError, match="request 1 of lengths has 257 tokens, max_model_len is 256"):
        SimulatedEngine(trace_of([1, 250], [1, 7]), small_options(), toy_table())


def test_several_preempted_come_back_in_their_old_order() -> None:
    # Seven blocks, all taken by the prompts. Then every request wants one more: row 3 makes way for row 0,
    # and row 2 for row 1.
    steps = steps_of(
        serve(trace_of([16, 4, 4, 4], [3] * 4), small_options(num_gpu_blocks=8, max_num_batched_tokens=32))
    )
    assert steps[1].preempted == [3, 2]
    assert [row for step in steps[1:] for row, tokens in step.batch if tokens > 1] == [2, 3]


def test_with_async_scheduling_the_last_token_is_not_scheduled_twice() -> None:
    # The step after that of the last token is decided before the token is there, and is empty.
    assert batches([5], [3], async_scheduling=True) == [[(0, 5)], [(0, 1)], [(0, 1)], []]


def test_with_async_scheduling_a_seat_is_free_one_step_later() -> None:
    assert batches([1, 1], [1, 1], max_num_seqs=1) == [[(0, 1)], [(1, 1)]]
    assert batches([1, 1], [1, 1], max_num_seqs=1, async_scheduling=True)[:3] == [[(0, 1)], [], [(1, 1)]]


@pytest.mark.parametrize(("async_scheduling", "seen_by"), [(False, 1), (True, 2)])
def test_an_arrival_during_a_step_is_seen_when_the_next_one_is_decided(
    async_scheduling: bool, seen_by: int
) -> None:
    # Step 0 begins after 2.5 ms at the earliest and takes 5 ms; with async, step 1 is decided while it runs.
    trace = trace_of([4, 4], [9, 1], arrivals_s=[0.0, 0.007])
    steps = steps_of(serve(trace, small_options(async_scheduling=async_scheduling)))
    assert [number for number, step in enumerate(steps) if 1 in step.arrived] == [seen_by]


def test_by_priority_online_requests_go_before_offline_ones() -> None:
    options = small_options(scheduling_policy="priority", max_num_seqs=1)
    steps = steps_of(serve(trace_of([1, 2, 3], [1, 1, 1], is_offline=[True, False, False]), options))
    assert [step.batch for step in steps] == [[(1, 2)], [(2, 3)], [(0, 1)]]


def test_by_priority_the_least_important_gives_up_its_blocks_and_its_tokens() -> None:
    # Five blocks: the prompts take four, the fifth goes to row 0, offline, for its ninth token. When row 1
    # wants one, row 0 leaves the step that it was already in, though it was admitted first.
    options = small_options(scheduling_policy="priority", num_gpu_blocks=6)
    steps = steps_of(serve(trace_of([8, 7], [4, 4], [0.0, 0.002], is_offline=[True, False]), options))
    assert steps[3].preempted == [0]
    assert steps[3].batch == [(1, 1)]
    assert steps[2].batch == [(0, 1), (1, 1)]


def prefix_of(hashes: list[list[int]], block_tokens: int) -> PrefixBlocks:
    offsets = np.cumsum([0, *map(len, hashes)])
    return PrefixBlocks(np.array([hash_ for row in hashes for hash_ in row]), offsets, block_tokens)


def contexts(trace: Trace, **options: object) -> list[dict[int, int]]:
    """Return how many tokens of each request in a step were computed before, or found in the cache."""
    return [
        step.context for step in steps_of(serve(trace, small_options(enable_prefix_caching=True, **options)))
    ]


def test_a_cached_prefix_is_not_computed_again() -> None:
    trace = trace_of([12, 12], [1, 1], [0.0, 1.0], prefix=prefix_of([[7, 8, 9], [7, 8, 5]], 4))
    assert contexts(trace) == [{0: 0}, {}, {1: 8}]


def test_a_prefix_is_found_in_the_very_step_that_computes_it() -> None:
    trace = trace_of([8, 9], [1, 1], prefix=prefix_of([[7, 8], [7, 8, 9]], 4))
    assert contexts(trace) == [{0: 0, 1: 8}]


def test_one_token_at_least_is_computed_of_a_prompt_that_is_cached_as_a_whole() -> None:
    trace = trace_of([8, 8], [1, 1], [0.0, 1.0], prefix=prefix_of([[7, 8], [7, 8]], 4))
    assert contexts(trace) == [{0: 0}, {}, {1: 4}]


def test_equal_hashes_behind_different_ones_are_not_an_equal_prefix() -> None:
    trace = trace_of([12, 12], [1, 1], [0.0, 1.0], prefix=prefix_of([[7, 8, 9], [6, 8, 9]], 4))
    assert contexts(trace) == [{0: 0}, {}, {1: 0}]


def test_a_hash_of_many_tokens_covers_all_its_blocks() -> None:
    trace = trace_of([16, 16], [1, 1], [0.0, 1.0], prefix=prefix_of([[7, 8], [7, 5]], 8))
    assert contexts(trace) == [{0: 0}, {}, {1: 8}]


def test_a_block_of_many_hashes_is_cached_as_a_whole() -> None:
    trace = trace_of(
        [16, 16], [1, 1], [0.0, 1.0], prefix=prefix_of([[1, 2, 3, 4] * 2, [1, 2, 3, 4, 1, 2, 3, 5]], 2)
    )
    assert contexts(trace) == [{0: 0}, {}, {1: 12}]


def test_a_prompt_with_too_few_hashes_equals_others_only_as_far_as_they_go() -> None:
    trace = trace_of([16, 16, 16], [1, 1, 1], [0.0, 1.0, 2.0], prefix=prefix_of([[7], [7], [7, 7, 7, 7]], 4))
    assert contexts(trace) == [{0: 0}, {}, {1: 4}, {}, {2: 4}]


def test_the_end_of_a_freed_prompt_is_evicted_before_its_beginning() -> None:
    # Six blocks. Row 0 leaves three of them cached; row 1 takes the other three and one of those: the last.
    trace = trace_of(
        [12, 16, 12], [1, 1, 1], [0.0, 1.0, 2.0], prefix=prefix_of([[1, 2, 3], [4, 5, 6, 7], [1, 2, 3]], 4)
    )
    assert contexts(trace, num_gpu_blocks=7)[-1] == {2: 8}


def test_a_preempted_request_finds_its_own_blocks_again() -> None:
    # Four blocks, two for each prompt. Row 0 takes a third one from row 1, that of its last tokens; the other
    # is found again.
    trace = trace_of([8, 8], [4, 2])
    steps = steps_of(serve(trace, small_options(num_gpu_blocks=5, enable_prefix_caching=True)))
    assert [step.preempted for step in steps if step.preempted] == [[1]]
    back = next(step for step in steps[2:] if 1 in step.context)
    assert back.context[1] == 4
    assert back.batch[-1] == (1, 5)


def test_hashes_that_do_not_fit_the_block_size_are_refused() -> None:
    trace = trace_of([12], [1], prefix=prefix_of([[1, 2]], 6))
    with pytest.raises(
        ValueError, match="block_size must divide the 6 tokens of a prefix hash of lengths or be a"
    ):
        SimulatedEngine(trace, small_options(enable_prefix_caching=True), toy_table())


def test_newer_versions_do_not_cut_the_prompt_of_a_request_that_is_alone() -> None:
    cut = {"long_prefill_token_threshold": 4}
    assert batches([8], [1], **cut) == [[(0, 4)], [(0, 4)]]
    assert batches([8], [1], vllm_version="0.32.0", **cut) == [[(0, 8)]]
