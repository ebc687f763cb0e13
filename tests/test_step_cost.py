"""Laws of what a step costs: non-negative, monotone, split without a rest, and governed at the cap."""

import math

import numba
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from toy_table import TOY_TABLE

from sim.step_cost import (
    LOWEST_CLOCK,
    SLOWNESS,
    SPENT_J,
    WARMTH,
    Coefficients,
    Work,
    capped_clock,
    gap_energy,
    logged_longest,
    new_state,
    step_cost,
)
from traces.trace import Floats

TOY = TOY_TABLE.coefficients
CAPPED = TOY._replace(
    cap_w=690.0,
    allowance_j=25.0,
    gamma=2.5,
    busy_w=200.0,
    tail_w=40.0,
    tail_s=0.02,
    prompt_s=TOY.prompt_s + 4e-6 * TOY.prompt_knots,
    prompt_j=TOY.prompt_j + 2e-3 * TOY.prompt_knots,
    per_kv_mixed=np.array([1e-8, 5e-6]),
    per_longest=2e-7,
    most_alone=0.1,
    padded=np.array([*range(65), *(8 * np.ceil(np.arange(65, 513) / 8))], dtype=np.int64),
)
"""A GPU on which long prompts draw more than the cap and small decode batches less."""
GREEDY = (1, 4096, 8.4e6, 0, 0, 0)
FRUGAL = (0, 0, 0.0, 1, 500, 500)

Load = tuple[int, int, float, int, int, int]
"""Chunks, prefill tokens, query-key pairs, decoding sequences, KV tokens, the longest's: see `step_cost`."""

ONE_MORE: dict[str, Load] = {
    "prefill_tokens": (0, 1, 0.0, 0, 0, 0),
    "chunks": (1, 0, 0.0, 0, 0, 0),
    "pairs": (0, 0, 1000.0, 0, 0, 0),
    "decode_seqs": (0, 0, 0.0, 1, 0, 0),
    "kv_tokens": (0, 0, 0.0, 0, 100, 0),
    "longest_tokens": (0, 0, 0.0, 0, 100, 100),
}


def monotone_coefficients() -> st.SearchStrategy[Coefficients]:
    """Draw tables whose knots rise, with and without a cap."""
    rises = st.lists(st.floats(0.0, 2.0), min_size=4, max_size=4)
    return st.builds(
        lambda rises_s, rises_j, per, most_alone, cap_w, allowance_j, gamma: CAPPED._replace(
            knots=np.array([1.0, 32.0, 512.0, 4096.0]),
            linear_s=0.004 * np.cumsum([1.0, *rises_s[1:]]),
            linear_j=2.0 * np.cumsum([1.0, *rises_j[1:]]),
            prompt_knots=np.array([1.0, 64.0, 512.0, 2048.0]),
            prompt_s=0.004 * np.cumsum([1.0 + rises_s[0], *rises_s[1:]]),
            prompt_j=2.0 * np.cumsum([1.0 + rises_j[0], *rises_j[1:]]),
            per_chunk=per[0] * np.array([1e-4, 0.1]),
            per_pair=per[1] * np.array([1e-9, 5e-7]),
            per_seq=per[2] * np.array([1e-5, 1e-3]),
            per_kv=per[3] * np.array([3e-8, 1e-5]),
            per_longest=per[4] * 2e-7,
            most_alone=most_alone,
            cap_w=cap_w,
            allowance_j=allowance_j,
            gamma=gamma,
        ),
        rises,
        rises,
        st.lists(st.floats(0.0, 3.0), min_size=5, max_size=5),
        st.floats(0.01, 1.0),
        st.sampled_from([np.inf, 900.0, 690.0, 500.0]),
        st.sampled_from([0.0, 25.0]),
        st.floats(1.0, 3.0),
    )


def loads() -> st.SearchStrategy[Load]:
    """Draw what a step may hold, at least one token of it."""

    def load(chunks: int, tokens: int, context: int, seqs: int, kv_tokens: int, alone: float) -> Load:
        tokens = max(tokens, chunks) if chunks else 0
        pairs = tokens * (context + (tokens + 1) / 2)
        if not seqs:
            return chunks, tokens, pairs, 0, 0, 0
        return chunks, tokens, pairs, seqs, kv_tokens, max(-(-kv_tokens // seqs), round(alone * kv_tokens))

    drawn = st.builds(
        load,
        st.integers(0, 4),
        st.integers(1, 9000),
        st.integers(0, 16000),
        st.integers(0, 600),
        st.integers(1, 500_000),
        st.floats(0.0, 1.0),
    )
    return drawn.filter(lambda load: load[1] + load[3] > 0)


def cost(c: Coefficients, load: Load, state: Floats | None = None) -> tuple[float, float]:
    """Return seconds and joules of a step, on a GPU at rest unless a state is given."""
    seconds, prefill_j, decode_j, _, _ = step_cost(c, new_state() if state is None else state, *load)
    return seconds, prefill_j + decode_j


def plus(one: Load, other: Load) -> Load:
    chunks, tokens, pairs, seqs, kv_tokens, longest = (a + b for a, b in zip(one, other, strict=True))
    return int(chunks), int(tokens), pairs, int(seqs), int(kv_tokens), int(longest)


def spent(c: Coefficients) -> Floats:
    state = new_state()
    state[SPENT_J] = c.allowance_j
    return state


@given(monotone_coefficients(), loads())
def test_a_step_takes_time_and_energy_and_no_part_is_negative(c: Coefficients, load: Load) -> None:
    seconds, prefill_j, decode_j, kv_j, _ = step_cost(c, new_state(), *load)
    assert seconds > 0
    assert prefill_j >= 0
    assert 0 <= kv_j <= decode_j * (1 + 1e-12)
    assert prefill_j + decode_j > 0


@given(monotone_coefficients(), loads(), st.sampled_from(list(ONE_MORE)), st.booleans())
def test_more_in_a_step_never_costs_less(c: Coefficients, load: Load, what: str, is_held: bool) -> None:
    assume(what in ("prefill_tokens", "decode_seqs") or (load[1] if what in ("chunks", "pairs") else load[3]))
    assume(
        what != "prefill_tokens" or load[1] or not load[3]
    )  # with a chunk, a step is not padded with sequences
    states = [spent(c) if is_held else new_state() for _ in range(2)]
    seconds, joules = cost(c, load, states[0])
    more_s, more_j = cost(c, plus(load, ONE_MORE[what]), states[1])
    assert more_s >= seconds * (1 - 1e-8)
    assert more_j >= joules * (1 - 1e-8)


@given(loads())
def test_prefill_and_decode_share_the_joules_of_the_step(load: Load) -> None:
    free = CAPPED._replace(cap_w=np.inf)
    seconds, prefill_j, decode_j, kv_j, _ = step_cost(free, new_state(), *load)
    tokens = load[1] + load[3]
    padded = float(free.padded[tokens]) if tokens < len(free.padded) else float(tokens)
    curve = (free.prompt_knots, free.prompt_s, free.prompt_j) if load[1] else free[:3]
    linear_s, linear_j = line(padded, curve[0], curve[1]), line(padded, curve[0], curve[2])
    chunks, prefill_tokens, pairs, seqs, kv_tokens, longest_tokens = load
    alone_s = free.per_longest * min(longest_tokens, free.most_alone * kv_tokens)
    padded_seqs = seqs if prefill_tokens else padded
    parts_s, parts_j = (
        linear
        + free.per_chunk[i] * chunks
        + free.per_pair[i] * pairs
        + free.per_seq[i] * padded_seqs
        + (free.per_kv[i] + (free.per_kv_mixed[i] if prefill_tokens else 0.0)) * kv_tokens
        + (alone_s, 0.0)[i]
        for i, linear in enumerate((linear_s, linear_j))
    )
    assert seconds == pytest.approx(parts_s, rel=1e-9)
    assert prefill_j + decode_j == pytest.approx(parts_j + free.busy_w * parts_s, rel=1e-9)
    if seqs == 0:
        assert (decode_j, kv_j) == (0.0, 0.0)
    if prefill_tokens == 0:
        assert prefill_j == 0.0


def line(x: float, knots: Floats, values: Floats) -> float:
    """Interpolate, straight on beyond the last knot."""
    if x <= knots[-1]:
        return float(np.interp(x, knots, values))
    slope = (values[-1] - values[-2]) / (knots[-1] - knots[-2])
    return float(values[-1] + slope * (x - knots[-1]))


@pytest.mark.parametrize("prompts", [(0, 0, 0.0), (2, 300, 9e4)], ids=["decode", "mixed"])
def test_the_longest_context_takes_time_of_its_own_up_to_a_share_of_all(
    prompts: tuple[int, int, float],
) -> None:
    free = CAPPED._replace(cap_w=np.inf)

    def more(longest_tokens: int) -> tuple[float, float]:
        """Return the seconds and joules on top of those of 20 equal contexts, if their own were free."""
        none_s, none_j = cost(free._replace(per_longest=0.0), (*prompts, 20, 40_000, 2000))
        seconds, joules = cost(free, (*prompts, 20, 40_000, longest_tokens))
        return seconds - none_s, joules - none_j

    most = round(free.most_alone * 40_000)
    for longest_tokens in (2000, 3000, most - 1, most, most + 1, 40_000):
        own_s = free.per_longest * min(longest_tokens, most)
        assert more(longest_tokens) == pytest.approx((own_s, free.busy_w * own_s), rel=1e-9)


@given(loads(), st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_who_waits_for_the_longest_context_waits_for_what_it_has_beyond_the_mean_and_rests(
    load: Load, beyond_mean: float, resting: float
) -> None:
    free = CAPPED._replace(cap_w=np.inf, beyond_mean=beyond_mean, resting=resting)
    none_s, none_j = cost(free._replace(per_longest=0.0), load)
    seconds, joules = cost(free, load)
    _, _, _, seqs, kv_tokens, longest_tokens = load
    more_tokens = longest_tokens - beyond_mean * kv_tokens / max(seqs, 1)
    alone_s = free.per_longest * min(more_tokens, free.most_alone * kv_tokens)
    assert seconds - none_s == pytest.approx(alone_s, rel=1e-6, abs=1e-12)
    assert joules - none_j == pytest.approx(resting * free.busy_w * alone_s, rel=1e-6, abs=1e-9)


def test_nobody_waits_for_the_longest_of_equal_contexts_if_all_of_the_mean_is_taken_off() -> None:
    beyond = CAPPED._replace(beyond_mean=1.0, resting=0.5)
    for seqs in (1, 2, 20, 300):
        equal: Load = (0, 0, 0.0, seqs, 1500 * seqs, 1500)
        assert cost(beyond, equal) == pytest.approx(cost(beyond._replace(per_longest=0.0), equal), rel=1e-12)
        assert cost(CAPPED, equal)[0] > cost(beyond, equal)[0]
    floored: Load = (0, 0, 0.0, 3, 1000, 333)
    assert cost(beyond, floored) == cost(beyond._replace(per_longest=0.0), floored)


def test_a_log_without_the_longest_contexts_gives_the_mean() -> None:
    log = {"decode_seqs": np.array([0, 3, 2]), "kv_tokens": np.array([0, 300, 41])}
    assert logged_longest(log).tolist() == [0, 100, 20]
    assert logged_longest({**log, "longest_tokens": np.array([0.0, 150.0, 40.0])}).tolist() == [0, 150, 40]


def test_a_step_costs_what_the_size_it_is_padded_to_costs() -> None:
    padding = TOY._replace(padded=CAPPED.padded)
    costs = {seqs: cost(padding, (0, 0, 0.0, seqs, 500, 100)) for seqs in (65, 72, 73)}
    assert costs[65] == costs[72] < costs[73]


def test_sustained_work_above_the_cap_draws_the_cap() -> None:
    state = spent(CAPPED)
    for load in (GREEDY, (2, 2048, 3e6, 100, 50_000, 1000), (1, 8192, 3.4e7, 0, 0, 0)):
        free_s, free_j = cost(CAPPED._replace(cap_w=np.inf), load)
        assert free_j / free_s > CAPPED.cap_w
        seconds, joules = cost(CAPPED, load, state)
        assert joules / seconds == pytest.approx(CAPPED.cap_w, rel=1e-6)
        assert seconds > free_s
        assert joules < free_j


@numba.njit  # type: ignore[untyped-decorator]
def clock_of(c: Coefficients, work: Work) -> float:
    """Return the capped clock: only compiled functions can call `capped_clock`."""
    return capped_clock(c.cap_w - c.busy_w, c.gamma, work)


def drawn_w(c: Coefficients, work: Work, clock: float) -> float:
    """Return the power of some work at a fraction of the full clock."""
    seconds = work.fixed_s + work.scaled_s / clock
    return float((work.fixed_j + work.scaled_j * clock**c.gamma) / seconds + c.busy_w)


works = st.builds(
    Work, st.floats(1e-3, 0.5), st.floats(1e-6, 0.5), st.floats(0.0, 200.0), st.floats(1e-3, 400.0)
)
governed = st.builds(
    lambda gamma, busy_w: CAPPED._replace(gamma=gamma, busy_w=busy_w),
    st.floats(1.0, 4.0),
    st.floats(0.0, 400.0),
)


@given(governed, works, st.floats(LOWEST_CLOCK, 1.0))
def test_at_the_capped_clock_work_draws_the_cap(c: Coefficients, work: Work, clock: float) -> None:
    c = c._replace(cap_w=drawn_w(c, work, clock))
    assume(drawn_w(c, work, 1.0) > c.cap_w)
    found = clock_of(c, work)
    assert LOWEST_CLOCK <= found <= 1.0
    assert drawn_w(c, work, found) == pytest.approx(c.cap_w, rel=1e-9)


@given(governed, works, st.floats(0.01, 0.99), st.booleans())
def test_work_that_draws_more_than_the_cap_even_at_the_lowest_clock_runs_at_it(
    c: Coefficients, work: Work, share: float, is_fixed: bool
) -> None:
    work = work._replace(scaled_s=0.0, scaled_j=0.0, fixed_j=work.fixed_j + 1.0) if is_fixed else work
    c = c._replace(cap_w=share * drawn_w(c, work, LOWEST_CLOCK))
    assert clock_of(c, work) == LOWEST_CLOCK


def test_the_allowance_is_spent_once_and_earned_back_below_the_cap() -> None:
    state = new_state()

    def excess_of_steps(steps: int) -> float:
        total_s, total_j = np.array([cost(CAPPED, GREEDY, state) for _ in range(steps)]).sum(axis=0)
        return float(total_j - CAPPED.cap_w * total_s)

    first = excess_of_steps(1)
    assert 0 < first < CAPPED.allowance_j
    assert first + excess_of_steps(30) == pytest.approx(CAPPED.allowance_j, rel=1e-6)
    assert excess_of_steps(10) == pytest.approx(0.0, abs=1e-4)

    below_s, below_j = cost(CAPPED, FRUGAL, state)
    earned_j = CAPPED.cap_w * below_s - below_j
    assert 0 < earned_j < CAPPED.allowance_j
    assert excess_of_steps(10) == pytest.approx(earned_j, rel=1e-4)

    assert gap_energy(CAPPED, state, 10.0) < CAPPED.cap_w * 10.0
    assert excess_of_steps(30) == pytest.approx(CAPPED.allowance_j, rel=1e-6)


def test_the_first_steps_of_a_burst_run_at_full_clock() -> None:
    assert cost(CAPPED, GREEDY) == cost(CAPPED._replace(cap_w=np.inf), GREEDY)


@given(st.integers(1, 40), st.integers(1, 200_000), st.booleans())
def test_work_below_the_cap_is_not_touched_by_the_governor(seqs: int, kv_tokens: int, is_held: bool) -> None:
    load = (0, 0, 0.0, seqs, kv_tokens, -(-kv_tokens // seqs))
    free = cost(CAPPED._replace(cap_w=np.inf), load)
    assume(free[1] / free[0] <= CAPPED.cap_w)
    state = spent(CAPPED) if is_held else new_state()
    assert cost(CAPPED, load, state) == free


def test_a_step_that_waits_for_its_launch_draws_busy_power() -> None:
    seconds, joules = cost(CAPPED, FRUGAL)
    longer_s, prefill_j, decode_j, _, _ = step_cost(CAPPED, new_state(), *FRUGAL, seconds + 0.004)
    assert longer_s == pytest.approx(seconds + 0.004)
    assert prefill_j + decode_j == pytest.approx(joules + 0.004 * CAPPED.busy_w)
    assert step_cost(CAPPED, new_state(), *FRUGAL, 0.5 * seconds)[0] == seconds


def test_power_after_a_step_falls_to_idle_by_its_closed_form() -> None:
    state = new_state()
    cost(CAPPED, FRUGAL, state)
    assert state[WARMTH] == 1.0
    gap_s = 0.03
    tail_j = CAPPED.tail_w * CAPPED.tail_s * (1 - np.exp(-gap_s / CAPPED.tail_s))
    assert gap_energy(CAPPED, state, gap_s) == pytest.approx(CAPPED.idle_w * gap_s + tail_j)
    assert gap_energy(CAPPED, new_state(), gap_s) == pytest.approx(CAPPED.idle_w * gap_s)


@given(st.floats(0.0, 1.0), st.floats(0.0, 1.0), st.floats(0.0, 25.0))
def test_the_energy_of_two_gaps_is_that_of_one(first_s: float, second_s: float, spent_j: float) -> None:
    in_two, in_one = np.array([spent_j, 1.0]), np.array([spent_j, 1.0])
    twice_j = gap_energy(CAPPED, in_two, first_s) + gap_energy(CAPPED, in_two, second_s)
    assert twice_j == pytest.approx(gap_energy(CAPPED, in_one, first_s + second_s))
    assert in_two == pytest.approx(in_one, abs=1e-9)


@pytest.mark.parametrize(
    "above",
    [
        (1, 1001, 1e6, 100, 90_000, 900),
        (1, 1000, 1e6, 101, 90_000, 900),
        (1, 1000, 1e6, 100, 90_001, 901),
        (1, 1000, 1.1e6, 100, 90_000, 900),
    ],
)
def test_a_step_is_outside_the_table_just_above_each_limit(above: Load) -> None:
    limited = TOY._replace(limits=np.array([1000.0, 100.0, 90_000.0, 1e6]))
    assert not step_cost(limited, new_state(), 1, 1000, 1e6, 100, 90_000, 900)[4]
    assert step_cost(limited, new_state(), *above)[4]


DECODE: Load = (0, 0, 0.0, 8, 4000, 500)
PROMPTS: Load = (4, 8000, 8e6, 0, 0, 0)


def decode_s_after(c: Coefficients, prompts: int, gap_s: float = 0.0) -> float:
    """Return how long a decode step takes after steps with prompts and a pause."""
    state = new_state()
    for _ in range(prompts):
        cost(c, PROMPTS, state)
    gap_energy(c, state, gap_s)
    return cost(c, DECODE, state)[0]


def test_a_step_soon_after_work_above_the_cap_takes_longer() -> None:
    c = CAPPED._replace(drag=0.5, recovery_s=0.05)
    at_rest_s = decode_s_after(c, 0)
    state = new_state()
    cost(c, PROMPTS, state)
    assert 0 < state[SLOWNESS] < 1
    expected_s = at_rest_s + c.drag * state[SLOWNESS] * c.linear_s[0]
    assert decode_s_after(c, 1) == pytest.approx(expected_s)
    assert decode_s_after(c, 2) > decode_s_after(c, 1)
    late_s = [decode_s_after(c, 1, gap_s) - at_rest_s for gap_s in (0.0, 0.05, 0.1)]
    assert late_s[:-1] == pytest.approx([math.e * late for late in late_s[1:]])


def test_without_drag_nothing_is_late() -> None:
    assert decode_s_after(CAPPED, 3) == decode_s_after(CAPPED, 0)
