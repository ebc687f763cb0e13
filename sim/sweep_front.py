"""What to choose from a sweep: the Pareto front of energy against a latency, and who keeps the SLOs."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from math import inf, isfinite

from sim.settings import split_pair
from sim.summary import Summary

METRICS = ("ttft", "tpot", "e2e")
LATENCIES = tuple(
    field.name.removesuffix("_s") for field in fields(Summary) if field.name.startswith(METRICS)
)
"""Quantiles of latencies by name, like `ttft_p99`."""


@dataclass(frozen=True, slots=True)
class Slo:
    """A service-level objective: an upper limit on a quantile of a latency.

    Attributes:
        latency: One of `LATENCIES`.
        limit_s: The quantile may be so long.
    """

    latency: str
    limit_s: float

    def excess(self, summary: Summary) -> float:
        """Return what the quantile exceeds the limit by, as a fraction of it; infinity if unknown.

        Where no request has a TPOT, each having one output token, its limits are kept.
        """
        value_s = latency_s(summary, self.latency)
        if value_s is None:
            return -1.0 if summary.served and self.latency.startswith("tpot") else inf
        return value_s / self.limit_s - 1


def parse_slo(text: str) -> Slo:
    """Return the SLO of `ttft_p99=2`, in seconds.

    Raises:
        ValueError: It names no latency, or no limit above 0.
    """
    name, value = split_pair(text, "--slo")
    latency = known_latency(name)
    try:
        limit_s = float(value)
    except ValueError:
        limit_s = 0.0
    if not (limit_s > 0 and isfinite(limit_s)):
        raise ValueError(f"--slo {name} takes a limit in seconds above 0, got {value!r}")
    return Slo(latency, limit_s)


def known_latency(name: str) -> str:
    """Return the latency of this name, however it is written.

    Raises:
        ValueError: There is none.
    """
    latency = name.strip().lower().replace("-", "_").removesuffix("_s")
    if latency not in LATENCIES:
        raise ValueError(f"no latency {name!r}; there are {', '.join(LATENCIES)}")
    return latency


def latency_s(summary: Summary, latency: str) -> float | None:
    """Return a quantile of a latency by its name in `LATENCIES`, None if there is none."""
    value: float | None = getattr(summary, f"{latency}_s")
    return value


def violated(summary: Summary, slos: Sequence[Slo]) -> tuple[str, ...]:
    """Return the names of the latencies whose limit a run does not keep."""
    return tuple(slo.latency for slo in slos if slo.excess(summary) > 0)


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
