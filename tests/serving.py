"""Serving small workloads with the simulated engine, for tests that look at single steps."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

import numpy as np
from toy_table import toy_table

from sim.engine import SimulatedEngine
from sim.engine_state import ARRIVED, PREEMPTED, SCHEDULED
from sim.kv_transfer import KvTransfer
from sim.options import EngineOptions
from sim.pools import Pool, Pools, prefilled_requests_of, prompts_of
from sim.table import CostTable
from traces.trace import Ints, PrefixBlocks, Trace

Batch = list[tuple[int, int]]
"""Rows and their tokens, in the order of the step."""


@dataclass(frozen=True, slots=True)
class Step:
    """What one scheduling step decided."""

    batch: Batch
    preempted: list[int]
    arrived: list[int]
    context: dict[int, int]
    blocks: dict[int, int]
    free_blocks: int
    running: int
    waiting: int


def trace_of(
    prompts: Sequence[int],
    outputs: Sequence[int],
    arrivals_s: Sequence[float] | None = None,
    is_offline: Sequence[bool] | None = None,
    prefix: PrefixBlocks | None = None,
) -> Trace:
    """Return a trace of requests with these lengths; all at time 0 unless told."""
    return Trace(
        name="lengths",
        source="a test",
        licence="none",
        sha256="",
        arrival_s=np.zeros(len(prompts)) if arrivals_s is None else np.array(arrivals_s, np.float64),
        prompt_tokens=np.array(prompts, np.int32),
        output_tokens=np.array(outputs, np.int32),
        is_offline=None if is_offline is None else np.array(is_offline, np.bool_),
        prefix=prefix,
    )


def small_options(**changes: object) -> EngineOptions:
    """Return options that make small workloads meet every limit."""
    options: dict[str, object] = {
        "max_num_batched_tokens": 16,
        "max_num_seqs": 4,
        "max_model_len": 256,
        "num_gpu_blocks": 65,
        "block_size": 4,
        "enable_prefix_caching": False,
        "async_scheduling": False,
    }
    return EngineOptions(**{**options, **changes})  # type: ignore[arg-type]


def serve(
    trace: Trace, options: EngineOptions, table: CostTable | None = None, keeps_steps: bool = True
) -> SimulatedEngine:
    """Release every request when it arrives, serve them all and close the engine at the last finish."""
    return serve_by(SimulatedEngine(trace, options, table or toy_table(), keeps_steps=keeps_steps), trace)


def serve_by(engine: SimulatedEngine, trace: Trace) -> SimulatedEngine:
    """Release every request of an engine's table when it arrives, serve them all and close the engine."""
    for row, at_s in enumerate(trace.arrival_s.tolist()):
        while len(engine.advance(at_s).finished):
            pass
        engine.submit([row], at_s)
    while not engine.idle:
        assert len(engine.advance(inf).finished), "requests are left, but the engine does nothing more"
    engine.close(float(engine.finished_s.max()))
    return engine


def sender(trace: Trace, options: EngineOptions, transfer: KvTransfer, table: CostTable) -> SimulatedEngine:
    """Return an engine that computes the prompts of `trace` and sends their KV."""
    return SimulatedEngine(prompts_of(trace), options, table, transfer=transfer, keeps_steps=True)


def receiver(trace: Trace, options: EngineOptions, table: CostTable) -> SimulatedEngine:
    """Return an engine to which the requests of `trace` bring their prompts' KV."""
    requests = prefilled_requests_of(trace, Pools((Pool(None, 1, options, table),)))
    return SimulatedEngine(requests, options, table, keeps_steps=True)


def steps_of(engine: SimulatedEngine) -> list[Step]:
    """Return what every scheduling step of a closed engine decided, empty steps included."""
    log = engine.log
    steps = [Step([], [], [], {}, {}, int(row[8]), int(row[9]), int(row[10])) for row in log.steps]
    for number, kind, row, tokens, context, blocks in log.events.tolist():
        step = steps[number]
        if kind == ARRIVED:
            step.arrived.append(row)
        elif kind == PREEMPTED:
            step.preempted.append(row)
        elif kind == SCHEDULED:
            step.batch.append((row, tokens))
            step.context[row] = context
            step.blocks[row] = blocks
    return steps


def count_sampled(sampled: Ints, trace: Trace, step: Step) -> None:
    """Add what a step samples, a token of each request that has all of its own computed by then.

    Args:
        sampled: Tokens sampled before, by request, shape (requests,), updated in place.
        trace: The requests.
        step: The step.
    """
    for row, tokens in step.batch:
        has = int(trace.prompt_tokens[row] + sampled[row])
        sampled[row] += step.context[row] + tokens == has


def batches(prompts: Sequence[int], outputs: Sequence[int], **options: object) -> list[Batch]:
    """Return the batches of all steps for requests that come at time 0 together."""
    return [step.batch for step in steps_of(serve(trace_of(prompts, outputs), small_options(**options)))]
