"""Simulate a replay of a trace too long for memory, its outcomes handed over as they become known."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np

from sim.driver import Progress
from sim.foreknown import STRETCH_REQUESTS, Foreseeing, release_times, stretches
from sim.guards import Evidence, check_evidence
from sim.policy import Policy
from sim.replica_group import Released, Served, sum_of
from sim.replica_processes import Processes
from sim.request_table import check_lengths
from sim.run_facts import describe
from sim.serving import Setup, outcomes_of, power_tick_s, takes_turns
from sim.slo import Slo
from sim.tally import Tally
from sim.told_costs import tell_costs
from traces.long_trace import LongTrace
from traces.record import Meta, Outcomes, Power
from traces.trace import Floats

Keep = Callable[[Outcomes], None]


def can_stream(trace: LongTrace, policy: Policy, setup: Setup) -> bool:
    """Say whether a replay needs no more of the trace than one stretch at a time.

    That is so if the releases depend on the arrivals alone, the replicas take turns, and nobody asks which
    prompts have equal prefixes.
    """
    asks_for_prefixes = trace.has_hashes and setup.options.enable_prefix_caching
    is_foreseeing = isinstance(policy, Foreseeing) and not getattr(policy, "retimes", False)
    return is_foreseeing and takes_turns(setup.fleet) and not asks_for_prefixes


def simulate_stream(
    trace: LongTrace,
    policy: Policy,
    setup: Setup,
    keep: Keep,
    *,
    seed: int = 0,
    progress: Progress | None = None,
    processes: int | None = None,
    limits: Sequence[Slo] = (),
) -> tuple[Meta, Power, Tally]:
    """Replay as `sim.simulate.simulate` does, with the same results.

    In memory are 32 bytes a request of the trace (its release and its latencies), and what is known of the
    requests between the oldest unfinished one and the newest.

    Args:
        trace: One for which `can_stream`.
        policy: Fresh.
        setup: What serves the requests.
        keep: Takes the outcomes of the next requests, in the order of the trace.
        seed: Recorded with the run.
        progress: Called with the number of requests just finished.
        processes: How many to use, all processors if None; more than replicas are of no use.
        limits: Of each request, for the tally.

    Returns:
        The run's facts with the guards' verdict, its power, and what its outcomes come to.

    Raises:
        ValueError: A row of the trace breaks a rule, a request cannot be served, or the policy tells release
            times that are impossible or not in the order of the arrivals.
    """
    started_at = datetime.now(UTC)
    tell_costs(policy, setup.pools.costs)
    arrival_s = trace.arrivals()
    release_s, last_arrival_s = _release_times(trace, policy, arrival_s), float(arrival_s[-1])
    del arrival_s
    tally, window = Tally(limits=limits), Window(setup.fleet.replicas)
    fleet = Processes(setup, power_tick_s(last_arrival_s), processes or len(os.sched_getaffinity(0)))

    def take_in(answers: list[Served]) -> None:
        for served in answers:
            window.put(served)
            if progress is not None:
                progress(len(served.place))
        for outcomes in window.take_finished():
            tally.add(outcomes)
            keep(outcomes)

    served: list[Served] = []
    for stretch in stretches(trace.parts(STRETCH_REQUESTS), release_s):
        check_lengths(stretch.trace, setup.options, stretch.first)
        fleet.begin("serve", stretch)
        take_in(served)  # of the stretch before, while the processes serve this one
        window.add(stretch)
        served = fleet.answers()
    take_in(served)
    fleet.begin("finish")
    take_in(fleet.answers())
    totals = sum_of(fleet.close(window.last_finish_s))
    meta = describe(trace.facts, trace.requests, policy, setup.pools, totals, started_at, seed)
    reasons = check_evidence(Evidence(meta, tally, totals.power))
    return replace(meta, energy_valid=not reasons, invalid_reasons=reasons), totals.power, tally


class Window:
    """The requests of a trace from the oldest unfinished one to the newest that was released.

    Attributes:
        last_finish_s: The last finish so far.
    """

    def __init__(self, replicas: int) -> None:
        """Begin before the first request of a fleet of so many replicas."""
        self.last_finish_s = 0.0
        self._replicas = replicas
        self._first = 0
        self._stretches: list[Released] = []
        self._results: Floats = np.zeros((3, 0))

    def add(self, stretch: Released) -> None:
        """Take in the next requests."""
        self._stretches.append(stretch)
        unknown = np.full((3, len(stretch.release_s)), np.nan)
        self._results = np.concatenate([self._results, unknown], axis=1)

    def put(self, served: Served) -> None:
        """Note what became of some of the requests."""
        self._results[:, served.place - self._first] = served.results
        self.last_finish_s = max(self.last_finish_s, float(served.results[1].max(initial=0.0)))

    def take_finished(self) -> Iterator[Outcomes]:
        """Let go of the oldest stretches in which all have finished, and yield what became of them."""
        while self._stretches:
            stretch = self._stretches[0]
            count = len(stretch.release_s)
            results = self._results[:, :count]
            if np.isnan(results[1]).any():
                return
            replica = None
            if self._replicas > 1:
                place = np.arange(stretch.first, stretch.first + count)
                replica = (place % self._replicas).astype(np.int32)
            yield outcomes_of(stretch.trace, stretch.release_s, results, replica, stretch.first)
            del self._stretches[0]
            self._first += count
            self._results = self._results[:, count:]


def _release_times(trace: LongTrace, policy: Policy, arrival_s: Floats) -> Floats:
    release_s = release_times(policy, arrival_s)
    assert release_s is not None, "can_stream says so"
    late = np.flatnonzero(release_s[1:] < release_s[:-1])
    if len(late):
        raise ValueError(
            f"policy {type(policy).__name__} releases request {late[0] + 1} before the one above; "
            f"for a trace as long as {trace.facts.name} it must keep the order"
        )
    return release_s
