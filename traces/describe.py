"""From a trace to its shape."""

import numpy as np

from traces.quantiles import QuantileTable, rank_correlation, ranks, tabulate
from traces.shape import OnOffArrivals, ProfileArrivals, Shape
from traces.trace import Floats, Ints, Trace

LEAST_REQUESTS = 1000
PROFILE_BIN_S = 60.0
ON_OFF_BIN_S = 1.0
CLUMP_S = 0.01
TENTHS = 10
EMPTY_FRACTION = 0.5


def describe(trace: Trace, *, name: str | None = None, arrivals: str = "auto") -> Shape:
    """Return the shape of `trace`.

    Args:
        trace: At least 1,000 requests, not all at once.
        name: Name of the shape; the trace's own if None.
        arrivals: `profile`, `on-off`, or `auto`: on-off if more than half of all seconds are empty.

    Raises:
        ValueError: The trace is too small, or has too few bursts for an on-off model.
    """
    if len(trace) < LEAST_REQUESTS:
        raise ValueError(
            f"trace {trace.name} has {len(trace):,} requests; statistics without rows need {LEAST_REQUESTS:,}"
        )
    arrival_s = trace.arrival_s - trace.arrival_s[0]
    span_s = float(arrival_s[-1])
    if span_s < ON_OFF_BIN_S:
        raise ValueError(
            f"trace {trace.name} spans {span_s:g} s; statistics need at least {ON_OFF_BIN_S:g} s"
        )
    counts = np.bincount((arrival_s // ON_OFF_BIN_S).astype(np.int64))
    empty_fraction = float(np.mean(counts == 0))
    if arrivals == "auto":
        arrivals = "on-off" if empty_fraction > EMPTY_FRACTION else "profile"
    return Shape(
        name=name or trace.name,
        source=trace.source,
        licence=trace.licence,
        source_sha256=trace.sha256,
        span_s=span_s,
        rate_per_s=_digits(len(trace) / span_s),
        prompt_tokens=tabulate(trace.prompt_tokens),
        output_tokens=tabulate(trace.output_tokens),
        joint_requests=_joint(trace),
        arrivals=_on_off(arrival_s, counts) if arrivals == "on-off" else _profile(arrival_s, span_s),
    )


def _joint(trace: Trace) -> tuple[tuple[int, ...], ...]:
    rng = np.random.default_rng(0)  # breaks ties only
    tenth = [
        ranks(tokens, rng) * TENTHS // len(trace) for tokens in (trace.prompt_tokens, trace.output_tokens)
    ]
    table = np.bincount(tenth[0] * TENTHS + tenth[1], minlength=TENTHS**2).reshape(TENTHS, TENTHS)
    return tuple(tuple(row) for row in table.tolist())


def _profile(arrival_s: Floats, span_s: float) -> ProfileArrivals:
    bins = max(1, round(span_s / PROFILE_BIN_S))
    requests, edges = np.histogram(arrival_s, bins=bins, range=(0, span_s))
    progress = np.interp(arrival_s, edges, np.concatenate([[0], np.cumsum(requests)]))
    return ProfileArrivals(
        bin_s=_digits(span_s / bins), requests=tuple(requests.tolist()), gap=tabulate(np.diff(progress))
    )


def _on_off(arrival_s: Floats, counts: Ints) -> OnOffArrivals:
    busy = counts > 0
    starts = np.concatenate([[0], np.flatnonzero(np.diff(busy)) + 1])
    lengths = np.diff(np.append(starts, len(counts)))
    is_busy = busy[starts]
    busy_runs, idle_runs = lengths[is_busy], lengths[~is_busy]
    if min(len(busy_runs), len(idle_runs)) < TENTHS:
        raise ValueError(
            f"the trace has {len(busy_runs)} bursts with {len(idle_runs)} pauses between; an on-off model "
            f"needs {TENTHS} of each, use --arrivals profile"
        )
    run_of = np.repeat(np.arange(len(lengths)), lengths)
    neighbours = np.flatnonzero(busy[:-1] & busy[1:])
    run_means = np.bincount(run_of, weights=counts)[is_busy] / busy_runs
    fraction, gaps = _clumps(arrival_s, counts)
    return OnOffArrivals(
        bin_s=ON_OFF_BIN_S,
        busy_fraction=_digits(float(busy.mean())),
        busy_runs_per_s=_digits(len(busy_runs) / (len(counts) * ON_OFF_BIN_S)),
        busy_run_bins=tabulate(busy_runs),
        idle_run_bins=tabulate(idle_runs),
        requests_per_busy_bin=tabulate(counts[busy]),
        run_correlation=_correlation(counts[neighbours], counts[neighbours + 1]),
        length_correlation=_correlation(busy_runs, ranks(run_means, np.random.default_rng(0))),
        clump_fraction=_digits(fraction),
        clump_gap_s=gaps,
    )


def _clumps(arrival_s: Floats, counts: Ints) -> tuple[float, QuantileTable]:
    """Return the fraction of requests that follow at once, beyond chance, and how soon they do."""
    bins = (arrival_s // ON_OFF_BIN_S).astype(np.int64)
    same_bin = bins[1:] == bins[:-1]
    gaps = np.diff(arrival_s)[same_bin]
    by_chance = np.mean(1 - (1 - CLUMP_S / ON_OFF_BIN_S) ** counts[bins[1:][same_bin]]) if len(gaps) else 0.0
    soon = gaps[gaps < CLUMP_S]
    if len(soon) < 2 * TENTHS or len(soon) / len(gaps) <= by_chance:
        return 0.0, QuantileTable((0.0, 1.0), (0.0, CLUMP_S))
    return float((len(soon) / len(gaps) - by_chance) / (1 - by_chance)), tabulate(soon)


def _correlation(one: Ints, other: Ints) -> float:
    found = rank_correlation(one, other) if len(one) > 1 else None
    return 0.0 if found is None else _digits(min(max(found, 0.0), 0.99))


def _digits(value: float) -> float:
    return float(f"{value:.6g}")
