"""The record of a measured run, made from what was seen of it, whatever went wrong."""

import platform
import re
from collections.abc import Mapping
from dataclasses import astuple, dataclass, field, replace
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.energy_counter import integrate_power_j, read_counter
from backends.host_energy import between_j
from backends.live import LiveReplay
from backends.measured_split import shares_by_table, shares_by_tokens, split_energy, step_spans
from backends.nvml import MeterError
from backends.prompts import SAFE_VOCABULARY
from backends.rig import Watch
from sim.arrivals import as_offered
from sim.guards import check
from sim.metering import COUNTER_TICK_S, Metering
from sim.policy import Policy
from sim.registry import name_of, options_of
from sim.step_cost import Coefficients
from sim.table import CostTable
from traces.record import SERVED, EnergySource, EnergySplit, Meta, Outcomes, Power, ReplicaUse, Run
from traces.trace import Floats, Trace

LAG_LIMIT_S = 0.005
UNMETERED = Power(np.zeros(0), np.zeros(0))
VERSIONS = ("vllm", "torch")
"""Facts of an engine that are versions, not options."""


@dataclass(frozen=True, slots=True)
class Replay:
    """What to replay.

    Attributes:
        name: Tells replays on one engine apart: no two may share it.
        trace: At least one request.
        policy: Fresh: it may keep state.
        trace_options: How the trace was selected, for the record.
        seed: Seed of the prompts.
        costs: Shares steps' energy by this cost table; None shares by time and tokens.
        policy_name: What the record calls the policy, None for its own name.
        table: What a policy that asks for costs is told, None for nothing.
    """

    name: str
    trace: Trace
    policy: Policy
    trace_options: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    costs: Coefficients | None = None
    policy_name: str | None = None
    table: CostTable | None = None


@dataclass(frozen=True, slots=True)
class Ending:
    """Why a replay is not whole, if it is not.

    Attributes:
        reasons: One sentence each.
        is_interrupted: It was cancelled from outside, and so should be whatever comes next.
        is_engine_dead: The engine only failed.
    """

    reasons: tuple[str, ...] = ()
    is_interrupted: bool = False
    is_engine_dead: bool = False

    def because(self, reason: str) -> "Ending":
        """Return this ending with one more reason."""
        return replace(self, reasons=(*self.reasons, reason))


@dataclass(frozen=True, slots=True)
class Seen:
    """What was seen of a replay; times are monotonic seconds, of the meter's clock.

    Attributes:
        live: The replay, ended.
        facts: What the engine says of itself.
        ending: Why it is not whole.
        started_at: Wall clock at `idle_from_s`.
        idle_from_s: The known idle before time 0 began.
        end_s: The replay ended.
        samples: The meter's samples since `idle_from_s`, as far as it got.
        steps: The step log since time 0, None if the engine tells nothing of its steps.
        gpus: The metered GPUs, none if nothing is metered.
        notes: What the user should know of the engine.
        twin: The cost table that pretended to be the GPUs, None where they are real.
        replica: Which replica each request was sent to, by row; None where there is but one.
    """

    live: LiveReplay
    facts: dict[str, Any]
    ending: Ending
    started_at: datetime
    idle_from_s: float
    end_s: float
    samples: NDArray[np.void]
    steps: NDArray[np.void] | None
    gpus: Watch
    notes: tuple[str, ...] = ()
    twin: CostTable | None = None
    replica: list[int | None] | None = None

    @property
    def zero_s(self) -> float:
        """Time 0 of the replay."""
        assert self.live.zero_s is not None
        return self.live.zero_s


@dataclass(frozen=True, slots=True)
class Measured:
    """A measured run and what was read beside it.

    Attributes:
        run: The run, valid or not.
        attachments: Columns by table: `steps`, what each engine step held, if known; `sends`, when requests
            were due and sent; `meter`, the meter's samples, if any. Times are seconds since time 0.
        ending: How the replay ended.
    """

    run: Run
    attachments: dict[str, dict[str, Any]]
    ending: Ending


@dataclass(frozen=True, slots=True)
class Energy:
    """The energy of a replay, all unknown if it was not metered, its split if its steps are.

    Several replicas' split is the sum of theirs; one has no `replicas`.
    """

    split: EnergySplit | None = None
    replicas: tuple[ReplicaUse, ...] = ()
    power: Power = UNMETERED
    idle_w: float | None = None
    metering: Metering | None = None
    cpu_j: float | None = None
    dram_j: float | None = None


def make_record(what: Replay, seen: Seen) -> Measured:
    """Return the record of a replay; what breaks a guard, or kept it from being whole, makes it invalid."""
    outcomes = seen.live.outcomes()
    steps = None if seen.steps is None else _relative(seen.steps, ("scheduled_s", "done_s"), seen.zero_s)
    ends_s = outcomes.finished_s[np.isfinite(outcomes.finished_s)]
    makespan_s = float(ends_s.max()) if len(ends_s) else seen.end_s - seen.zero_s
    energy, reasons = Energy(), seen.ending.reasons
    try:
        if seen.gpus.facts:
            energy = _energy(what, seen, steps, makespan_s)
    except (ValueError, MeterError) as error:
        reasons = (*reasons, str(error))
    failures = seen.live.failures
    if failures:
        row = min(failures)
        reasons = (*reasons, f"{len(failures)} requests failed, the first is {row}: {failures[row]}")
    run = Run(_meta(what, seen, energy, makespan_s, outcomes), outcomes, energy.power)
    reasons = (*reasons, *check(run, energy.metering))
    run = replace(run, meta=replace(run.meta, energy_valid=not reasons, invalid_reasons=reasons))
    attachments = {"sends": _sends(outcomes, seen)}
    if steps is not None:
        attachments["steps"] = _columns(steps)
    if seen.gpus.facts:
        attachments["meter"] = _columns(_relative(seen.samples, ("time_s",), seen.zero_s))
    return Measured(run, attachments, seen.ending)


def _energy(what: Replay, seen: Seen, steps: NDArray[np.void] | None, makespan_s: float) -> Energy:
    samples = seen.samples
    counter = read_counter(samples, seen.zero_s)
    power = counter.power(makespan_s)
    idle_w = counter.mean_w(seen.idle_from_s - seen.zero_s, 0.0)
    end_s = seen.zero_s + makespan_s
    inside = samples[(samples["time_s"] >= seen.zero_s) & (samples["time_s"] <= end_s)]
    metering = Metering(
        metered_uuids=tuple(fact.uuid for fact in seen.gpus.facts),
        engine_uuids=seen.gpus.engine_uuids,
        foreign_process_ids=seen.gpus.foreign_process_ids(),
        counter_j=float(power.energy_j[-1]),
        integrated_j=integrate_power_j(samples, seen.zero_s, end_s),
        throttle_reasons=int(np.bitwise_or.reduce(inside["throttle_reasons"], initial=0)),
        window_s=makespan_s,
    )
    split, replicas = (None, ()) if steps is None else _split(what, seen, steps, makespan_s)
    cpu_j, dram_j = (between_j(samples, kind, seen.zero_s, end_s) for kind in ("cpu_j", "dram_j"))
    return Energy(split, replicas, power, idle_w, metering, cpu_j, dram_j)


def _meta(what: Replay, seen: Seen, energy: Energy, makespan_s: float, outcomes: Outcomes) -> Meta:
    trace, policy, gpus, twin = what.trace, what.policy, seen.gpus, seen.twin
    limits_w = [fact.power_limit_w for fact in gpus.facts if fact.power_limit_w is not None]
    return Meta(
        run_id=re.sub(
            r"[^\w.-]+", "-", f"{trace.name}-{name_of(policy)}-{seen.started_at:%Y%m%dT%H%M%SZ}-live"
        ),
        kind="measured" if twin is None else "twin",
        started_at=seen.started_at.isoformat(timespec="seconds"),
        trace_name=trace.name,
        trace_sha256=trace.sha256,
        trace_source=trace.source,
        trace_options=dict(what.trace_options),
        requests=len(trace),
        policy=what.policy_name or name_of(policy),
        policy_options=options_of(policy),
        engine_options={name: value for name, value in seen.facts.items() if name not in VERSIONS},
        table=None if twin is None else twin.name,
        table_source=None if twin is None else twin.measured_on,
        gpu=" + ".join(dict.fromkeys(fact.name for fact in gpus.facts)) or None,
        gpus=len(gpus.facts),
        power_limit_w=min(limits_w) if limits_w else None,
        idle_w=energy.idle_w,
        versions=_versions(seen),
        seed=what.seed,
        makespan_s=makespan_s,
        energy=energy.split,
        energy_source=_source(seen, energy),
        out_of_range_fraction=_outside_fraction(seen),
        energy_valid=False,
        notes=(*as_offered(trace, policy).notes, *_notes(what, seen, energy, outcomes)),
        cpu_j=energy.cpu_j,
        dram_j=energy.dram_j,
        replicas=energy.replicas,
    )


def _split(
    what: Replay, seen: Seen, steps: NDArray[np.void], makespan_s: float
) -> tuple[EnergySplit, tuple[ReplicaUse, ...]]:
    """Return what the GPUs took, each replica's divided among its steps, and what each of several did."""
    served = seen.live.outcomes().status == SERVED
    replicas, costs = int(seen.facts.get("replicas", 1)), _costs(what, seen)
    gpus_each = len(seen.gpus.facts) // replicas
    parts, uses = [], []
    for replica in range(replicas):
        own = steps if replicas == 1 else steps[steps["replica"] == replica]
        counter = read_counter(seen.samples[seen.samples["gpu"] // gpus_each == replica], seen.zero_s)
        idle_w = counter.mean_w(seen.idle_from_s - seen.zero_s, 0.0)
        shares = shares_by_tokens(own) if costs is None else shares_by_table(own, costs)
        part = split_energy(counter.power(makespan_s), own, idle_w, shares)
        parts.append(part)
        if seen.replica is not None:
            from_s, until_s = step_spans(own, makespan_s)
            busy_s = float((until_s - from_s).sum())
            uses.append(
                ReplicaUse(
                    requests=int(np.count_nonzero(served & (np.array(seen.replica) == replica))),
                    busy_s=busy_s,
                    idle_s=makespan_s - busy_s,
                    busy_j=part.prefill_j + part.decode_j,
                    idle_j=part.idle_j,
                    idle_w=idle_w,
                )
            )
    return EnergySplit(*(sum(part) for part in zip(*map(astuple, parts), strict=True))), tuple(uses)


def _costs(what: Replay, seen: Seen) -> Coefficients | None:
    """Return what shares the steps' energy, on a twin the table that it has its energy from."""
    return what.costs if seen.twin is None else seen.twin.coefficients


def _source(seen: Seen, energy: Energy) -> EnergySource:
    if energy.metering is None:
        return "none"
    if seen.twin is None:
        return "nvml"
    return "twin" if seen.twin.source == "measured" else "assumed"


def _outside_fraction(seen: Seen) -> float | None:
    """Return the fraction of a twin's steps that lie outside what its table measured."""
    if seen.twin is None or seen.steps is None or not len(seen.steps):
        return None
    held = [seen.steps[name] for name in ("prefill_tokens", "decode_seqs", "kv_tokens", "prefill_pairs")]
    too_much = np.stack(held, axis=1) > seen.twin.coefficients.limits
    return float(np.mean(too_much.any(axis=1)))


def _notes(what: Replay, seen: Seen, energy: Energy, outcomes: Outcomes) -> list[str]:
    notes = list(seen.notes)
    lag_s = _lag_s(outcomes, seen.live)
    lag_s = lag_s[np.isfinite(lag_s)]
    late_s = float(np.quantile(lag_s, 0.99)) if len(lag_s) else 0.0
    if late_s > LAG_LIMIT_S:
        notes.append(f"Requests were sent late: {1e3 * late_s:.3g} ms after they were due at p99.")
    if energy.split is not None:
        by_tokens = "the steps' time, and their prefill tokens and decoding sequences"
        by = by_tokens if _costs(what, seen) is None else "what the cost table says of each step"
        notes.append(f"The total is split into prefill, decode and idle by {by}.")
    elif energy.metering is not None:
        notes.append("The server tells nothing of its steps, so the measured total is not split.")
    elif not seen.gpus.facts:
        notes.append("No GPU was metered, so there are latencies and no energy.")
    if "vocabulary" not in seen.facts:
        notes.append(f"The model's vocabulary is not known: prompts have ids below {SAFE_VOCABULARY:,}.")
    if seen.facts.get("random_weights") and seen.twin is None:
        notes.append("The model's weights were random; power depends a little on them.")
    unread_s = _longest_unread_s(seen)
    if unread_s > COUNTER_TICK_S:
        kept = f"The meter was kept from reading for up to {unread_s:.2g} s"
        notes.append(f"{kept}; what was drawn meanwhile is seen by as much later.")
    celsius = seen.samples["temperature_c"]
    if np.isfinite(celsius).any():
        notes.append(f"The GPU was at {np.nanmin(celsius):.0f} to {np.nanmax(celsius):.0f} °C.")
    return notes


def _longest_unread_s(seen: Seen) -> float:
    """Return the longest time during the replay without a reading, 0 if none is metered.

    All GPUs are read one right after the other, so that the first one tells.
    """
    read_s = seen.samples["time_s"][seen.samples["gpu"] == 0]
    inside_s = read_s[(read_s >= seen.zero_s) & (read_s <= seen.end_s)]
    return float(np.diff(inside_s).max(initial=0.0))


def _lag_s(outcomes: Outcomes, live: LiveReplay) -> Floats:
    """Return how late requests were sent: behind the trace at arrival, and behind the policy at release."""
    return (live.arrived_s - outcomes.arrival_s) + (live.sent_s - outcomes.released_s)


def _sends(outcomes: Outcomes, seen: Seen) -> dict[str, Any]:
    live = seen.live
    failures = [live.failures.get(row) for row in range(len(outcomes))]
    columns = {
        "request_id": outcomes.request_id,
        "due_s": outcomes.arrival_s,
        "arrived_s": live.arrived_s,
        "released_s": outcomes.released_s,
        "sent_s": live.sent_s,
        "lag_s": _lag_s(outcomes, live),
        "failure": np.array(failures, dtype=object),
    }
    return columns if seen.replica is None else {**columns, "replica": seen.replica}


def _relative(rows: NDArray[np.void], times: tuple[str, ...], zero_s: float) -> NDArray[np.void]:
    moved = rows.copy()
    for name in times:
        moved[name] -= zero_s
    return moved


def _columns(rows: NDArray[np.void]) -> dict[str, Any]:
    return {name: rows[name] for name in rows.dtype.names or ()}


def _versions(seen: Seen) -> dict[str, str]:
    versions = {"python": platform.python_version()}
    try:
        versions["replay"] = version("replay")
    except PackageNotFoundError:
        versions["replay"] = "not installed as a package"
    versions |= {name: str(seen.facts[name]) for name in VERSIONS if name in seen.facts}
    if seen.gpus.facts:
        versions["driver"] = seen.gpus.facts[0].driver
        versions["gpu_uuid_hashes"] = " ".join(seen.gpus.uuid_hashes())
    return versions
