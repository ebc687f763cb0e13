"""The Pareto front of energy against a latency."""

from collections.abc import Sequence
from dataclasses import fields
from math import inf

from sim.slo import LATENCIES
from sim.summary import Summary

QUANTILES = tuple(
    field.name.removesuffix("_s") for field in fields(Summary) if field.name.startswith(LATENCIES)
)
"""Quantiles of latencies by name, like `ttft_p99`."""


def known_latency(name: str) -> str:
    """Return the latency of this name, however it is written.

    Raises:
        ValueError: There is none.
    """
    latency = name.strip().lower().replace("-", "_").removesuffix("_s")
    if latency not in QUANTILES:
        raise ValueError(f"no latency {name!r}; there are {', '.join(QUANTILES)}")
    return latency


def latency_s(summary: Summary, latency: str) -> float | None:
    """Return a quantile of a latency by its name in `QUANTILES`, None if there is none."""
    value: float | None = getattr(summary, f"{latency}_s")
    return value


def point(summary: Summary, latency: str) -> tuple[float, float] | None:
    """Return the latency and the energy per request of a run, None if it broke a guard or one is missing.

    Both are rounded to nine digits: what two ways of simulating the same differ by puts nobody on a front.
    """
    value_s, energy_j = latency_s(summary, latency), summary.energy_j_per_request
    if not summary.energy_valid or value_s is None or energy_j is None:
        return None
    return _rounded(value_s), _rounded(energy_j)


def front(points: Sequence[tuple[float, float] | None]) -> list[bool]:
    """Return which points no other dominates: none is as small in both numbers and smaller in one.

    Args:
        points: Pairs, both the better the smaller; None is on no front.
    """
    on_front = [False] * len(points)
    least, before = inf, None
    for one, place in sorted((one, place) for place, one in enumerate(points) if one is not None):
        if one[1] < least or one == before:
            on_front[place] = True
            least, before = one[1], one
    return on_front


def _rounded(value: float) -> float:
    return float(f"{value:.9g}")
