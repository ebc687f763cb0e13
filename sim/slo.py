"""Limits on latency (SLOs): of a percentile, or of every request."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sim.metrics import latency_s, quantile, served
from traces.record import Outcomes, Run

LATENCIES: Final = ("ttft", "tpot", "e2e")


@dataclass(frozen=True, slots=True)
class Slo:
    """A limit on a latency, of every request or of a percentile.

    Attributes:
        latency: One of LATENCIES.
        percentile: 99 for p99; None if each request is to keep the limit.
        limit_s: The limit.
    """

    latency: str
    percentile: float | None
    limit_s: float

    @property
    def name(self) -> str:
        """What is limited, as it is typed: `ttft` or `ttft_p99`."""
        return self.latency if self.percentile is None else f"{self.latency}_p{self.percentile:g}"

    @property
    def words(self) -> str:
        """The limit in words, such as `TTFT p99 ≤ 2 s`."""
        return f"{words_of(self.name)} ≤ {self.limit_s:g} s"


@dataclass(frozen=True, slots=True)
class Attainment:
    """How a run fares under a limit.

    Attributes:
        fraction: Requests that keep it, of those offered; one of a single output token keeps any TPOT.
        value_s: The percentile that is limited, None if there is none.
        is_kept: Whether the percentile, or every request, is within the limit.
    """

    fraction: float
    value_s: float | None
    is_kept: bool


def parse_slos(texts: Sequence[str]) -> tuple[Slo, ...]:
    """Return the limits written as `ttft=2` or `ttft_p99=2`, in seconds.

    Raises:
        ValueError: One is written otherwise.
    """
    return tuple(_parse(text) for text in texts)


def parse_limits(texts: Sequence[str]) -> tuple[Slo, ...]:
    """Return the limits of each request written as `ttft=2`, in seconds.

    Raises:
        ValueError: One is written otherwise, or is of a percentile.
    """
    slos = parse_slos(texts)
    for slo in slos:
        if slo.percentile is not None:
            raise ValueError(f"{slo.name}: goodput is of limits of each request; give {slo.latency}=SECONDS")
    return slos


def words_of(name: str) -> str:
    """Return what is limited as a person reads it: `ttft_p99` is `TTFT p99`, `attainment` is itself."""
    latency, _, level = name.partition("_")
    return f"{latency.upper()} {level}".rstrip() if latency in LATENCIES else name


def keeps(outcomes: Outcomes, slo: Slo) -> NDArray[np.bool_]:
    """Return which requests are within the limit, whatever its percentile, shape (requests,).

    One that was not served is not; one of a single output token has no TPOT and keeps any limit on it.
    """
    is_within: NDArray[np.bool_] = latency_s(outcomes, slo.latency) <= slo.limit_s
    if slo.latency == "tpot":
        is_within |= served(outcomes) & (outcomes.output_tokens < 2)
    return is_within


def attainment(run: Run, slo: Slo) -> Attainment:
    """Return how `run` fares under `slo`."""
    is_within = keeps(run.outcomes, slo)
    fraction = float(np.mean(is_within)) if len(is_within) else 0.0
    if slo.percentile is None:
        return Attainment(fraction, None, bool(is_within.all()))
    values_s = latency_s(run.outcomes, slo.latency)
    value_s = quantile(values_s[np.isfinite(values_s)], slo.percentile / 100)
    return Attainment(fraction, value_s, value_s is not None and value_s <= slo.limit_s)


def _parse(text: str) -> Slo:
    typed_name, _, typed_limit = text.partition("=")
    name = typed_name.strip().lower().replace("-", "_")
    match = re.fullmatch(rf"({'|'.join(LATENCIES)})(?:_p(\d+(?:\.\d+)?))?(?:_s)?", name)
    try:
        limit_s = float(typed_limit)
    except ValueError:
        limit_s = 0.0
    percentile = None if match is None or match[2] is None else float(match[2])
    if match is None or not isfinite(limit_s) or limit_s <= 0 or (percentile or 0) > 100:
        raise ValueError(f"--slo takes LATENCY=SECONDS, such as ttft=2 or tpot_p99=0.05, got {text!r}")
    return Slo(match[1], percentile, limit_s)
