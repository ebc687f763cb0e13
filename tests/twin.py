"""Serves a small workload under several options and prints every number exactly: run plain and compiled."""

import os
from typing import Any

import numpy as np
from serving import receiver, sender, serve, serve_by, small_options, trace_of
from toy_table import toy_table

from sim.engine import SimulatedEngine
from sim.kv_transfer import KvTransfer
from traces.trace import PrefixBlocks

KINDS: list[dict[str, Any]] = [
    {"async_scheduling": True},
    {"async_scheduling": False, "num_gpu_blocks": 20},
    {"async_scheduling": True, "num_gpu_blocks": 20, "scheduling_policy": "priority"},
    {"async_scheduling": True, "num_gpu_blocks": 20, "enable_prefix_caching": True},
    {"async_scheduling": False, "max_num_seqs": 1, "vllm_version": "0.33.0"},
]

SLOW_LINK = KvTransfer(bytes_per_s=1e6, latency_s=0.05, bytes_per_token=1000)


def prefixes(draw: np.random.Generator, count: int) -> PrefixBlocks:
    """Return block hashes of 8 tokens that often agree."""
    return PrefixBlocks(draw.integers(0, 2, 7 * count), 7 * np.arange(count + 1), 8)


def main() -> None:
    draw = np.random.default_rng(7)
    count = 40
    trace = trace_of(
        draw.integers(1, 50, count).tolist(),
        draw.integers(1, 25, count).tolist(),
        np.repeat(np.cumsum(draw.exponential(0.1, count // 5)), 5).tolist(),
        (draw.random(count) < 0.5).tolist(),
        prefixes(draw, count),
    )
    table = toy_table(cap_w=500.0, allowance_j=5.0, tail_w=200.0, tail_s=0.05)
    print("plain" if os.environ["NUMBA_DISABLE_JIT"] == "1" else "compiled")
    for kind in KINDS:
        tell(serve(trace, small_options(**kind), table))
        tell(serve_by(sender(trace, small_options(**kind), SLOW_LINK, table), trace))
        tell(serve_by(receiver(trace, small_options(**kind), table), trace))


def tell(engine: SimulatedEngine) -> None:
    for numbers in (engine.first_token_s, engine.finished_s, engine.energy_j, engine.power.energy_j):
        print(*[float(number).hex() for number in numbers])
    print(*engine.log.events.ravel().tolist())


main()
