"""Measured joules are divided among prefill, decode and idle so that nothing is lost or made up."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from toy_run import toy_run
from toy_table import toy_table

from backends.measured_split import (
    StepShares,
    shares_by_table,
    shares_by_tokens,
    split_by_table,
    split_energy,
)
from backends.step_log import STEP
from sim.step_cost import new_state, step_cost
from traces.record import Power


def steps_of(*rows: tuple[float, float, int, int]) -> NDArray[np.void]:
    """Return steps of (scheduled_s, done_s, prefill_tokens, decode_seqs)."""
    steps = np.zeros(len(rows), dtype=STEP)
    for row, (scheduled_s, done_s, prefill_tokens, decode_seqs) in enumerate(rows):
        steps[row]["scheduled_s"], steps[row]["done_s"] = scheduled_s, done_s
        steps[row]["chunks"], steps[row]["prefill_tokens"] = int(prefill_tokens > 0), prefill_tokens
        steps[row]["prefill_pairs"] = prefill_tokens * (prefill_tokens + 1) / 2
        steps[row]["decode_seqs"], steps[row]["kv_tokens"] = decode_seqs, 100 * decode_seqs
        steps[row]["longest_tokens"] = 100 if decode_seqs else 0
    return steps


def power_of(*points: tuple[float, float]) -> Power:
    time_s, energy_j = np.array(points, dtype=np.float64).T
    return Power(time_s, energy_j)


def test_a_gap_takes_idle_power_and_the_step_beside_it_the_rest() -> None:
    steps = steps_of((0.0, 0.4, 10, 0))
    split = split_energy(power_of((0, 0), (1, 300)), steps, 100.0, shares_by_tokens(steps))
    assert split.idle_j == pytest.approx(60.0)
    assert split.prefill_j == pytest.approx(240.0)
    assert split.decode_j == 0.0


def test_a_tick_without_a_step_is_all_idle() -> None:
    steps = steps_of((1.0, 2.0, 0, 8))
    power = power_of((0, 0), (1, 150), (2, 550), (3, 700))
    split = split_energy(power, steps, 100.0, shares_by_tokens(steps))
    assert (split.prefill_j, split.decode_j, split.idle_j) == pytest.approx((0.0, 400.0, 300.0))


def test_steps_that_overlap_follow_each_other() -> None:
    steps = steps_of((0.0, 0.5, 10, 0), (0.1, 1.0, 0, 4))
    split = split_energy(power_of((0, 0), (1, 500)), steps, 100.0, shares_by_tokens(steps))
    assert (split.prefill_j, split.decode_j, split.idle_j) == pytest.approx((250.0, 250.0, 0.0))


def test_a_mixed_step_is_shared_by_tokens() -> None:
    steps = steps_of((0.0, 1.0, 30, 10))
    split = split_energy(power_of((0, 0), (1, 400)), steps, 100.0, shares_by_tokens(steps))
    assert (split.prefill_j, split.decode_j) == pytest.approx((300.0, 100.0))


def test_weights_and_fractions_decide_who_gets_what_within_a_tick() -> None:
    steps = steps_of((0.0, 0.5, 10, 0), (0.5, 1.0, 0, 4))
    shares = StepShares(np.array([3.0, 1.0]), np.array([1.0, 0.0]))
    split = split_energy(power_of((0, 0), (1, 400)), steps, 100.0, shares)
    assert (split.prefill_j, split.decode_j) == pytest.approx((300.0, 100.0))


def test_a_cost_table_gives_a_heavy_step_more_power_and_a_mixed_one_its_parts() -> None:
    steps = steps_of((0.0, 0.1, 2000, 0), (0.1, 0.2, 0, 1), (0.2, 0.3, 100, 50))
    shares = shares_by_table(steps, toy_table().coefficients)
    assert shares.weight[0] > shares.weight[1]
    assert shares.prefill_fraction[:2].tolist() == pytest.approx([1.0, 0.0])
    assert 0.5 < shares.prefill_fraction[2] < 1.0


def test_a_step_that_waits_for_its_longest_context_has_less_power() -> None:
    equal = steps_of((0.0, 0.1, 0, 50))
    unequal = equal.copy()
    unequal["longest_tokens"] = 1000
    costs = toy_table().coefficients
    weights = [float(shares_by_table(steps, costs).weight[0]) for steps in (equal, unequal)]
    equal_s, _, joules, _, _ = step_cost(costs, new_state(), 0, 0, 0.0, 50, 5000, 100)
    assert weights == pytest.approx([joules / equal_s, joules / (equal_s + 900 * costs.per_longest)])
    assert weights[1] < weights[0]


def test_a_record_without_the_longest_contexts_is_split_as_if_all_were_equal() -> None:
    costs = toy_table().coefficients
    steps = steps_of((0.0, 4.0, 500, 20), (4.0, 9.0, 0, 50))
    log = {name: steps[name] for name in STEP.names or ()}
    unequal = {**log, "longest_tokens": np.array([1500, 2500])}
    equal, longer = (split_by_table(toy_run(), each, costs).meta.energy for each in (log, unequal))
    del log["longest_tokens"]
    assert split_by_table(toy_run(), log, costs).meta.energy == equal != longer


def test_no_step_at_all_leaves_idle_energy_only() -> None:
    steps = steps_of()
    split = split_energy(power_of((0, 0), (1, 120)), steps, 100.0, shares_by_tokens(steps))
    assert (split.prefill_j, split.decode_j, split.idle_j) == pytest.approx((0.0, 0.0, 120.0))


@given(
    gaps=st.lists(st.floats(0, 0.5), max_size=12),
    lengths=st.lists(st.floats(1e-3, 0.5), min_size=12, max_size=12),
    tokens=st.lists(st.tuples(st.integers(0, 99), st.integers(1, 99)), min_size=12, max_size=12),
    watts=st.lists(st.floats(0, 900), min_size=1, max_size=40),
    idle_w=st.floats(0, 300),
)
def test_the_parts_sum_to_the_counter_and_none_is_negative(
    gaps: list[float],
    lengths: list[float],
    tokens: list[tuple[int, int]],
    watts: list[float],
    idle_w: float,
) -> None:
    rows, at_s = [], 0.0
    for gap_s, length_s, (prefill_tokens, decode_seqs) in zip(gaps, lengths, tokens, strict=False):
        rows.append((at_s + gap_s, at_s + gap_s + length_s, prefill_tokens, decode_seqs))
        at_s += gap_s + length_s
    steps = steps_of(*rows)
    ticks_s = np.linspace(0.0, 0.1 * len(watts), len(watts) + 1)
    power = Power(ticks_s, np.concatenate([[0.0], np.cumsum(0.1 * np.array(watts))]))
    split = split_energy(power, steps, idle_w, shares_by_tokens(steps))
    assert split.total_j == pytest.approx(power.energy_j[-1], abs=1e-9)
    assert min(split.prefill_j, split.decode_j, split.idle_j) >= -1e-9
