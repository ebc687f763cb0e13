"""Serve a whole trace by a fleet: on the simulated clock, or past it where releases are known beforehand."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from sim.disaggregation import Disaggregated
from sim.driver import Driver, Progress
from sim.engine import SimulatedEngine
from sim.fleet import Fleet
from sim.foreknown import STRETCH_REQUESTS, release_times, stretches
from sim.options import EngineOptions, FleetOptions
from sim.policy import Policy
from sim.pools import Pool, Pools, prefilled_requests_of, prompts_of, requests_of
from sim.replica_group import ReplicaGroup, Served, Totals, sum_of, totals_of
from sim.request_table import check_lengths, known_prefixes
from sim.router_registry import make_router
from sim.scaling import make_scaling
from sim.scheduler_state import ENERGY_J, FINISHED_S, FIRST_TOKEN_S
from sim.table import CostTable
from traces.record import SERVED, UNFINISHED, Outcomes
from traces.trace import Counts, Floats, Trace

POWER_TICK_S = 0.1
MOST_POWER_SAMPLES = 1_000_000


@dataclass(frozen=True, slots=True)
class Setup:
    """What serves the requests: equal engines.

    Attributes:
        options: What each engine is told.
        fleet: How many engines there are.
        table: What their steps cost.
    """

    options: EngineOptions
    fleet: FleetOptions
    table: CostTable

    @property
    def pools(self) -> Pools:
        """The same as a fleet of one pool."""
        pool = Pool(None, self.fleet.replicas, self.options, self.table)
        return Pools((pool,), self.fleet.router, self.fleet.scaling)


def serve(
    trace: Trace, policy: Policy, setup: Setup | Pools, progress: Progress | None
) -> tuple[Outcomes, Totals]:
    """Return what became of each request, and what the fleet did up to the last completion.

    Raises:
        ValueError: A request cannot be served, or the policy breaks a rule.
    """
    if isinstance(setup, Pools):
        on_clock = _serve_on_clock if setup.kv_transfer is None else _serve_disaggregated
        return on_clock(trace, policy, setup, progress)
    release_s = release_times(policy, trace.arrival_s) if takes_turns(setup.fleet) else None
    if release_s is None:
        return _serve_on_clock(trace, policy, setup.pools, progress)
    return _serve_foreknown(trace, release_s, setup, progress)


def takes_turns(fleet: FleetOptions) -> bool:
    """Say whether it is known beforehand which replica the n-th release goes to."""
    return fleet.scaling == "fixed" and (fleet.replicas == 1 or fleet.router == "round-robin")


def power_tick_s(last_s: float) -> float:
    """Return the seconds between power samples of a replay whose last request comes at `last_s`.

    A tenth of a second, or so many times ten that there are about a million samples at most.
    """
    tick_s = POWER_TICK_S
    while last_s / tick_s > MOST_POWER_SAMPLES:
        tick_s *= 10
    return tick_s


def _serve_on_clock(
    trace: Trace, policy: Policy, pools: Pools, progress: Progress | None
) -> tuple[Outcomes, Totals]:
    requests = requests_of(trace, pools)
    tick_s = power_tick_s(float(trace.arrival_s[-1]))
    engines = [
        SimulatedEngine(requests, pool.options, pool.table, power_tick_s=tick_s) for pool in pools.replicas
    ]
    fleet = _fleet_of(engines, trace, pools)
    release_s = Driver(trace, policy, fleet or engines[0], progress).run()
    end_s = float(engines[0].finished_s.max())  # of all: they share one table of requests
    if fleet is not None:
        fleet.close(end_s)
    replica = fleet.replica if fleet is not None and len(engines) > 1 else None
    results = requests.results[:, FIRST_TOKEN_S:].T
    return outcomes_of(trace, release_s, results, replica), _close(engines, pools, end_s)


def _serve_disaggregated(
    trace: Trace, policy: Policy, pools: Pools, progress: Progress | None
) -> tuple[Outcomes, Totals]:
    prefill, decode = pools.stages
    prompts, requests = requests_of(prompts_of(trace), prefill), prefilled_requests_of(trace, decode)
    tick_s = power_tick_s(float(trace.arrival_s[-1]))
    senders = [
        SimulatedEngine(prompts, pool.options, pool.table, power_tick_s=tick_s, transfer=pools.kv_transfer)
        for pool in prefill.replicas
    ]
    decoders = [
        SimulatedEngine(requests, pool.options, pool.table, power_tick_s=tick_s) for pool in decode.replicas
    ]
    first = Fleet(senders, make_router(prefill.router, prefill.counts), trace)
    second = Fleet(decoders, make_router(decode.router, decode.counts), trace)
    release_s = Driver(trace, policy, Disaggregated(first, second), progress).run()
    end_s = float(decoders[0].finished_s.max())
    energy_j = prompts.results[:, ENERGY_J] + requests.results[:, ENERGY_J]
    results = np.stack([requests.results[:, FIRST_TOKEN_S], requests.results[:, FINISHED_S], energy_j])
    outcomes = outcomes_of(trace, release_s, results, second.replica + len(senders))
    totals = _close([*senders, *decoders], pools, end_s)
    return replace(outcomes, prefill_replica=first.replica), totals


def _close(engines: Sequence[SimulatedEngine], pools: Pools, end_s: float) -> Totals:
    for engine in engines:
        engine.close(end_s)
    return sum_of([_part_of(engine, pool) for engine, pool in zip(engines, pools.replicas, strict=True)])


def _part_of(engine: SimulatedEngine, pool: Pool) -> Totals:
    totals = totals_of(engine)
    return replace(totals, uses=tuple(replace(use, pool=pool.name) for use in totals.uses))


def _fleet_of(engines: Sequence[SimulatedEngine], trace: Trace, pools: Pools) -> Fleet | None:
    """Return the engines as one, None for a single one that is always awake."""
    router, scaling = make_router(pools.router, pools.counts), make_scaling(pools.scaling)
    if len(engines) == 1 and scaling is None:
        return None
    return Fleet(engines, router, trace, scaling, [pool.table for pool in pools.replicas])


def _serve_foreknown(
    trace: Trace, release_s: Floats, setup: Setup, progress: Progress | None
) -> tuple[Outcomes, Totals]:
    check_lengths(trace, setup.options)
    order = np.argsort(release_s, kind="stable")
    in_order = trace if (release_s[1:] >= release_s[:-1]).all() else trace.take(order)
    replicas = setup.fleet.replicas
    prefix = known_prefixes(in_order, setup.options)
    tick_s = power_tick_s(float(trace.arrival_s[-1]))
    group = ReplicaGroup(range(replicas), replicas, setup.options, setup.table, tick_s, prefix)
    results = np.full((3, len(trace)), np.nan)

    def keep(served: Served) -> None:
        results[:, order[served.place]] = served.results
        if progress is not None:
            progress(len(served.place))

    for stretch in stretches(in_order.parts(STRETCH_REQUESTS), release_s[order]):
        keep(group.serve(stretch))
    keep(group.finish())
    totals = sum_of(group.close(float(results[1].max())))
    replica = None
    if replicas > 1:
        replica = np.empty(len(trace), np.int32)
        replica[order] = np.arange(len(trace)) % replicas
    return outcomes_of(trace, release_s, results, replica), totals


def outcomes_of(
    trace: Trace, released_s: Floats, results: Floats, replica: Counts | None, first_row: int = 0
) -> Outcomes:
    """Return what became of requests as it is recorded.

    Args:
        trace: The requests.
        released_s: When each was released, shape (requests,).
        results: first_token_s, finished_s and energy_j of each, NaN where unknown, shape (3, requests).
        replica: Which replica served each, None if there is but one.
        first_row: Row of the first of them.
    """
    first_token_s, finished_s, energy_j = results
    return Outcomes(
        request_id=np.arange(first_row, first_row + len(trace), dtype=np.int64),
        arrival_s=trace.arrival_s,
        released_s=released_s,
        first_token_s=first_token_s,
        finished_s=finished_s,
        prompt_tokens=trace.prompt_tokens,
        output_tokens=trace.output_tokens,
        status=np.where(np.isfinite(finished_s), SERVED, UNFINISHED).astype(np.uint8),
        energy_j=energy_j,
        replica=replica,
    )
