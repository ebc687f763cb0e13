"""A run: what a replay, simulated or measured, leaves behind."""

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from traces.trace import Counts, Floats, Ints

EnergySource = Literal["simulated", "assumed", "twin", "nvml", "none"]
Kind = Literal["simulated", "measured", "twin"]

AWAY = ("switching", "asleep", "off")
STATES = ("busy", "idle", *AWAY)
"""Of a replica, by the fields of `ReplicaUse`."""

UNFINISHED, SERVED, FAILED = 0, 1, 2
STATUS_NAMES = ("unfinished", "served", "failed")


@dataclass(frozen=True, slots=True, eq=False)
class Outcomes:
    """What became of each request, as columns of one length, in trace order.

    Times are seconds since the replay began, NaN where the request never got there.

    Attributes:
        request_id: Row of the trace.
        arrival_s: When the trace says that it came.
        released_s: When the policy let it go to the engine.
        first_token_s: When its first output token reached the client.
        finished_s: When its last output token reached the client.
        prompt_tokens: Tokens prefilled.
        output_tokens: Tokens received.
        status: UNFINISHED, SERVED or FAILED, uint8.
        energy_j: Its share of the energy (see docs/concepts.md for the rule), NaN where unknown.
        replica: Which of several simulated replicas it went to, None if there was one or the sends tell.
        prefill_replica: Which replica computed its prompt, None if `replica` did.
    """

    request_id: Ints
    arrival_s: Floats
    released_s: Floats
    first_token_s: Floats
    finished_s: Floats
    prompt_tokens: Counts
    output_tokens: Counts
    status: NDArray[np.uint8]
    energy_j: Floats
    replica: Counts | None = None
    prefill_replica: Counts | None = None

    def __len__(self) -> int:
        return len(self.request_id)


@dataclass(frozen=True, slots=True, eq=False)
class Power:
    """Cumulative energy over time, all GPUs together.

    Attributes:
        time_s: Seconds since the replay began, ascending, shape (samples,).
        energy_j: Energy since time 0, non-decreasing, shape (samples,).
    """

    time_s: Floats
    energy_j: Floats


@dataclass(frozen=True, slots=True)
class EnergySplit:
    """Where the joules went; the three sum to the total.

    Attributes:
        prefill_j: Steps' energy by their prefill tokens.
        decode_j: Steps' energy by their decoding sequences.
        idle_j: Everything between the steps, requests waiting or not.
    """

    prefill_j: float
    decode_j: float
    idle_j: float

    @property
    def total_j(self) -> float:
        """Sum of the three."""
        return self.prefill_j + self.decode_j + self.idle_j


@dataclass(frozen=True, slots=True)
class ReplicaUse:
    """What one replica of a fleet did from time 0 to the last completion of all.

    The seconds sum to the makespan, the joules to all that its GPUs took.

    Attributes:
        requests: How many it served.
        busy_s, busy_j: In steps.
        idle_s, idle_j: Awake between the steps, requests waiting or not.
        idle_w: Power of its GPUs holding the model without work.
        switching_s, switching_j: On the way to sleep or off, or back.
        asleep_s, asleep_j: In a sleep of the engine.
        off_s, off_j: Without an engine.
        pool: Name of its pool, None of a fleet without a fleet file.
    """

    requests: int
    busy_s: float
    idle_s: float
    busy_j: float
    idle_j: float
    idle_w: float
    switching_s: float = 0.0
    switching_j: float = 0.0
    asleep_s: float = 0.0
    asleep_j: float = 0.0
    off_s: float = 0.0
    off_j: float = 0.0
    pool: str | None = None

    @property
    def total_s(self) -> float:
        """The makespan."""
        return self.busy_s + self.idle_s + self.switching_s + self.asleep_s + self.off_s

    @property
    def total_j(self) -> float:
        """Energy of its GPUs."""
        return self.busy_j + self.idle_j + self.switching_j + self.asleep_j + self.off_j


@dataclass(frozen=True, slots=True)
class Footprint:
    """What the energy of a run emitted and cost, as far as that was asked for.

    Attributes:
        carbon_g: Grams of CO2 equivalent of the energy times `pue`, nothing of what made the hardware.
        price: Of the same energy, in `currency`.
        currency: Label of the price, None if none was given.
        pue: Energy of the whole site per energy of the GPUs.
        grid_intensity: What was given: `g_per_kwh`, or a file's name, its sha256 and `period_s`; None if
            nothing was.
        tariff: The same of the price, with `price_per_kwh`.
    """

    carbon_g: float | None
    price: float | None
    currency: str | None
    pue: float
    grid_intensity: dict[str, Any] | None
    tariff: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class Meta:
    """How a run was made, everything needed to make it again.

    Attributes:
        run_id: Name of the run's folder.
        kind: `simulated`, `measured`, or `twin`: served in real time on a pretend GPU.
        started_at: ISO 8601, UTC.
        trace_name, trace_sha256, trace_source: The trace; the hash is of its source.
        trace_options: Stretch, limit, time window and prediction of lengths as given.
        requests: Requests offered.
        policy, policy_options: The policy's name and its fields.
        engine_options: Every engine option in force, vLLM's names.
        table: Name of the cost table, of several joined by a plus; None for a measured run.
        table_source: Where the table was measured, in words.
        gpu: GPU name, of several kinds joined by a plus.
        gpus: GPUs in use, of a measured run those metered: 0 if none was.
        power_limit_w: Enforced limit of one GPU, the mean where they differ.
        idle_w: Power of all GPUs holding the model without work.
        versions: replay, vLLM, Python and whatever else mattered.
        seed: Seed of everything drawn.
        makespan_s: From time 0 to the last completion.
        energy: The split, None if not metered, or metered without knowing the engine's steps.
        energy_source: `simulated`, `twin`, `assumed` (instead of these, from an assumed table), `nvml` or
            `none`.
        out_of_range_fraction: Fraction of steps outside the table's measured range, None if measured.
        energy_valid, invalid_reasons: Whether every guard held, and which did not.
        notes: What the user should know, one sentence each.
        cpu_j, dram_j: Energy of this host's processors and memory over the makespan, no part of any other
            figure; None where it could not be read.
        energy_interval_j: What the total lies between, with 95 % confidence, of a simulated run inside its
            table's measured range; None where the table cannot tell.
        replicas: What each replica did, of a measured run each of several whose steps are known.
        footprint: What the energy emitted and cost, None if nobody asked.
    """

    run_id: str
    kind: Kind
    started_at: str
    trace_name: str
    trace_sha256: str
    trace_source: str
    trace_options: dict[str, Any]
    requests: int
    policy: str
    policy_options: dict[str, Any]
    engine_options: dict[str, Any]
    table: str | None
    table_source: str | None
    gpu: str | None
    gpus: int
    power_limit_w: float | None
    idle_w: float | None
    versions: dict[str, str]
    seed: int
    makespan_s: float
    energy: EnergySplit | None
    energy_source: EnergySource
    out_of_range_fraction: float | None
    energy_valid: bool
    invalid_reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())
    cpu_j: float | None = None
    dram_j: float | None = None
    energy_interval_j: tuple[float, float] | None = None
    replicas: tuple[ReplicaUse, ...] = ()
    footprint: Footprint | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """One replay: how it was made, what became of each request, and the energy over time."""

    meta: Meta
    outcomes: Outcomes
    power: Power

    @property
    def total_energy_j(self) -> float | None:
        """Energy from time 0 to the last completion, None if not metered."""
        return total_energy_j(self.meta, self.power)


def total_energy_j(meta: Meta, power: Power) -> float | None:
    """Return a run's energy up to the last completion: the split's, else the counter's, else None."""
    if meta.energy is not None:
        return meta.energy.total_j
    return float(power.energy_j[-1]) if len(power.energy_j) else None
