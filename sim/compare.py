"""How far a simulated replay is from the measured one: numbers side by side, energy over time, requests."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from sim.metrics import latency_s, quantile
from sim.summary import Summary, summarize
from traces.record import Footprint, Kind, Run
from traces.trace import Floats

METRICS = (
    "total_energy_j",
    "prefill_energy_j",
    "decode_energy_j",
    "idle_energy_j",
    "mean_power_w",
    "makespan_s",
    *(f"{latency}_{level}_s" for latency in ("ttft", "tpot", "e2e") for level in ("p50", "p90", "p99")),
)
"""Fields of `Summary` that are compared."""

TARGETS = {"total_energy": 0.02, "mean_power": 0.02, "ttft": 0.10, "tpot": 0.05, "e2e": 0.05}
"""Largest error that the project allows itself, by the beginning of the metric's name."""

SAME_ARRIVAL_S = 1e-6


@dataclass(frozen=True, slots=True)
class Row:
    """One number of a replay; None where there is no such number.

    Attributes:
        metric: Its field of `Summary`.
        simulated: By simulation.
        measured: Mean of the measured runs, or of the twin's: `Comparison.kind` tells.
        error_fraction: (simulated - measured) / measured.
        noise_fraction: (largest - smallest measured) / measured; None for a single measured run.
    """

    metric: str
    simulated: float | None
    measured: float | None
    error_fraction: float | None
    noise_fraction: float | None

    @property
    def is_within_target(self) -> bool | None:
        """Whether the error is at most that of TARGETS, None where there is no target or no error."""
        target = next((limit for name, limit in TARGETS.items() if self.metric.startswith(name)), None)
        return None if target is None or self.error_fraction is None else abs(self.error_fraction) <= target


@dataclass(frozen=True, slots=True)
class CurveDeviation:
    """Where the simulated energy since time 0 is farthest from the first measured run's, while both run.

    Attributes:
        at_s: When.
        deviation_j: Simulated minus measured energy there.
        deviation_fraction: That, of the measured total.
    """

    at_s: float
    deviation_j: float
    deviation_fraction: float


@dataclass(frozen=True, slots=True)
class LatencyErrors:
    """Errors of one latency, request by request: (simulated - measured) / measured, the mean of the runs.

    Attributes:
        latency: `ttft`, `tpot` or `e2e`.
        requests: Requests that have it in every run.
        p5_fraction, p50_fraction, p95_fraction: Quantiles of the error with its sign, None without requests.
        absolute_p50_fraction, absolute_p99_fraction: Quantiles of its size.
    """

    latency: str
    requests: int
    p5_fraction: float | None
    p50_fraction: float | None
    p95_fraction: float | None
    absolute_p50_fraction: float | None
    absolute_p99_fraction: float | None


STEP_KINDS = ("decode", "prompts", "launch")
"""Steps that only decode; steps that hold prompts, with the step before, whose output waits for their launch;
and these launches alone."""


@dataclass(frozen=True, slots=True)
class StepErrors:
    """Steps of one kind in a measured run, replayed as logged by the simulation's table.

    Attributes:
        kind: Of STEP_KINDS.
        steps: How many.
        simulated_s, measured_s: Mean time by the table, and as it was.
    """

    kind: str
    steps: int
    simulated_s: float
    measured_s: float

    @property
    def error_fraction(self) -> float:
        """(simulated - measured) / measured."""
        return self.simulated_s / self.measured_s - 1


@dataclass(frozen=True, slots=True)
class LoggedEnergy:
    """Energy of a measured run, by the simulation's table of the steps as logged, and as it was.

    Attributes:
        simulated_j: By the table, at the pace that the host had.
        measured_j: Measured.
    """

    simulated_j: float
    measured_j: float

    @property
    def error_fraction(self) -> float:
        """(simulated - measured) / measured."""
        return self.simulated_j / self.measured_j - 1


@dataclass(frozen=True, slots=True)
class Comparison:
    """A simulated run against measured ones, or against those of the twin.

    Attributes:
        kind: `measured` or `twin`, which all of these are.
        trace_name, policy, table, gpu: What was replayed, by which table and on which GPU.
        requests: Requests offered.
        measured_runs: Measured runs.
        rows: The numbers side by side, in the order of METRICS, then what the energy emits and costs, if
            all runs were asked for the same.
        interval_j: What the simulation says that the total energy lies between, None if it does not.
        curve: The energy over time, None where it is not known.
        latencies: The requests' latencies.
        differences: Engine options, and what is known of the GPUs, that were not the same, as sentences.
        invalid: Why runs are not to be believed; only where they were compared all the same.
        currency: Of the price, if it is compared.
        steps: Errors of the first measured run's steps, if its steps and the table are at hand.
        logged: Energy of these steps, likewise.
    """

    kind: Kind
    trace_name: str
    policy: str
    table: str | None
    gpu: str | None
    requests: int
    measured_runs: int
    rows: tuple[Row, ...]
    interval_j: tuple[float, float] | None
    curve: CurveDeviation | None
    latencies: tuple[LatencyErrors, ...]
    differences: tuple[str, ...]
    invalid: tuple[str, ...]
    currency: str | None = None
    steps: tuple[StepErrors, ...] = ()
    logged: LoggedEnergy | None = None

    @property
    def is_in_interval(self) -> bool | None:
        """Whether the measured total energy lies in the interval, None if one of them is not known."""
        measured_j = self.row("total_energy_j").measured
        if self.interval_j is None or measured_j is None:
            return None
        return self.interval_j[0] <= measured_j <= self.interval_j[1]

    @property
    def margin_fraction(self) -> float | None:
        """Half the interval, of the simulated energy, None if there is none."""
        if self.interval_j is None:
            return None
        low_j, high_j = self.interval_j
        return (high_j - low_j) / (high_j + low_j)

    def row(self, metric: str) -> Row:
        """Return the row of one metric."""
        return next(row for row in self.rows if row.metric == metric)


def compare(simulated: Run, measured: tuple[Run, ...], *, force: bool = False) -> Comparison:
    """Return how far `simulated` is from `measured`, replays of the same requests by the same policy.

    Args:
        simulated: A simulated run.
        measured: At least one measured run, or at least one of the twin.
        force: Compare runs that broke a guard, too.

    Raises:
        ValueError: The runs do not fit together, or one broke a guard.
    """
    if not measured:
        raise ValueError("a comparison needs a measured run beside the simulated one, got none")
    _ensure_kinds(simulated, measured)
    for run in measured:
        _ensure_same_replay(simulated, run)
    runs = (simulated, *measured)
    invalid = tuple(f"{run.meta.run_id}: {why}" for run in runs for why in _faults(run))
    if invalid and not force:
        raise ValueError(f"a run is not valid: {invalid[0]}; measure again, or compare it with --force")
    summary, summaries = summarize(simulated), [summarize(run) for run in measured]
    priced = _priced(runs)
    return Comparison(
        kind=measured[0].meta.kind,
        trace_name=simulated.meta.trace_name,
        policy=simulated.meta.policy,
        table=simulated.meta.table,
        gpu=measured[0].meta.gpu,
        requests=simulated.meta.requests,
        measured_runs=len(measured),
        rows=tuple(_row(metric, summary, summaries) for metric in (*METRICS, *priced)),
        interval_j=simulated.meta.energy_interval_j,
        curve=_curve(simulated, measured[0]),
        latencies=tuple(_latency_errors(name, simulated, measured) for name in ("ttft", "tpot", "e2e")),
        differences=_differences(simulated, measured[0]),
        invalid=invalid,
        currency=summary.currency if "price" in priced else None,
    )


def mean_latency_s(runs: tuple[Run, ...], latency: str) -> Floats:
    """Return the mean over several runs of the same requests, NaN where one of them has no such latency."""
    mean_s: Floats = np.mean([latency_s(run.outcomes, latency) for run in runs], axis=0)
    return mean_s


def _row(metric: str, simulated: Summary, measured: list[Summary]) -> Row:
    value: float | None = getattr(simulated, metric)
    each = [number for summary in measured if (number := getattr(summary, metric)) is not None]
    mean = float(np.mean(each)) if each else None
    error = None if value is None or not mean else (value - mean) / mean
    noise = (max(each) - min(each)) / mean if mean and len(each) > 1 else None
    return Row(metric, value, mean, error, noise)


def _priced(runs: tuple[Run, ...]) -> list[str]:
    """Return which of carbon and price all runs were asked for, at the same rates."""
    first, *others = [run.meta.footprint for run in runs]
    if first is None or any(other is None or _rates_of(other) != _rates_of(first) for other in others):
        return []
    asked = {"carbon_g": first.grid_intensity, "price": first.tariff}
    return [metric for metric, origin in asked.items() if origin is not None]


def _rates_of(footprint: Footprint) -> tuple[Any, ...]:
    return footprint.grid_intensity, footprint.tariff, footprint.currency, footprint.pue


def _curve(simulated: Run, measured: Run) -> CurveDeviation | None:
    one, other = simulated.power, measured.power
    if not len(one.time_s) or not len(other.time_s):
        return None
    end_s = min(one.time_s[-1], other.time_s[-1])
    at_s = np.union1d(one.time_s, other.time_s)
    at_s = at_s[at_s <= end_s]
    deviation_j = np.interp(at_s, one.time_s, one.energy_j) - np.interp(at_s, other.time_s, other.energy_j)
    place = int(np.argmax(np.abs(deviation_j)))
    total_j = float(other.energy_j[-1])
    if total_j <= 0:
        return None
    return CurveDeviation(float(at_s[place]), float(deviation_j[place]), float(deviation_j[place]) / total_j)


def _latency_errors(latency: str, simulated: Run, measured: tuple[Run, ...]) -> LatencyErrors:
    value_s = latency_s(simulated.outcomes, latency)
    mean_s = mean_latency_s(measured, latency)
    known = np.isfinite(value_s) & (mean_s > 0)
    errors = (value_s[known] - mean_s[known]) / mean_s[known]
    signed = (quantile(errors, q) for q in (0.05, 0.5, 0.95))
    return LatencyErrors(
        latency,
        int(np.count_nonzero(known)),
        *signed,
        *(quantile(np.abs(errors), q) for q in (0.5, 0.99)),
    )


def _faults(run: Run) -> tuple[str, ...]:
    if run.meta.energy_valid:
        return ()
    return run.meta.invalid_reasons or ("its guards were not checked",)


def _ensure_kinds(first: Run, others: tuple[Run, ...]) -> None:
    if first.meta.kind != "simulated":
        raise ValueError(f"{first.meta.run_id}: is {first.meta.kind}; the first run must be simulated")
    for run in others:
        if run.meta.kind not in ("measured", "twin") or run.meta.kind != others[0].meta.kind:
            raise ValueError(
                f"{run.meta.run_id}: is {run.meta.kind}; the runs after the first must be all measured, "
                "or all of the twin; `replay report` draws simulated ones side by side"
            )
        if run.meta.kind == "twin" and run.meta.table != first.meta.table:
            raise ValueError(
                f"{run.meta.run_id}: its twin took its times from table {run.meta.table}, "
                f"{first.meta.run_id} from {first.meta.table}; simulate with --table {run.meta.table}"
            )


def _ensure_same_replay(one: Run, other: Run) -> None:
    names = f"{one.meta.run_id} and {other.meta.run_id}"
    same = (
        len(one.outcomes) == len(other.outcomes)
        and np.allclose(one.outcomes.arrival_s, other.outcomes.arrival_s, rtol=0, atol=SAME_ARRIVAL_S)
        and np.array_equal(one.outcomes.prompt_tokens, other.outcomes.prompt_tokens)
    )
    if not same:
        raise ValueError(f"{names} replay different requests; compare runs of one trace, window and stretch")
    if (one.meta.policy, one.meta.policy_options) != (other.meta.policy, other.meta.policy_options):
        raise ValueError(
            f"{names} differ in the policy: {one.meta.policy} {one.meta.policy_options}, "
            f"{other.meta.policy} {other.meta.policy_options}"
        )


def _differences(simulated: Run, measured: Run) -> tuple[str, ...]:
    one, other = ({**run.meta.engine_options, **_hardware(run)} for run in (simulated, measured))
    return tuple(
        f"{name} is {one[name]} in simulation, {other[name]} on the engine."
        for name in sorted(one.keys() & other.keys())
        if one[name] != other[name]
    )


def _hardware(run: Run) -> dict[str, Any]:
    """Return what is known of the GPUs, nothing if they were not metered."""
    known = {name: getattr(run.meta, name) for name in ("gpu", "gpus", "power_limit_w")}
    return {name: value for name, value in known.items() if value is not None and run.meta.gpu is not None}
