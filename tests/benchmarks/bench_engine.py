"""Prints how many requests the simulated engine serves in a second of processor time; run by hand.

    python tests/benchmarks/bench_engine.py AzureLLMInferenceTrace_conv.csv

Each line is one load: the trace as it came, or so much faster, up to all requests at once. The engine alone
is measured, driven as the simulation drives it: a call for each arrival and each finish. Compilation is not
counted.
"""

import argparse
import time
from dataclasses import replace
from math import inf
from pathlib import Path

import numpy as np

from sim.engine import SimulatedEngine
from sim.options import EngineOptions
from sim.table import CostTable
from sim.table_files import load_table
from traces.reading import read_trace
from traces.trace import Trace


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("trace", type=Path, help="a trace in any known format")
    parser.add_argument("--table", default="h200-llama-3.1-8b-bf16")
    parser.add_argument(
        "--copies", type=int, default=1, help="how often the trace is repeated, one after the other"
    )
    arguments = parser.parse_args()
    table = load_table(arguments.table)
    trace = repeated(read_trace(arguments.trace), arguments.copies)
    measure(trace.take(np.arange(10)), table, 1.0, EngineOptions())
    print("requests  speed-up  caching  requests/CPU-s  steps/CPU-s    steps  preempted  most waiting")
    for caching in (False, True):
        options = EngineOptions(enable_prefix_caching=caching)
        for faster in (1.0, 5.0, 25.0, inf):
            print(measure(trace, table, faster, options))


def repeated(trace: Trace, copies: int) -> Trace:
    """Return the trace `copies` times, each after the one before."""
    span_s = float(trace.arrival_s[-1]) + 1.0
    longer = trace.take(np.tile(np.arange(len(trace)), copies))
    return replace(longer, arrival_s=longer.arrival_s + span_s * np.repeat(np.arange(copies), len(trace)))


def measure(trace: Trace, table: CostTable, faster: float, options: EngineOptions) -> str:
    """Return one line about serving the trace `faster` than it came."""
    engine = SimulatedEngine(trace, options, table)
    most_running = 0
    began_s = time.process_time()
    for row, at_s in enumerate((trace.arrival_s / faster).tolist()):
        while len(engine.advance(at_s).finished):
            pass
        engine.submit((row,), at_s)
        most_running = max(most_running, engine.running)
    while not engine.idle:
        engine.advance(inf)
    cpu_s = time.process_time() - began_s
    return (
        f"{len(trace):8d}  {faster:8g}  {options.enable_prefix_caching!s:>7}  {len(trace) / cpu_s:14,.0f}  "
        f"{engine.steps / cpu_s:11,.0f}  {engine.steps:7d}  {engine.preemptions:9d}  "
        f"{max(0, most_running - options.max_num_seqs):12d}"
    )


if __name__ == "__main__":
    main()
