"""Prints what it takes to simulate a long trace on a fleet, from file to record; run by hand.

    python tests/benchmarks/bench_stream.py week.parquet --replicas 16

Wall and processor time are those of all processes, start-up included; memory is each process's peak.
"""

import argparse
import multiprocessing
import resource
import shutil
import time
from pathlib import Path

from sim.immediate import Immediate
from sim.options import EngineOptions, FleetOptions
from sim.serving import Setup
from sim.stream import simulate_stream
from sim.summary import summary_of
from sim.table_files import DEFAULT, load_table
from traces.long_trace import LongTrace
from traces.record import total_energy_j
from traces.record_files import new_record
from traces.source_file import open_source


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("trace", type=Path, help="Parquet, as the project writes it")
    parser.add_argument("--replicas", type=int, default=1)
    parser.add_argument("--processes", type=int, help="all processors by default")
    given = parser.parse_args()
    began_s = time.monotonic()
    setup = Setup(EngineOptions(), FleetOptions(given.replicas), load_table(DEFAULT))
    trace = LongTrace(open_source(given.trace))
    folder = given.trace.with_suffix(".record")
    with new_record(folder) as record:
        meta, power, tally = simulate_stream(trace, Immediate(), setup, record.add, processes=given.processes)
        simulated_s = time.monotonic() - began_s
        record.finish(meta, power)
    summary = summary_of(meta, total_energy_j(meta, power), tally)
    wall_s = time.monotonic() - began_s
    others = multiprocessing.active_children()  # they have nothing more to do and end
    for other in others:
        other.join()
    here, there = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    total_cpu_s = here.ru_utime + here.ru_stime + there.ru_utime + there.ru_stime
    here_gib, there_gib = here.ru_maxrss / (1 << 20), there.ru_maxrss / (1 << 20)
    print(f"{meta.requests:,} requests on {given.replicas} replicas, valid: {meta.energy_valid}")
    print(f"wall {wall_s:.1f} s, of which summary {wall_s - simulated_s:.1f} s")
    print(f"processor {total_cpu_s:.1f} s, of which here {here.ru_utime + here.ru_stime:.1f} s")
    print(f"memory at most {here_gib:.2f} GiB here, {there_gib:.2f} GiB in each other process")
    print(f"{meta.requests / total_cpu_s:,.0f} requests/CPU-s, {meta.requests / wall_s:,.0f} requests/s")
    print(f"energy {summary.total_energy_j} J, makespan {summary.makespan_s} s")
    for name in ("ttft", "tpot", "e2e"):
        print(name, *(f"{getattr(summary, f'{name}_p{q}_s'):.4f}" for q in (50, 90, 99)))
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
