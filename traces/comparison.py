"""How alike two traces are: what `replay trace compare` prints."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from traces.info import empty_second_fraction, gap_cv, per_second
from traces.quantiles import rank_correlation
from traces.trace import Trace


@dataclass(frozen=True, slots=True)
class Likeness:
    """Distances and ratios of one trace to another; 0 and 1 where they are equal, None where undefined.

    Attributes:
        requests_ratio: Requests, by the other's.
        rate_ratio: Mean rate, by the other's.
        input_ks, output_ks: Kolmogorov-Smirnov distance of the lengths: the largest difference of their
            distribution functions.
        input_mean_ratio, output_mean_ratio: Mean lengths, by the other's.
        gap_ks: Kolmogorov-Smirnov distance of the times between arrivals.
        gap_cv_ratio: Their coefficients of variation, by the other's.
        per_second_p99_ratio: 99th percentile of the requests a second, by the other's.
        empty_second_difference: Fraction of seconds without an arrival, less the other's.
        rank_correlation_difference: Rank correlation of input and output lengths, less the other's.
    """

    requests_ratio: float
    rate_ratio: float | None
    input_ks: float
    output_ks: float
    input_mean_ratio: float
    output_mean_ratio: float
    gap_ks: float | None
    gap_cv_ratio: float | None
    per_second_p99_ratio: float | None
    empty_second_difference: float
    rank_correlation_difference: float | None


def compare(one: Trace, other: Trace) -> Likeness:
    """Return how alike `one` is to `other`.

    Raises:
        ValueError: One of them is empty.
    """
    for trace in (one, other):
        if not len(trace):
            raise ValueError(f"trace {trace.name} has no requests; there is nothing to compare")
    gaps = [np.diff(trace.arrival_s) for trace in (one, other)]
    correlations = [rank_correlation(trace.prompt_tokens, trace.output_tokens) for trace in (one, other)]
    return Likeness(
        requests_ratio=len(one) / len(other),
        rate_ratio=_ratio(_rate_per_s(one), _rate_per_s(other)),
        input_ks=ks_distance(one.prompt_tokens, other.prompt_tokens),
        output_ks=ks_distance(one.output_tokens, other.output_tokens),
        input_mean_ratio=float(one.prompt_tokens.mean() / other.prompt_tokens.mean()),
        output_mean_ratio=float(one.output_tokens.mean() / other.output_tokens.mean()),
        gap_ks=ks_distance(*gaps) if len(gaps[0]) and len(gaps[1]) else None,
        gap_cv_ratio=_ratio(gap_cv(one.arrival_s), gap_cv(other.arrival_s)),
        per_second_p99_ratio=_ratio(
            per_second(one.arrival_s, (0.99,))[0], per_second(other.arrival_s, (0.99,))[0]
        ),
        empty_second_difference=empty_second_fraction(one.arrival_s) - empty_second_fraction(other.arrival_s),
        rank_correlation_difference=_difference(*correlations),
    )


def ks_distance(one: NDArray[Any], other: NDArray[Any]) -> float:
    """Return the largest difference of the distribution functions of two samples, each at least one value."""
    points = np.union1d(one, other)
    below = [np.searchsorted(np.sort(sample), points, side="right") / len(sample) for sample in (one, other)]
    return float(np.abs(below[0] - below[1]).max())


def _rate_per_s(trace: Trace) -> float | None:
    span_s = float(trace.arrival_s[-1] - trace.arrival_s[0])
    return len(trace) / span_s if span_s else None


def _ratio(one: float | None, other: float | None) -> float | None:
    return None if one is None or not other else one / other


def _difference(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one - other
