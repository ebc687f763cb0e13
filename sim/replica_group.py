"""Replicas whose releases are known beforehand: each serves its own, whatever the others do."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import fsum, inf

import numpy as np

from sim.engine import SimulatedEngine
from sim.options import EngineOptions
from sim.request_table import RequestTable
from sim.scheduler_state import FIRST_TOKEN_S
from sim.table import CostTable
from traces.record import EnergySplit, Power, ReplicaUse
from traces.trace import Floats, Ints, PrefixBlocks, Trace


@dataclass(frozen=True, slots=True, eq=False)
class Released:
    """A stretch of requests in the order of their release.

    Attributes:
        first: How many requests were released before.
        trace: The requests; their arrival times are not looked at.
        release_s: When each is released, ascending, shape (requests,).
    """

    first: int
    trace: Trace
    release_s: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Served:
    """What became of requests, as columns of one length.

    Attributes:
        place: Place in the order of release, from 0.
        results: When the first and the last token reached the client, and the share of the energy, shape
            (3, requests).
    """

    place: Ints
    results: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Totals:
    """What one replica, or all of a fleet, did from time 0 to the end.

    Attributes:
        steps: Steps that the GPU ran.
        outside_steps: Those outside the table's measured range.
        preemptions: Times that a request was preempted.
        split: Where the energy went.
        power: Cumulative energy over time.
        uses: What each replica did, in order.
        parts: The replicas' own, of a fleet.
    """

    steps: int
    outside_steps: int
    preemptions: int
    split: EnergySplit
    power: Power
    uses: tuple[ReplicaUse, ...]
    parts: tuple["Totals", ...] = ()


class ReplicaGroup:
    """Some of the replicas of a fleet that takes them in turn."""

    def __init__(
        self,
        replicas: Sequence[int],
        of: int,
        options: EngineOptions,
        table: CostTable,
        power_tick_s: float,
        prefix: PrefixBlocks | None = None,
    ) -> None:
        """Start at time 0 with nothing to do.

        Args:
            replicas: Which replicas of the fleet these are.
            of: How many the fleet has.
            options: What each engine is told.
            table: What steps cost.
            power_tick_s: Seconds between power samples.
            prefix: What is known about equal prefixes of all prompts, None if nothing or if nobody asks.
        """
        self._requests = RequestTable(prefix)
        self._place: Ints = np.zeros(0, np.int64)
        self._replicas = tuple(replicas)
        self._of = of
        self._engines = [
            SimulatedEngine(self._requests, options, table, power_tick_s=power_tick_s) for _ in replicas
        ]

    def serve(self, released: Released) -> Served:
        """Take in what the next requests are of these replicas' and run up to the last release of each.

        A run of decode steps would end there anyway, as the request comes: how a trace is cut into stretches
        changes no result.
        """
        finished = []
        for replica, engine in zip(self._replicas, self._engines, strict=True):
            own = slice((replica - released.first) % self._of, None, self._of)
            release_s = released.release_s[own]
            if not len(release_s):
                continue
            rows = self._requests.take(released.trace, own)
            self._remember(rows, released.first + np.arange(len(released.release_s))[own])
            engine.submit(rows, release_s)
            finished.append(engine.advance_past_finishes(float(release_s[-1])))
        return self._take(finished)

    def finish(self) -> Served:
        """Serve all that is left."""
        return self._take([engine.advance_past_finishes(inf) for engine in self._engines])

    def close(self, end_s: float) -> list[Totals]:
        """Account the idle energy up to `end_s` and return what each replica did."""
        for engine in self._engines:
            engine.close(end_s)
        return [totals_of(engine) for engine in self._engines]

    def _remember(self, rows: Ints, place: Ints) -> None:
        length = len(self._requests.requests)
        if len(self._place) < length:
            self._place = np.concatenate([self._place, np.zeros(length - len(self._place), np.int64)])
        self._place[rows] = place

    def _take(self, finished: list[Ints]) -> Served:
        rows = np.concatenate([np.zeros(0, np.int64), *finished])
        results = self._requests.results[rows, FIRST_TOKEN_S:].T
        self._requests.give_back(rows)
        return Served(self._place[rows], results)


def totals_of(engine: SimulatedEngine) -> Totals:
    """Return what a closed engine did."""
    return Totals(
        engine.steps, engine.outside_steps, engine.preemptions, engine.split, engine.power, (engine.use,)
    )


def sum_of(replicas: Sequence[Totals]) -> Totals:
    """Return what the replicas of a fleet did together; they were closed at one time."""
    energy_j = np.sum([one.power.energy_j for one in replicas], axis=0)
    return Totals(
        sum(one.steps for one in replicas),
        sum(one.outside_steps for one in replicas),
        sum(one.preemptions for one in replicas),
        sum_of_splits([one.split for one in replicas]),
        Power(replicas[0].power.time_s, energy_j),
        tuple(use for one in replicas for use in one.uses),
        tuple(replicas),
    )


def sum_of_splits(splits: Sequence[EnergySplit]) -> EnergySplit:
    """Return where the energy of several went."""
    return EnergySplit(
        fsum(split.prefill_j for split in splits),
        fsum(split.decode_j for split in splits),
        fsum(split.idle_j for split in splits),
    )
