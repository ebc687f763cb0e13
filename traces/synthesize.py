"""From a shape to a trace like it: requests drawn, none recorded."""

import math

import numpy as np

from traces.quantiles import spaced
from traces.shape import OnOffArrivals, ProfileArrivals, Shape
from traces.trace import Counts, Floats, Ints, Trace


def synthesize(shape: Shape, shape_sha256: str, *, seed: int = 0, duration_s: float | None = None) -> Trace:
    """Return requests drawn from `shape`, rate times duration of them.

    Lengths are drawn with their dependence on each other, not on time. Draws are spread evenly over each
    distribution, so that the shape holds for a short trace too.

    Args:
        shape: What to draw from.
        shape_sha256: Hash of the file it was read from.
        seed: Seed of the draws.
        duration_s: Length of the trace; that of the trace described if None. The rate's slow variation is
            repeated or compressed to fit.

    Raises:
        ValueError: The duration is not positive, or too short for a single request or burst.
    """
    duration_s = shape.span_s if duration_s is None else duration_s
    if not (math.isfinite(duration_s) and duration_s > 0):
        raise ValueError(f"duration must be > 0 seconds, got {duration_s:g}")
    requests = round(shape.rate_per_s * duration_s)
    if requests < 1:
        raise ValueError(
            f"duration of {duration_s:g} s at {shape.rate_per_s:g} requests a second makes no request; "
            f"give at least {1 / shape.rate_per_s:g}"
        )
    rng = np.random.default_rng(seed)
    draw = _on_off if isinstance(shape.arrivals, OnOffArrivals) else _profile
    arrival_s = draw(rng, shape, requests, duration_s)
    prompt_tokens, output_tokens = _tokens(rng, shape, requests)
    return Trace(
        name=shape.name,
        source=f"synthetic, drawn with seed {seed} from statistics of: {shape.source}",
        licence=shape.licence,
        sha256=shape_sha256,
        arrival_s=np.round(arrival_s, 6),
        prompt_tokens=prompt_tokens,
        output_tokens=output_tokens,
        notes=("Synthetic: drawn from statistics, no request in it was recorded.",),
        synthetic=True,
    )


def _tokens(rng: np.random.Generator, shape: Shape, requests: int) -> tuple[Counts, Counts]:
    joint = np.array(shape.joint_requests, dtype=np.float64)
    parts = len(joint)
    given = spaced(rng, requests)
    row = np.minimum((given * parts).astype(np.int64), parts - 1)
    drawn = np.empty(requests)
    for index, weights in enumerate(joint):
        members = np.flatnonzero(row == index)
        column = np.searchsorted(np.cumsum(weights / weights.sum()), spaced(rng, len(members)), side="right")
        drawn[members] = (np.minimum(column, parts - 1) + rng.random(len(members))) / parts
    prompt, output = shape.prompt_tokens.at(given), shape.output_tokens.at(drawn)
    return (np.maximum(np.rint(one), 1).astype(np.int32) for one in (prompt, output))  # type: ignore[return-value]


def _profile(rng: np.random.Generator, shape: Shape, requests: int, duration_s: float) -> Floats:
    model = shape.arrivals
    assert isinstance(model, ProfileArrivals)
    counts = np.tile(model.requests, max(1, round(duration_s / shape.span_s)))
    progress = np.concatenate([[0], np.cumsum(counts)]) / counts.sum()
    gaps = model.gap.at(spaced(rng, requests))
    drawn = np.cumsum(gaps) - gaps[0] * rng.random()
    edges_s = np.linspace(0, duration_s, len(progress))
    arrival_s: Floats = np.interp(drawn / gaps.sum(), progress, edges_s)
    return arrival_s


def _on_off(rng: np.random.Generator, shape: Shape, requests: int, duration_s: float) -> Floats:
    model = shape.arrivals
    assert isinstance(model, OnOffArrivals)
    runs = round(model.busy_runs_per_s * duration_s)
    bins = round(duration_s / model.bin_s)
    busy_bins = min(round(model.busy_fraction * bins), requests)
    if runs < 2 or busy_bins < runs or bins - busy_bins < runs - 1:
        raise ValueError(
            f"duration of {duration_s:g} s holds {runs} bursts; give at least "
            f"{2 / model.busy_runs_per_s:.0f} seconds"
        )
    # A burst's intensity goes with its length: one normal draw gives the rank of both.
    length_score = rng.standard_normal(runs)
    length_rank = (np.argsort(np.argsort(length_score)) + rng.random(runs)) / runs
    busy = _whole(model.busy_run_bins.at(length_rank), busy_bins)
    idle = _whole(model.idle_run_bins.at(spaced(rng, runs - 1)), bins - busy_bins)
    run_of = np.repeat(np.arange(runs), busy)
    run_score = _blend(length_score, rng.standard_normal(runs), model.length_correlation)
    score = _blend(run_score[run_of], rng.standard_normal(busy_bins), math.sqrt(model.run_correlation))
    rank = (np.argsort(np.argsort(score)) + rng.random(busy_bins)) / busy_bins
    counts = _whole(model.requests_per_busy_bin.at(rank), requests)
    first_bin = np.concatenate([[0], np.cumsum(busy[:-1] + idle)])
    bin_of = first_bin[run_of] + np.arange(busy_bins) - np.repeat(np.cumsum(busy) - busy, busy)
    return np.sort((np.repeat(bin_of, counts) + _within_bins(rng, model, counts)) * model.bin_s)


def _within_bins(rng: np.random.Generator, model: OnOffArrivals, counts: Ints) -> Floats:
    """Return where in its bin each request comes, 0 to 1: anywhere, or soon after another."""
    bin_of = np.repeat(np.arange(len(counts)), counts)
    place = rng.random(len(bin_of))
    is_first = np.diff(bin_of, prepend=-1) > 0
    follows = ~is_first & (rng.random(len(bin_of)) < model.clump_fraction)
    leaders = np.flatnonzero(~follows)
    leaders_in_bin = np.bincount(bin_of[leaders], minlength=len(counts))
    first_leader = np.cumsum(leaders_in_bin) - leaders_in_bin
    followers = np.flatnonzero(follows)
    of_bin = bin_of[followers]
    chosen = first_leader[of_bin] + (rng.random(len(followers)) * leaders_in_bin[of_bin]).astype(np.int64)
    gap_s = model.clump_gap_s.at(spaced(rng, len(followers)))
    place[followers] = place[leaders[chosen]] + gap_s / model.bin_s
    return np.minimum(place, 1 - 1e-6)


def _blend(one: Floats, other: Floats, weight: float) -> Floats:
    """Return a normal score that correlates with `one` by `weight`."""
    return weight * one + math.sqrt(1 - weight**2) * other


def _whole(sizes: Floats, total: int) -> Ints:
    """Return `sizes` scaled and rounded to whole numbers of at least 1 that sum to `total`.

    Args:
        sizes: At least 0, shape (n,).
        total: At least n.
    """
    if not len(sizes):
        return np.zeros(0, dtype=np.int64)
    extra = np.maximum(sizes - 1, 0)
    room = total - len(sizes)
    scaled = (
        np.cumsum(extra) * (room / extra.sum()) if extra.sum() else np.linspace(0, room, len(sizes) + 1)[1:]
    )
    return 1 + np.diff(np.rint(scaled), prepend=0).astype(np.int64)
