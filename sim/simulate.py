"""Simulate a replay: a trace through a policy and the simulated engine, to a run."""

from dataclasses import replace
from datetime import UTC, datetime

from sim.arrivals import as_offered
from sim.driver import Progress
from sim.guards import check
from sim.options import EngineOptions, FleetOptions
from sim.policy import Policy
from sim.pools import Pools
from sim.run_facts import describe
from sim.serving import Setup, serve
from sim.table import CostTable
from sim.told_costs import tell_costs
from traces.record import Run
from traces.trace import Trace

ONE_REPLICA = FleetOptions()


def simulate(
    trace: Trace,
    policy: Policy,
    options: EngineOptions,
    table: CostTable,
    *,
    fleet: FleetOptions = ONE_REPLICA,
    seed: int = 0,
    progress: Progress | None = None,
) -> Run:
    """Return the run of `trace` through `policy` on engines that cost what `table` says.

    Energy counts from time 0 of the trace to the last completion.

    Args:
        trace: At least one request.
        policy: Fresh: it may keep state.
        options: What each engine is told.
        table: What steps cost.
        fleet: How many engines there are.
        seed: Recorded with the run; whoever draws has been given it already.
        progress: Called with the number of requests just finished.

    Raises:
        ValueError: The trace is empty, a request cannot be served under `options`, or the policy breaks a
        rule.
    """
    return simulate_fleet(trace, policy, Setup(options, fleet, table), seed=seed, progress=progress)


def simulate_fleet(
    trace: Trace,
    policy: Policy,
    setup: Setup | Pools,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> Run:
    """Return the run of `trace` through `policy` on the engines of `setup`, as `simulate` does.

    Raises:
        ValueError: As `simulate` does.
    """
    if not len(trace):
        raise ValueError(f"trace {trace.name} has no requests; a replay needs at least 1")
    started_at = datetime.now(UTC)
    offered = as_offered(trace, policy)
    pools = setup if isinstance(setup, Pools) else setup.pools
    tell_costs(policy, pools.costs)
    outcomes, totals = serve(offered, policy, setup, progress)
    meta = describe(offered, len(offered), policy, pools, totals, started_at, seed)
    run = Run(meta, outcomes, totals.power)
    reasons = check(run)
    return replace(run, meta=replace(meta, energy_valid=not reasons, invalid_reasons=reasons))
