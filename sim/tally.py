"""What the outcomes of a run come to, taken in part by part: a long run need not be in memory."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import inf

import numpy as np

from sim import metrics
from sim.slo import Slo, keeps
from traces.record import FAILED, SERVED, Outcomes
from traces.trace import Floats, Ints


@dataclass(slots=True)
class Wrong:
    """Requests that break a rule.

    Attributes:
        count: How many do.
        first: The first of them, None if there is none.
    """

    count: int = 0
    first: int | None = None

    def add(self, rows: Ints) -> None:
        """Note further ones, ascending."""
        if len(rows):
            self.count += len(rows)
            self.first = int(rows[0]) if self.first is None else self.first


class Tally:
    """Counts, sums and latencies of the outcomes so far.

    Latencies are kept, 24 bytes a request, so that their quantiles are exact.

    Attributes:
        requests, served, failed: How many there are.
        prompt_tokens, output_tokens: Of the served requests.
        not_served: Requests that count as served without a release, a first token, a last one, or tokens.
        late: By two moments, those of which the first comes after the second.
        good: Requests that keep all limits that were given at once; None if none were.
        shares: Requests whose share of the energy is known.
        shares_j: Sum of these shares.
        least_share_j: The smallest of them, infinity if there is none.
    """

    def __init__(self, makespan_s: float = inf, limits: Sequence[Slo] = ()) -> None:
        """Begin with nothing.

        Args:
            makespan_s: No finish may come later; infinity if it is the last finish by definition.
            limits: Of each request.
        """
        self.good: int | None = 0 if limits else None
        self._limits = limits
        self.requests = self.served = self.failed = self.prompt_tokens = self.output_tokens = self.shares = 0
        self.not_served = Wrong()
        self.late: dict[tuple[str, str], Wrong] = {}
        self.shares_j = 0.0
        self.least_share_j = inf
        self._makespan_s = makespan_s
        self._latencies: list[tuple[Floats, Floats, Floats]] = []

    def add(self, outcomes: Outcomes) -> None:
        """Take in the next requests of the run."""
        served = metrics.served(outcomes)
        self.requests += len(outcomes)
        self.served += int(np.count_nonzero(served))
        self.failed += int(np.count_nonzero(outcomes.status == FAILED))
        self.prompt_tokens += int(outcomes.prompt_tokens[served].sum(dtype=np.int64))
        self.output_tokens += int(outcomes.output_tokens[served].sum(dtype=np.int64))
        self._latencies.append((metrics.ttft_s(outcomes), metrics.tpot_s(outcomes), metrics.e2e_s(outcomes)))
        if self.good is not None:
            kept = np.logical_and.reduce([keeps(outcomes, limit) for limit in self._limits])
            self.good += int(np.count_nonzero(kept))
        self._check(outcomes)
        known_j: Floats = outcomes.energy_j[~np.isnan(outcomes.energy_j)]
        self.shares += len(known_j)
        self.shares_j += float(known_j.sum())
        self.least_share_j = min(self.least_share_j, float(known_j.min(initial=inf)))

    def quantiles(self, *qs: float) -> list[tuple[float | None, ...]]:
        """Return these quantiles of TTFT, TPOT and E2E, each exact, None where there is none."""
        found = []
        for metric in range(3):
            values = np.concatenate([np.zeros(0), *(part[metric] for part in self._latencies)])
            found.append(tuple(metrics.quantile(values, q) for q in qs))
        return found

    def _check(self, outcomes: Outcomes) -> None:
        o = outcomes
        whole = np.isfinite(o.released_s + o.first_token_s + o.finished_s) & (o.output_tokens > 0)
        self.not_served.add(o.request_id[(o.status == SERVED) & ~whole])
        moments = {
            "arrival": o.arrival_s,
            "release": o.released_s,
            "first token": o.first_token_s,
            "finish": o.finished_s,
            "the makespan": np.full(len(o), self._makespan_s),
        }
        for before, after in pairwise(moments):
            late = o.request_id[moments[before] > moments[after]]
            self.late.setdefault((before, after), Wrong()).add(late)


def tally_of(outcomes: Outcomes, makespan_s: float, limits: Sequence[Slo] = ()) -> Tally:
    """Return what the outcomes of a whole run come to."""
    tally = Tally(makespan_s, limits)
    tally.add(outcomes)
    return tally
