"""Simulate a replay: a trace through a policy and the simulated engine, to a run."""

import platform
import re
from dataclasses import asdict, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

import numpy as np

from sim.arrivals import as_offered
from sim.driver import Driver, Progress
from sim.engine import SimulatedEngine
from sim.foreknown import release_times, serve
from sim.guards import check
from sim.options import EngineOptions
from sim.policy import Policy
from sim.registry import name_of, options_of
from sim.table import CostTable
from traces.record import SERVED, UNFINISHED, Meta, Outcomes, Run
from traces.trace import Floats, Trace


def simulate(
    trace: Trace,
    policy: Policy,
    options: EngineOptions,
    table: CostTable,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> Run:
    """Return the run of `trace` through `policy` on an engine that costs what `table` says.

    Energy counts from time 0 of the trace to the last completion.

    Args:
        trace: At least one request.
        policy: Fresh: it may keep state.
        options: What the engine is told.
        table: What steps cost.
        seed: Recorded with the run; whoever draws has been given it already.
        progress: Called with the number of requests just finished.

    Raises:
        ValueError: The trace is empty, a request cannot be served under `options`, or the policy breaks a
        rule.
    """
    if not len(trace):
        raise ValueError(f"trace {trace.name} has no requests; a replay needs at least 1")
    started_at = datetime.now(UTC)
    offered = as_offered(trace, policy)
    engine = SimulatedEngine(offered, options, table)
    released_s = _serve(offered, policy, engine, progress)
    makespan_s = float(engine.finished_s.max())
    engine.close(makespan_s)
    name = name_of(policy)
    meta = Meta(
        run_id=re.sub(r"[^\w.-]+", "-", f"{trace.name}-{name}-{started_at:%Y%m%dT%H%M%SZ}"),
        kind="simulated",
        started_at=started_at.isoformat(timespec="seconds"),
        trace_name=trace.name,
        trace_sha256=trace.sha256,
        trace_source=trace.source,
        trace_options={},
        requests=len(trace),
        policy=name,
        policy_options=options_of(policy),
        engine_options=asdict(options),
        table=table.name,
        table_source=table.measured_on,
        gpu=table.gpu,
        gpus=table.gpus,
        power_limit_w=table.power_limit_w,
        idle_w=table.coefficients.idle_w,
        versions=_versions(),
        seed=seed,
        makespan_s=makespan_s,
        energy=engine.split,
        energy_source="simulated" if table.source == "measured" else "assumed",
        out_of_range_fraction=engine.outside_steps / engine.steps,
        energy_valid=False,
        notes=(*offered.notes, *_notes(engine, table)),
    )
    run = Run(meta, _outcomes(offered, engine, released_s), engine.power)
    reasons = check(run)
    return replace(run, meta=replace(meta, energy_valid=not reasons, invalid_reasons=reasons))


def _serve(trace: Trace, policy: Policy, engine: SimulatedEngine, progress: Progress | None) -> Floats:
    """Serve the trace and return when each request was released."""
    released_s = release_times(policy, trace.arrival_s)
    if released_s is None:
        return Driver(trace, policy, engine, progress).run()
    serve(released_s, engine, progress)
    return released_s


def _outcomes(trace: Trace, engine: SimulatedEngine, released_s: Floats) -> Outcomes:
    served = np.isfinite(engine.finished_s)
    return Outcomes(
        request_id=np.arange(len(trace), dtype=np.int64),
        arrival_s=trace.arrival_s,
        released_s=released_s,
        first_token_s=engine.first_token_s,
        finished_s=engine.finished_s,
        prompt_tokens=trace.prompt_tokens,
        output_tokens=trace.output_tokens,
        status=np.where(served, SERVED, UNFINISHED).astype(np.uint8),
        energy_j=engine.energy_j,
    )


def _notes(engine: SimulatedEngine, table: CostTable) -> tuple[str, ...]:
    notes = []
    if table.source != "measured":
        notes.append(f"Table {table.name} is assumed, not measured: {table.measured_on}.")
    if engine.outside_steps:
        outside = f"{engine.outside_steps} of {engine.steps} steps"
        notes.append(f"{outside} lie outside what table {table.name} measured.")
    if engine.preemptions:
        notes.append(f"KV blocks ran out: {engine.preemptions} times a request was preempted and recomputed.")
    return tuple(notes)


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in ("replay", "numpy", "numba", "simpy"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed as a package"
    return versions
