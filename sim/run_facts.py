"""The facts of a simulated run, as its record tells them."""

import platform
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from math import fsum
from typing import Any

from sim.guards import OUT_OF_RANGE_LIMIT
from sim.policy import Policy
from sim.pools import Pool, Pools
from sim.prediction import energy_interval_j
from sim.registry import name_of, options_of
from sim.replica_group import Totals, sum_of_splits
from sim.router_registry import make_router
from sim.scaling import make_scaling
from sim.settings import full_name
from sim.table import CostTable
from traces.record import Meta
from traces.trace import Trace


def describe(
    trace: Trace,
    requests: int,
    policy: Policy,
    fleet: Pools,
    totals: Totals,
    started_at: datetime,
    seed: int,
) -> Meta:
    """Return all that a run's record tells of it but the verdict of the guards.

    Args:
        trace: Tells its name and origin.
        requests: How many it has.
        policy: What released them.
        fleet: What served them.
        totals: What the fleet did.
        started_at: When the simulation began.
        seed: Of what was drawn.
    """
    tables = _by_table(fleet, totals)
    gpus = sum(pool.count * pool.table.gpus for pool in fleet.pools)
    limits_w = [pool.count * pool.table.gpus * pool.table.power_limit_w for pool in fleet.pools]
    return Meta(
        run_id=id_of_run(trace, policy, started_at),
        kind="simulated",
        started_at=started_at.isoformat(timespec="seconds"),
        trace_name=trace.name,
        trace_sha256=trace.sha256,
        trace_source=trace.source,
        trace_options={},
        requests=requests,
        policy=name_of(policy),
        policy_options=options_of(policy),
        engine_options=facts_of(fleet),
        table=" + ".join(table.name for table in tables),
        table_source="; ".join(table.measured_on for table in tables),
        gpu=" + ".join(dict.fromkeys(table.gpu for table in tables)),
        gpus=gpus,
        power_limit_w=fsum(limits_w) / gpus,
        idle_w=fsum(pool.count * pool.table.coefficients.idle_w for pool in fleet.pools),
        versions=_versions(),
        seed=seed,
        makespan_s=float(totals.power.time_s[-1]),
        energy=totals.split,
        energy_source="simulated" if all(table.source == "measured" for table in tables) else "assumed",
        out_of_range_fraction=totals.outside_steps / totals.steps,
        energy_valid=False,
        notes=(*trace.notes, *_notes(tables, totals.preemptions), *_transfer_notes(trace, fleet)),
        energy_interval_j=_interval_j(tables),
        replicas=totals.uses,
    )


def id_of_run(trace: Trace, policy: Policy, started_at: datetime) -> str:
    """Return the name of a run, good as the name of a folder."""
    return re.sub(r"[^\w.-]+", "-", f"{trace.name}-{name_of(policy)}-{started_at:%Y%m%dT%H%M%SZ}")


def facts_of(fleet: Pools) -> dict[str, Any]:
    """Return what the engines were told as a record keeps it, defaults included.

    Several replicas have what they are as a fleet beside it, several pools the options of each.
    """
    pools, replicas, scaling = fleet.pools, len(fleet.replicas), make_scaling(fleet.scaling)
    facts: dict[str, Any] = {}
    if len(pools) == 1:
        facts |= asdict(pools[0].options)
    if replicas > 1 or scaling is not None:
        routers = [full_name(one.router, make_router(one.router, one.counts)) for one in fleet.stages]
        facts |= {"replicas": replicas, **dict(zip(("router", "decode_router"), routers, strict=False))}
    if scaling is not None:
        facts["scaling"] = full_name(fleet.scaling, scaling)
    if fleet.kv_transfer is not None:
        facts["kv_transfer"] = asdict(fleet.kv_transfer)
    if len(pools) > 1:
        facts["pools"] = [_facts_of_pool(pool) for pool in pools]
    return facts


def _facts_of_pool(pool: Pool) -> dict[str, Any]:
    role = {} if pool.role is None else {"role": pool.role}
    return {"name": pool.name, "count": pool.count, "table": pool.table.name, **role, **asdict(pool.options)}


def _by_table(fleet: Pools, totals: Totals) -> dict[CostTable, list[Totals]]:
    """Return what the replicas of each table did."""
    tables: dict[CostTable, list[Totals]] = {}
    for pool, part in zip(fleet.replicas, totals.parts, strict=True):
        tables.setdefault(pool.table, []).append(part)
    return tables


def _interval_j(tables: Mapping[CostTable, Sequence[Totals]]) -> tuple[float, float] | None:
    """Return what the energy lies between, None if a table cannot tell; errors of several add up in full."""
    intervals = []
    for table, parts in tables.items():
        outside, steps = (sum(getattr(part, name) for part in parts) for name in ("outside_steps", "steps"))
        if "spread" not in table.meta or outside > OUT_OF_RANGE_LIMIT * steps:
            return None
        split = sum_of_splits([part.split for part in parts])
        intervals.append(energy_interval_j(split, table.meta["spread"]))
    return fsum(low_j for low_j, _ in intervals), fsum(high_j for _, high_j in intervals)


def _notes(tables: Mapping[CostTable, Sequence[Totals]], preemptions: int) -> tuple[str, ...]:
    notes = [note for table, parts in tables.items() for note in _notes_of(table, parts)]
    if preemptions:
        notes.append(f"KV blocks ran out: {preemptions} times a request was preempted and recomputed.")
    return tuple(notes)


def _transfer_notes(trace: Trace, fleet: Pools) -> Iterator[str]:
    if fleet.kv_transfer is not None:
        kv_gb = float(trace.prompt_tokens.sum(dtype=float)) * fleet.kv_transfer.bytes_per_token / 1e9
        yield f"{kv_gb:,.4g} GB of KV went from prefill to decode engines; what links draw is not counted."


def _notes_of(table: CostTable, parts: Sequence[Totals]) -> list[str]:
    notes = []
    if table.source != "measured":
        notes.append(f"Table {table.name} is assumed, not measured: {table.measured_on}.")
    is_of_one_card = len(table.meta.get("gpu_hashes", ())) == table.gpus
    if is_of_one_card and not table.meta.get("adapted_from"):
        notes.append(
            f"Table {table.name} is of the cards it was measured on; others of their kind draw some percent "
            f"more or less in decode (docs/tables.md), which `replay calibrate --adapt` measures."
        )
    outside, steps = (sum(getattr(part, name) for part in parts) for name in ("outside_steps", "steps"))
    if outside:
        notes.append(f"{outside} of {steps} steps lie outside what table {table.name} measured.")
    return notes


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in ("replay", "numpy", "numba", "simpy"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed as a package"
    return versions
