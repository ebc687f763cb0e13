"""A run over time: means over stretches against brute force, and sums that must come out."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy_run import toy_run

from sim.report_time import PHASES, kv_tokens, mean_sum, moments_s, series, step_mean, stretch_s
from traces.record import UNFINISHED
from traces.trace import Floats

EDGES_S = np.array([0.0, 1.0, 2.0, 4.0])
SPANS = st.lists(st.tuples(st.floats(0, 5), st.floats(0, 5), st.floats(0, 10)), max_size=12)


def overlap_s(from_s: float, to_s: float, begin_s: float, end_s: float) -> float:
    return max(0.0, min(to_s, end_s) - max(from_s, begin_s))


@given(SPANS)
def test_a_mean_sum_is_the_weighted_overlap_by_the_length_of_the_stretch(
    spans: list[tuple[float, float, float]],
) -> None:
    from_s = np.array([min(one, other) for one, other, _ in spans])
    to_s = np.array([max(one, other) for one, other, _ in spans])
    weights = np.array([weight for _, _, weight in spans])
    expected = [
        sum(
            weight * overlap_s(begin, end, left, right)
            for begin, end, weight in zip(from_s, to_s, weights, strict=True)
        )
        / (right - left)
        for left, right in pairwise(EDGES_S)
    ]
    assert mean_sum(from_s, to_s, EDGES_S, weights) == pytest.approx(np.array(expected), abs=1e-9)


def test_waiting_and_decoding_are_counted_from_the_moments_of_the_requests() -> None:
    over_time = series(toy_run(), None, 1.0)
    assert over_time.held.tolist() == [0.5, 0, 0, 0, 0, 0, 0, 0, 0, 0]
    # Request 0 waits from 0.5 to 1, 1 from 1 to 3, 3 from 3 to 3.25; 2 failed and left at its release.
    assert over_time.queued == pytest.approx(np.array([0.5, 1, 1, 0.25, 0, 0, 0, 0, 0, 0]))
    # Request 0 decodes from 1 to 3, 1 from 3 to 10.
    assert over_time.decoding == pytest.approx(np.array([0, 1, 1, 1, 1, 1, 1, 1, 1, 1]))


def test_an_unfinished_request_waits_to_the_end_and_a_failed_one_leaves() -> None:
    status = [1, 1, UNFINISHED, 1]
    *_, first_s, finished_s = moments_s(toy_run(status=status).outcomes, 10.0)
    assert (first_s[2], finished_s[2]) == (10.0, 10.0)
    *_, first_s, finished_s = moments_s(toy_run().outcomes, 10.0)
    assert (first_s[2], finished_s[2]) == (2.0, 2.0)


@pytest.mark.parametrize("width_s", [0.1, 0.3, 3.0, 20.0])
def test_phases_sum_to_the_power_and_power_to_the_energy(width_s: float) -> None:
    run = toy_run(counter_s=[0.0, 2.5, 5.0, 10.0], counter_j=[0.0, 300.0, 1600.0, 2400.0])
    over_time = series(run, None, width_s)
    assert over_time.power_w is not None
    assert over_time.phase_w is not None
    assert over_time.energy_j is not None
    assert sum(over_time.phase_w.values()) == pytest.approx(over_time.power_w)
    assert float(over_time.power_w @ np.diff(over_time.edges_s)) == pytest.approx(2400.0)
    assert over_time.energy_j[-1] == pytest.approx(2400.0)


def test_a_moment_is_prefill_before_it_is_decode_and_decode_before_it_is_idle() -> None:
    over_time = series(toy_run(), None, 0.5)
    assert over_time.phase_w is not None
    prefill, decode, idle = (over_time.phase_w[name] > 0 for name in PHASES)
    # 0 to 0.5: nothing released. 0.5 to 3: one waits for its first token. 3 to 3.25: another does.
    assert idle.tolist() == [True] + [False] * 19
    assert prefill.tolist() == [False] + [True] * 6 + [False] * 13
    assert decode.tolist() == [False] * 6 + [True] * 14


def test_a_step_holds_until_the_next_one_of_its_replica_and_replicas_are_summed() -> None:
    steps = {
        "replica": np.array([0, 1, 0]),
        "scheduled_s": np.array([0.0, 0.0, 1.0]),
        "done_s": np.array([1.5, 2.0, 2.0]),
    }
    values = np.array([10.0, 100.0, 20.0])
    assert step_mean(steps, values, EDGES_S).tolist() == [110.0, 120.0, 0.0]


def test_the_kv_cache_holds_the_prompts_and_the_output_so_far_of_decoding_requests() -> None:
    edges_s: Floats = np.array([1.0, 3.0, 10.0])
    # In the middle of 1 to 3 request 0 has its 10 prompt tokens and half of its 5 output tokens; in the
    # middle of 3 to 10 request 1 has 20 and half of 8.
    assert kv_tokens(toy_run().outcomes, edges_s) == pytest.approx(np.array([12.5, 24.0]))


def test_the_part_of_the_cache_counts_every_block_but_the_null_block() -> None:
    steps = {
        "scheduled_s": np.array([0.0]),
        "done_s": np.array([10.0]),
        "running": np.array([3]),
        "free_blocks": np.array([75]),
    }
    run = toy_run(engine_options={"num_gpu_blocks": 101, "block_size": 16})
    over_time = series(run, steps, 10.0)
    assert over_time.batch is not None
    assert over_time.batch_kv_fraction is not None
    assert over_time.batch.tolist() == [3.0]
    assert over_time.batch_kv_fraction.tolist() == [0.25]
    assert series(toy_run(), None, 10.0).kv_fraction is None


def test_a_run_without_a_meter_has_no_power_and_keeps_its_requests() -> None:
    over_time = series(toy_run(energy=None, counter_s=[], counter_j=[]), None, 1.0)
    assert over_time.power_w is None
    assert over_time.phase_w is None
    assert over_time.decoding.sum() == pytest.approx(9.0)


@given(st.lists(st.floats(0.01, 1e7), min_size=1, max_size=8))
def test_a_stretch_is_round_and_all_runs_together_have_few(makespans_s: list[float]) -> None:
    width_s = stretch_s(makespans_s)
    digits = f"{width_s:.6e}".partition("e")[0]
    assert digits.rstrip("0").rstrip(".") in ("1", "2", "5")
    assert sum(makespans_s) / width_s <= 20_000 * (1 + 1e-6)
