"""What a step costs: seconds and joules by what the step holds, and by what the power governor still allows.

The model. At full clock a step takes `fixed_s + scaled_s` and `fixed_j + scaled_j + busy_w * seconds`: fixed
is what does not wait for the SM clock (weights and KV read from memory, sampling), scaled what does (matrix
products of more than one token, prefill attention). The governor lets the GPU draw more than `cap_w` until
`allowance_j` is spent; then the clock falls to the fraction r at which the step draws `cap_w`: scaled_s / r
seconds, scaled_j * r**gamma joules. Work below the cap earns the allowance back; while the clock still comes
back, which takes about `recovery_s`, the fixed part of its steps takes a little longer, too. After a step,
power falls to `idle_w` with the time constant `tail_s`.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from sim.compiled import compiled, compiled_entry
from traces.trace import Floats, Ints

SPENT_J = 0
"""Where the state keeps the joules drawn above the cap and not yet earned back."""

WARMTH = 1
"""Where the state keeps what is left of the power's tail, 1 at a step's end."""

SLOWNESS = 2
"""Where the state keeps how far the clock is below full, as a fraction, after work above the cap."""

LOWEST_CLOCK = 0.4
CLOCK_ROUNDS = 30
CLOCK_PRECISION = 1e-12


class Coefficients(NamedTuple):
    """The fitted numbers of a cost table, as the compiled engine takes them. Pairs are (seconds, joules).

    Attributes:
        knots: Tokens in a step that only decodes at which its linear layers were fitted, ascending, shape
            (knots,).
        linear_s, linear_j: Seconds and joules of the linear layers at the knots; the first knot's are fixed,
            what comes on top is scaled, shape (knots,).
        prompt_knots: The same for a step that holds prompts too: other kernels and no graph of all of it.
        prompt_s, prompt_j: What its linear layers take at these knots, none less than `linear_s[0]` and
            `linear_j[0]`, which are the fixed part here as well, shape (prompt knots,).
        per_pair: For each query-key pair of prefill attention, scaled.
        per_chunk: For each prefill chunk, fixed.
        per_seq: For each decoding sequence, those that a pure decode step is padded with included, fixed.
        per_kv: For each KV token read in decode, fixed.
        per_kv_mixed: For each KV token on top of that, if prompts are in the step too, fixed: one attention
            kernel then serves both, which suits decode less.
        per_longest: Seconds for each KV token of the longest context that decodes, fixed: the others' are
            read by then, and few blocks of the GPU still work.
        most_alone: Share of the step's KV tokens beyond which attention splits a context among blocks, so
            that no more of it counts as longest.
        beyond_mean: What of the mean context does not count as longest: 1 if nobody waits for the longest of
            equal contexts, 0 in tables fitted before that was known.
        resting: Share of `busy_w` that the GPU draws while it waits for the longest context.
        padded: Tokens that a step of i tokens is padded to by CUDA graphs, shape (largest graph + 1,).
        limits: Largest measured prefill tokens, decode sequences, KV tokens and pairs of a step, shape (4,).
        idle_w: Power without work, all GPUs, model loaded.
        busy_w: Power of a step besides its joules.
        cap_w: Power that the governor holds, all GPUs.
        allowance_j: Joules above the cap that it lets through before it holds.
        drag, recovery_s: What `linear_s[0]` takes longer in a step below the cap, as a fraction, for each
            fraction that the clock is below full, and the time constant with which it falls and comes back.
        gamma: Exponent of the joules of scaled work in the clock.
        tail_w, tail_s: Power above idle right after a step, and the time constant of its fall.
    """

    knots: Floats
    linear_s: Floats
    linear_j: Floats
    prompt_knots: Floats
    prompt_s: Floats
    prompt_j: Floats
    per_chunk: Floats
    per_pair: Floats
    per_seq: Floats
    per_kv: Floats
    limits: Floats
    idle_w: float
    per_kv_mixed: Floats = np.zeros(2)
    per_longest: float = 0.0
    most_alone: float = 1.0
    beyond_mean: float = 0.0
    resting: float = 1.0
    padded: Ints = np.zeros(0, np.int64)
    busy_w: float = 0.0
    cap_w: float = np.inf
    allowance_j: float = 0.0
    drag: float = 0.0
    recovery_s: float = 1.0
    gamma: float = 2.0
    tail_w: float = 0.0
    tail_s: float = 1.0


class Work(NamedTuple):
    """Seconds and joules of a step at full clock, by whether they wait for the clock; without `busy_w`."""

    fixed_s: float
    scaled_s: float
    fixed_j: float
    scaled_j: float


def new_state() -> Floats:
    """Return the state of a GPU at rest, which `step_cost` and `gap_energy` read and update."""
    return np.zeros(3)


def logged_longest(log: Mapping[str, Any]) -> Ints:
    """Return the `longest_tokens` of each step of a log; one from before they were kept gives the mean."""
    if "longest_tokens" in log:
        return np.asarray(log["longest_tokens"], np.int64)
    return np.asarray(log["kv_tokens"] // np.maximum(log["decode_seqs"], 1), np.int64)


@compiled_entry
def step_cost(
    c: Coefficients,
    state: Floats,
    chunks: int,
    prefill_tokens: int,
    prefill_pairs: float,
    decode_seqs: int,
    kv_tokens: int,
    longest_tokens: int,
    at_least_s: float = 0.0,
) -> tuple[float, float, float, float, bool]:
    """Return seconds, prefill joules, decode joules, the part of these read as KV, and whether unmeasured.

    Prefill and decode share the step's joules in proportion to what each adds at full clock, the linear
    layers split by tokens.

    Args:
        c: The cost table's numbers.
        state: The GPU's state, updated in place.
        chunks: Prefill chunks in the step.
        prefill_tokens: Tokens of all chunks.
        prefill_pairs: Query-key pairs of all chunks: tokens * (context before + (tokens + 1) / 2), summed.
        decode_seqs: Sequences that generate one token.
        kv_tokens: Tokens of KV they read, the new one included, summed.
        longest_tokens: Tokens of KV that the one with the most of them reads.
        at_least_s: The GPU is held that long, as its kernels are not launched faster; it waits at `busy_w`.
    """
    tokens = prefill_tokens + decode_seqs
    padded = float(c.padded[tokens]) if tokens < len(c.padded) else float(tokens)
    kv_s, kv_j = c.per_kv[0] * kv_tokens, c.per_kv[1] * kv_tokens
    more_tokens = longest_tokens - c.beyond_mean * kv_tokens / max(decode_seqs, 1)
    alone_s = c.per_longest * min(max(more_tokens, 0.0), c.most_alone * kv_tokens)
    kv_s += alone_s
    kv_j -= (1.0 - c.resting) * c.busy_w * alone_s
    if prefill_tokens == 0:
        place = interval(padded, c.knots)
        linear_s = between(padded, place, c.knots, c.linear_s)
        linear_j = between(padded, place, c.knots, c.linear_j)
        seqs = padded
    else:
        place = interval(padded, c.prompt_knots)
        linear_s = between(padded, place, c.prompt_knots, c.prompt_s)
        linear_j = between(padded, place, c.prompt_knots, c.prompt_j)
        seqs = float(decode_seqs)
        kv_s += c.per_kv_mixed[0] * kv_tokens
        kv_j += c.per_kv_mixed[1] * kv_tokens
    work = Work(
        c.linear_s[0] + c.per_chunk[0] * chunks + c.per_seq[0] * seqs + kv_s,
        linear_s - c.linear_s[0] + c.per_pair[0] * prefill_pairs,
        c.linear_j[0] + c.per_chunk[1] * chunks + c.per_seq[1] * seqs + kv_j,
        linear_j - c.linear_j[0] + c.per_pair[1] * prefill_pairs,
    )
    seconds, joules = under_governor(c, state, work)
    if seconds < at_least_s:
        joules += c.busy_w * (at_least_s - seconds)
        seconds = at_least_s
    state[WARMTH] = 1.0

    each_j = (linear_j + c.busy_w * linear_s) / tokens
    all_kv_j = kv_j + c.busy_w * kv_s
    decode_weight = each_j * decode_seqs + (c.per_seq[1] + c.busy_w * c.per_seq[0]) * seqs + all_kv_j
    prefill_weight = (
        each_j * prefill_tokens
        + (c.per_chunk[1] + c.busy_w * c.per_chunk[0]) * chunks
        + (c.per_pair[1] + c.busy_w * c.per_pair[0]) * prefill_pairs
    )
    scale = joules / (decode_weight + prefill_weight)
    decode_j = scale * decode_weight if prefill_tokens > 0 else joules
    outside = (
        prefill_tokens > c.limits[0]
        or decode_seqs > c.limits[1]
        or kv_tokens > c.limits[2]
        or prefill_pairs > c.limits[3]
    )
    return seconds, joules - decode_j, decode_j, scale * all_kv_j, outside


@compiled
def under_governor(c: Coefficients, state: Floats, work: Work) -> tuple[float, float]:
    """Return seconds and joules of `work`: at full clock while the allowance lasts, at the capped after."""
    seconds = work.fixed_s + work.scaled_s
    joules = work.fixed_j + work.scaled_j + c.busy_w * seconds
    excess_j = joules - c.cap_w * seconds
    left_j = c.allowance_j - state[SPENT_J]
    if excess_j <= 0.0:
        late_s = c.drag * state[SLOWNESS] * c.linear_s[0]
        state[SPENT_J] = max(0.0, state[SPENT_J] + excess_j)
        settle(state, c.drag, c.recovery_s, 0.0, seconds)
        return seconds + late_s, joules + c.busy_w * late_s
    clock = capped_clock(c.cap_w - c.busy_w, c.gamma, work)
    if excess_j <= left_j:
        state[SPENT_J] += excess_j
        settle(state, c.drag, c.recovery_s, (1.0 - clock) * state[SPENT_J] / c.allowance_j, seconds)
        return seconds, joules
    uncapped = max(left_j, 0.0) / excess_j
    capped_s = work.fixed_s + work.scaled_s / clock
    capped_j = work.fixed_j + work.scaled_j * clock**c.gamma + c.busy_w * capped_s
    state[SPENT_J] = c.allowance_j
    taken_s = uncapped * seconds + (1.0 - uncapped) * capped_s
    settle(state, c.drag, c.recovery_s, 1.0 - clock, taken_s)
    return taken_s, uncapped * joules + (1.0 - uncapped) * capped_j


@compiled
def settle(state: Floats, drag: float, recovery_s: float, slowness: float, seconds: float) -> None:
    """Let the clock's distance from full come nearer to `slowness` for `seconds`."""
    if drag > 0.0:
        state[SLOWNESS] = slowness + (state[SLOWNESS] - slowness) * math.exp(-seconds / recovery_s)


@compiled
def capped_clock(spare_w: float, gamma: float, work: Work) -> float:
    """Return the fraction of the full clock at which `work`, which draws more at full clock, draws the cap.

    By Newton's rule, from full clock down; LOWEST_CLOCK if even that draws more. `spare_w` is what the cap
    leaves beside `busy_w`.
    """
    clock = 1.0
    for _ in range(CLOCK_ROUNDS):
        scaled_j = work.scaled_j * clock**gamma
        excess_j = work.fixed_j + scaled_j - spare_w * (work.fixed_s + work.scaled_s / clock)
        slope_j = (gamma * scaled_j + spare_w * work.scaled_s / clock) / clock
        if slope_j <= 0.0:
            return LOWEST_CLOCK
        before, clock = clock, max(clock - excess_j / slope_j, LOWEST_CLOCK)
        if abs(clock - before) < CLOCK_PRECISION:
            break
    return clock


@compiled_entry
def gap_energy(c: Coefficients, state: Floats, gap_s: float) -> float:
    """Return the joules of `gap_s` seconds without a step, and let the GPU's state relax."""
    cooled = math.exp(-gap_s / c.tail_s)
    joules = c.idle_w * gap_s + c.tail_w * c.tail_s * state[WARMTH] * (1.0 - cooled)
    state[WARMTH] *= cooled
    if c.cap_w < np.inf:
        state[SPENT_J] = max(0.0, state[SPENT_J] + joules - c.cap_w * gap_s)
    settle(state, c.drag, c.recovery_s, 0.0, gap_s)
    return float(joules)


@compiled
def interval(x: float, knots: Floats) -> int:
    """Return i so that x lies between knots i and i + 1, the first or last interval if it lies outside."""
    low, high = 0, len(knots) - 1
    while high - low > 1:
        middle = (low + high) // 2
        if knots[middle] <= x:
            low = middle
        else:
            high = middle
    return low


@compiled
def between(x: float, place: int, knots: Floats, values: Floats) -> float:
    """Interpolate linearly in interval `place`, straight on beyond the last knot, level before the first."""
    share = max((x - knots[place]) / (knots[place + 1] - knots[place]), 0.0)
    return float(values[place] + share * (values[place + 1] - values[place]))
