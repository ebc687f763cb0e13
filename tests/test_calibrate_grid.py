"""The grid: what a calibration measures, as far as the engine can hold it, in an order that a seed fixes."""

import re
from collections import Counter
from dataclasses import replace
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibrate.grid import (
    CACHED,
    SCANNED,
    SHORTEST,
    GridName,
    Kind,
    Limits,
    Point,
    contexts,
    loads,
    order,
    scanned_lengths,
)

SERVED = Limits(max_num_seqs=1024, max_num_batched_tokens=8192, kv_tokens=900_000, max_model_len=131_072)
BARE = Limits(max_num_seqs=128, max_num_batched_tokens=2048, kv_tokens=900_000, max_model_len=131_072)


def full(limits: Limits) -> list[Point]:
    return list(loads(limits, "full"))


@pytest.mark.parametrize("grid", ["full", "standard", "quick"])
def test_every_kind_of_load_is_in_a_grid_for_a_table(grid: GridName) -> None:
    assert {point.kind for point in loads(SERVED, grid)} == set(get_args(Kind))


def test_prompts_of_the_standard_grid_do_not_wait_for_one_another() -> None:
    mixed = [point for point in loads(SERVED, "standard") if point.kind == "mixed"]
    assert all(point.gap_s > 0 and not point.streams for point in mixed)
    assert all(len(set(contexts(point))) > 1 for point in mixed)


def test_the_loads_for_one_card_are_loads_of_the_other_grids() -> None:
    known = {*loads(SERVED, "full"), *loads(SERVED, "standard")}
    assert set(loads(SERVED, "card")) <= known


def test_the_full_grid_covers_what_vllm_serve_does_by_default() -> None:
    points = full(SERVED)
    assert max(point.batch for point in points if point.kind == "decode") >= 512
    assert max(point.context_tokens for point in points if point.kind == "decode") >= 16_000
    chunks = [point.chunk_tokens for point in points if point.kind == "prefill" and not point.context_tokens]
    assert {min(chunks), max(chunks)} == {64, 8192}
    assert {point.batch for point in points if point.kind == "mixed"} >= {8, 64, 512}


def test_the_full_grid_covers_a_bare_engine_too() -> None:
    points = full(BARE)
    assert max(point.batch for point in points if point.kind == "decode") == BARE.max_num_seqs
    alone = [point for point in points if point.kind == "prefill" and point.streams == 2]
    assert max(point.chunk_tokens for point in alone) == BARE.max_num_batched_tokens


def test_no_load_is_in_a_grid_twice_and_each_has_a_key_of_its_own() -> None:
    points = full(SERVED)
    assert max(Counter(points).values()) == 1
    assert len({point.key for point in points}) == len(points)


def test_a_key_tells_the_repeats_of_a_load_apart() -> None:
    point = Point("decode", batch=8, context_tokens=128)
    assert re.fullmatch(r"decode-8-128-[\d.-]*-0", point.key)
    assert replace(point, repeat=1).key != point.key


limits = st.builds(
    Limits,
    max_num_seqs=st.integers(1, 1024),
    max_num_batched_tokens=st.integers(128, 16_384),
    kv_tokens=st.integers(1_000, 2_000_000),
    max_model_len=st.integers(600, 131_072),
)


@given(limits, st.sampled_from(["full", "standard", "card", "quick"]))
def test_every_load_fits_the_engine(engine: Limits, grid: GridName) -> None:
    for point in loads(engine, grid):
        longest = point.context_tokens + point.chunk_tokens + point.output_tokens
        assert longest <= engine.max_model_len
        assert point.batch <= engine.max_num_seqs - bool(point.streams)
        assert point.batch * point.context_tokens <= engine.kv_tokens
        if point.kind == "mixed":
            assert point.batch < engine.max_num_batched_tokens


@given(limits, limits)
def test_an_engine_that_holds_more_of_everything_loses_no_decode_load(one: Limits, other: Limits) -> None:
    larger = Limits(
        max(one.max_num_seqs, other.max_num_seqs),
        max(one.max_num_batched_tokens, other.max_num_batched_tokens),
        max(one.kv_tokens, other.kv_tokens),
        max(one.max_model_len, other.max_model_len),
    )
    decodes = {point for point in full(one) if point.kind == "decode"}
    assert decodes <= set(full(larger))


@given(st.integers(1, 4), st.integers(0, 2**32))
def test_an_order_holds_each_load_once_a_round(repeats: int, seed: int) -> None:
    points = list(loads(SERVED, "quick"))
    ordered = order(points, repeats, seed)
    for repeat in range(repeats):
        of_round = ordered[repeat * len(points) : (repeat + 1) * len(points)]
        assert sorted(point.key for point in of_round) == sorted(
            replace(point, repeat=repeat).key for point in points
        )


def test_an_order_is_its_seeds_and_each_round_has_its_own() -> None:
    points = full(SERVED)
    ordered = order(points, 2, seed=7)
    assert order(points, 2, seed=7) == ordered
    assert order(points, 2, seed=8) != ordered
    first, second = ordered[: len(points)], ordered[len(points) :]
    assert [replace(point, repeat=0) for point in second] != first


def test_loads_that_live_off_the_prefix_cache_come_first_in_each_round() -> None:
    points = full(SERVED)
    for repeat in range(3):
        of_round = order(points, 3, seed=1)[repeat * len(points) : (repeat + 1) * len(points)]
        is_late = [point.kind not in CACHED for point in of_round]
        assert is_late == sorted(is_late)


@given(st.integers(1, 300), st.integers(64, 5000))
def test_a_ragged_batch_has_unequal_contexts_of_the_given_mean(batch: int, mean: int) -> None:
    ragged = contexts(Point("ragged", batch=batch, context_tokens=mean))
    assert len(ragged) == batch
    assert abs(sum(ragged) / batch - mean) <= 0.02 * mean + 1
    assert batch == 1 or len(set(ragged)) > 1


@given(st.integers(4096, 100_000), st.integers(0, 5))
def test_a_scan_spans_all_lengths_and_each_repeat_takes_others(longest: int, repeat: int) -> None:
    scan = Point("scan", chunk_tokens=longest, repeat=repeat)
    lengths = scanned_lengths(scan)
    assert len(lengths) == SCANNED
    assert lengths == sorted(lengths)
    assert SHORTEST <= lengths[0] < 1.05 * SHORTEST
    assert 0.95 * longest < lengths[-1] <= longest
    another = scanned_lengths(replace(scan, repeat=repeat + 1))
    assert len(set(lengths) & set(another)) < SCANNED / 2


def test_other_batches_have_equal_contexts() -> None:
    assert contexts(Point("decode", batch=3, context_tokens=128)) == [128, 128, 128]
