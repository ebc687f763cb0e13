"""The facts of a simulated run, as its record tells them."""

import platform
import re
from dataclasses import asdict
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from sim.guards import OUT_OF_RANGE_LIMIT
from sim.options import FleetOptions
from sim.policy import Policy
from sim.prediction import energy_interval_j
from sim.registry import name_of, options_of
from sim.replica_group import Totals
from sim.router_registry import make_router
from sim.scaling import make_scaling
from sim.serving import Setup
from sim.settings import full_name
from sim.table import CostTable
from traces.record import Meta
from traces.trace import Trace


def describe(
    trace: Trace,
    requests: int,
    policy: Policy,
    setup: Setup,
    totals: Totals,
    started_at: datetime,
    seed: int,
) -> Meta:
    """Return all that a run's record tells of it but the verdict of the guards.

    Args:
        trace: Tells its name and origin.
        requests: How many it has.
        policy: What released them.
        setup: What served them.
        totals: What the fleet did.
        started_at: When the simulation began.
        seed: Of what was drawn.
    """
    name, table, replicas = name_of(policy), setup.table, setup.fleet.replicas
    outside = totals.outside_steps / totals.steps
    is_known = "spread" in table.meta and outside <= OUT_OF_RANGE_LIMIT
    return Meta(
        run_id=id_of_run(trace, policy, started_at),
        kind="simulated",
        started_at=started_at.isoformat(timespec="seconds"),
        trace_name=trace.name,
        trace_sha256=trace.sha256,
        trace_source=trace.source,
        trace_options={},
        requests=requests,
        policy=name,
        policy_options=options_of(policy),
        engine_options=asdict(setup.options) | facts_of(setup.fleet),
        table=table.name,
        table_source=table.measured_on,
        gpu=table.gpu,
        gpus=replicas * table.gpus,
        power_limit_w=table.power_limit_w,
        idle_w=replicas * table.coefficients.idle_w,
        versions=_versions(),
        seed=seed,
        makespan_s=float(totals.power.time_s[-1]),
        energy=totals.split,
        energy_source="simulated" if table.source == "measured" else "assumed",
        out_of_range_fraction=outside,
        energy_valid=False,
        notes=(*trace.notes, *_notes(table, totals)),
        energy_interval_j=energy_interval_j(totals.split, table.meta["spread"]) if is_known else None,
        replicas=totals.uses,
    )


def id_of_run(trace: Trace, policy: Policy, started_at: datetime) -> str:
    """Return the name of a run, good as the name of a folder."""
    return re.sub(r"[^\w.-]+", "-", f"{trace.name}-{name_of(policy)}-{started_at:%Y%m%dT%H%M%SZ}")


def facts_of(fleet: FleetOptions) -> dict[str, Any]:
    """Return the fleet's options as a record keeps them, defaults included; none of a single engine's."""
    scaling = make_scaling(fleet.scaling)
    if fleet.replicas == 1 and scaling is None:
        return {}
    router = full_name(fleet.router, make_router(fleet.router, (fleet.replicas,)))
    facts: dict[str, Any] = {"replicas": fleet.replicas, "router": router}
    return facts if scaling is None else facts | {"scaling": full_name(fleet.scaling, scaling)}


def _notes(table: CostTable, totals: Totals) -> tuple[str, ...]:
    notes = []
    if table.source != "measured":
        notes.append(f"Table {table.name} is assumed, not measured: {table.measured_on}.")
    is_of_one_card = len(table.meta.get("gpu_hashes", ())) == table.gpus
    if is_of_one_card and not table.meta.get("adapted_from"):
        notes.append(
            f"Table {table.name} is of the cards it was measured on; others of their kind draw some percent "
            f"more or less in decode (docs/tables.md), which `replay calibrate --adapt` measures."
        )
    if totals.outside_steps:
        outside = f"{totals.outside_steps} of {totals.steps} steps"
        notes.append(f"{outside} lie outside what table {table.name} measured.")
    if totals.preemptions:
        notes.append(f"KV blocks ran out: {totals.preemptions} times a request was preempted and recomputed.")
    return tuple(notes)


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in ("replay", "numpy", "numba", "simpy"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed as a package"
    return versions
