"""Prints what it takes to simulate a long trace on a fleet, from file to record; run by hand.

    python tests/benchmarks/bench_stream.py week.parquet --replicas 16

Wall time, processor time and memory are those of all processes, start-up included. Memory is the sum of each
process's peak: at no time was it more.
"""

import argparse
import multiprocessing
import os
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
    pids = [os.getpid(), *(child.pid for child in multiprocessing.active_children())]
    shares = [(cpu_s(pid), peak_gib(pid)) for pid in pids if pid is not None]
    total_cpu_s = sum(share[0] for share in shares)
    print(f"{meta.requests:,} requests on {given.replicas} replicas, valid: {meta.energy_valid}")
    print(f"wall {wall_s:.1f} s, of which summary {wall_s - simulated_s:.1f} s")
    print(f"processor {total_cpu_s:.1f} s: " + " + ".join(f"{share[0]:.1f}" for share in shares))
    print(f"memory {sum(s[1] for s in shares):.2f} GiB: " + " + ".join(f"{s[1]:.2f}" for s in shares))
    print(f"{meta.requests / total_cpu_s:,.0f} requests/CPU-s, {meta.requests / wall_s:,.0f} requests/s")
    print(f"energy {summary.total_energy_j} J, makespan {summary.makespan_s} s")
    for name in ("ttft", "tpot", "e2e"):
        print(name, *(f"{getattr(summary, f'{name}_p{q}_s'):.4f}" for q in (50, 90, 99)))
    shutil.rmtree(folder)


def cpu_s(pid: int) -> float:
    """Return the processor time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_gib(pid: int) -> float:
    """Return the most memory that a process had at one time."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / (1 << 20)


if __name__ == "__main__":
    main()
