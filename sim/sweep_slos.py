"""What the runs of a sweep should keep: limits on percentiles, and limits of each request."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

from sim.slo import Slo, parse_slos
from sim.summary import Summary
from sim.sweep_front import QUANTILES, latency_s

ATTAINMENT = "attainment"
"""Name of what is violated where too few requests keep the limits of each."""


@dataclass(frozen=True, slots=True)
class Slos:
    """Limits on latency, and how many requests have to keep those that are of each.

    Attributes:
        slos: Each of another latency or percentile; percentiles are those of `sim.sweep_front.QUANTILES`.
        attainment_fraction: This part of the requests should keep all limits of each request at once.
    """

    slos: tuple[Slo, ...] = ()
    attainment_fraction: float = 1.0

    @property
    def of_percentiles(self) -> tuple[Slo, ...]:
        """The limits on percentiles."""
        return tuple(slo for slo in self.slos if slo.percentile is not None)

    @property
    def of_requests(self) -> tuple[Slo, ...]:
        """The limits of each request."""
        return tuple(slo for slo in self.slos if slo.percentile is None)

    @property
    def words(self) -> str:
        """All of it in words, such as `TTFT p99 ≤ 2 s, 99 % of requests TTFT ≤ 1 s and TPOT ≤ 0.05 s`."""
        said = [slo.words for slo in self.of_percentiles]
        if self.of_requests:
            share = f"{100 * self.attainment_fraction:g} % of requests "
            said.append(share + " and ".join(slo.words for slo in self.of_requests))
        return ", ".join(said)

    @property
    def facts(self) -> dict[str, Any]:
        """The same as JSON: the limits in seconds by name, and the part of the requests, null if unused."""
        share = self.attainment_fraction if self.of_requests else None
        return {"slos": {slo.name: slo.limit_s for slo in self.slos}, "attainment_fraction": share}

    def excesses(self, summary: Summary | None) -> dict[str, float]:
        """Return by what fraction of it a run exceeds each limit, by what is limited; infinity if unknown.

        Where no request has a TPOT, each having one output token, its limits are kept. For `attainment` it is
        the part of the requests that is missing, of the part asked for.
        """
        found = {slo.name: _excess(summary, slo) for slo in self.of_percentiles}
        if self.of_requests:
            attained = None if summary is None else summary.attainment_fraction
            found[ATTAINMENT] = inf if attained is None else 1 - attained / self.attainment_fraction
        return found

    def violated(self, summary: Summary) -> tuple[str, ...]:
        """Return what a run does not keep, by name."""
        return tuple(name for name, excess in self.excesses(summary).items() if excess > 0)


def parse_sweep_slos(texts: Sequence[str], attainment: float | None = None) -> Slos:
    """Return the limits written as `ttft=2` or `ttft_p99=2`.

    Args:
        texts: As typed.
        attainment: This part of the requests should keep the limits of each; None for all.

    Raises:
        ValueError: One is written otherwise, given twice, or of a percentile that summaries lack, or
            `attainment` is not in (0, 1] or of nothing.
    """
    slos = Slos(parse_slos(texts), 1.0 if attainment is None else attainment)
    names = [slo.name for slo in slos.slos]
    double = next((name for name in names if names.count(name) > 1), None)
    if double is not None:
        raise ValueError(f"--slo {double} is given twice; give the smaller limit")
    for slo in slos.of_percentiles:
        if slo.name not in QUANTILES:
            raise ValueError(
                f"--slo {slo.name}: a sweep knows p50, p90 and p99; give one of them, or {slo.latency}=S "
                f"with --attainment {(slo.percentile or 0) / 100:g}"
            )
    if not 0 < slos.attainment_fraction <= 1:
        raise ValueError(f"--attainment must be above 0 and at most 1, got {attainment}")
    if attainment is not None and not slos.of_requests:
        raise ValueError("--attainment is of limits of each request: give one, like --slo ttft=2, too")
    return slos


def _excess(summary: Summary | None, slo: Slo) -> float:
    value_s = None if summary is None else latency_s(summary, slo.name)
    if value_s is None:
        return -1.0 if summary and summary.served and slo.latency == "tpot" else inf
    return value_s / slo.limit_s - 1
