"""The estimates of `replay estimate`: by bins, by FLOPs and by utilisation, of each pool of a fleet."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from replay.estimate_text import Estimate
from replay.live_engine import model_folder
from replay.output import say
from sim.binned import ROUNDINGS, binned_estimate, sum_of
from sim.flops import Peak, flops_energy_j, peak_of, shape_from_config, trace_flops
from sim.pools import Pool, Pools
from sim.table import CostTable
from sim.utilisation import utilisation_energy_j
from traces.record import Run
from traces.trace import Trace


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """The requests that a pool served in the replay, at least one; they are estimated as if they were all."""

    pool: Pool
    trace: Trace


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """What a part takes by its FLOPs, and the numbers behind it."""

    part: Part
    flops: float
    peak: Peak
    number_format: str

    def energy_j(self, kind: str) -> float:
        """Return the joules at the `dense` or the `sparse` peak."""
        return flops_energy_j(self.flops, self._peak_flops(kind), self.part.pool.table.power_limit_w)

    def how(self, kind: str) -> str:
        """Return the numbers in words, the pool's name before them if it has one."""
        name = "" if self.part.pool.name is None else f"{self.part.pool.name} "
        return (
            f"{name}{self.flops:.4g} FLOP at {self._peak_flops(kind) / 1e12:,.0f} TFLOP/s in "
            f"{self.number_format}, {self.part.pool.table.power_limit_w:.0f} W"
        )

    def _peak_flops(self, kind: str) -> float:
        return self.peak.dense_flops if kind == "dense" else self.peak.sparse_flops


def parts_of(trace: Trace, run: Run, fleet: Pools) -> list[Part]:
    """Return the pools that served a request, each with its requests.

    Raises:
        ValueError: A request was served by several engines.
    """
    if sum(replica.requests for replica in run.meta.replicas) != len(trace):
        raise ValueError(
            "estimates are of engines that serve requests whole, here several share them; "
            "give a fleet that does not divide prefill from decode"
        )
    replica = np.zeros(len(trace), np.int32) if run.outcomes.replica is None else run.outcomes.replica
    pool = np.repeat(np.arange(len(fleet.pools)), fleet.counts)[replica]
    rows = [np.flatnonzero(pool == number) for number in range(len(fleet.pools))]
    return [Part(one, trace.take(own)) for one, own in zip(fleet.pools, rows, strict=True) if len(own)]


def binned(parts: Sequence[Part], batch: int | None) -> list[Estimate]:
    """Return the estimates by bins, for each rounding of lengths.

    Args:
        parts: Of one replay.
        batch: Requests of a batch, None for as many as an engine holds.

    Raises:
        ValueError: An engine cannot serve a bin's requests.
    """
    requests = sum(len(part.trace) for part in parts)
    estimates = []
    for rounding in ROUNDINGS:
        found = sum_of(
            binned_estimate(part.trace, rounding, part.pool.options, part.pool.table, batch=batch)
            for part in parts
        )
        batches = f"B = {found.least_batch:,}"
        if found.largest_batch > found.least_batch:
            batches += f" to {found.largest_batch:,}"
        means = f"{found.prompt_tokens / requests:,.0f} + {found.output_tokens / requests:,.0f} tokens"
        how = f"{found.bins} bins, {batches}; {means} a request"
        estimates.append(Estimate(f"binned_{rounding}", f"bins, {rounding}", found.energy_j, how))
    return estimates


def by_flops(parts: Sequence[Part]) -> list[Estimate]:
    """Return the estimates by FLOPs at both peaks; none, and a note, where a peak or a model is not known."""
    try:
        arithmetics = [_arithmetic(part) for part in parts]
    except ValueError as error:
        say(f"note: no estimate by FLOPs: {error}")
        return []
    sources = dict.fromkeys(one.peak.source for one in arithmetics)
    return [
        Estimate(
            f"flops_{kind}",
            f"FLOPs, {kind} peak",
            sum(one.energy_j(kind) for one in arithmetics),
            "; ".join([*(one.how(kind) for one in arithmetics), *sources]),
        )
        for kind in ("dense", "sparse")
    ]


def by_utilisation(run: Run, fleet: Pools) -> list[Estimate]:
    """Return the estimates by utilisation, without idle power and with it."""
    busy_j, with_idle_j = utilisation_energy_j(run, fleet)
    busy = sum(replica.busy_s for replica in run.meta.replicas) / len(run.meta.replicas)
    how = f"a step runs {busy:,.1f} s of {run.meta.makespan_s:,.1f} s, {run.meta.power_limit_w:.0f} W a GPU"
    if len(run.meta.replicas) > 1:
        how += f", the mean of {len(run.meta.replicas)} engines"
    return [
        Estimate("utilisation", "utilisation", busy_j, how),
        Estimate(
            "utilisation_idle",
            "utilisation, idle",
            with_idle_j,
            f"and {run.meta.idle_w:.0f} W while no step runs",
        ),
    ]


def _arithmetic(part: Part) -> Arithmetic:
    table = part.pool.table
    number_format = str(table.engine.get("quantization") or table.engine.get("dtype"))
    peak = peak_of(table.gpu, number_format)
    return Arithmetic(
        part, trace_flops(part.trace, shape_from_config(_model_config(table))), peak, number_format
    )


def _model_config(table: CostTable) -> dict[str, Any]:
    """Return the config.json, among those that ship, of the model that a table was measured with."""
    path = model_folder(table) / "config.json"
    if not path.is_file():
        model = table.engine.get("model")
        raise ValueError(f"table {table.name} is of the model {model!r}, whose config.json does not ship")
    config: dict[str, Any] = json.loads(path.read_text())
    return config
