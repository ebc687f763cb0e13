"""Prints and draws what a request costs to simulate in traces of different lengths; run by hand.

    python tests/benchmarks/bench_scale.py --plot docs/performance-scale.png

One replica, invented conversations. `as it came`: 5.5 requests a second. `overload`: 100,000 requests at
time 0 (all of a shorter trace), then as many a second as are served, so that as many go on waiting. Measured
is `simulate()`, from the trace to the run's record in memory, guards included; the best of three below a
million requests. Compilation is not counted.
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from sim.immediate import Immediate
from sim.options import EngineOptions
from sim.simulate import simulate
from sim.table_files import DEFAULT, load_table
from traces.shape import read_shape
from traces.synthesize import synthesize
from traces.trace import Trace

RATE_PER_S = 5.5
BACKLOG = 100_000
LOADS = {"as it came": True, "as it came, no prefix caching": False, "overload": True}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--longest", type=int, default=10_000_000, help="requests of the longest trace")
    parser.add_argument("--plot", type=Path, help="draw it into this file")
    given = parser.parse_args()
    lengths = [10**power for power in range(4, 9) if 10**power <= given.longest]
    measure("as it came", 1000)
    served_per_s = BACKLOG / makespan_s(BACKLOG)
    print(f"overload: {served_per_s:.1f} requests a second are served")
    costs: dict[str, list[float]] = {}
    for load in LOADS:
        costs[load] = []
        for requests in lengths:
            cpu_s = min(measure(load, requests, served_per_s) for _ in range(3 if requests < 10**6 else 1))
            costs[load].append(cpu_s / requests)
            print(f"{load:30} {requests:10,d}  {requests / cpu_s:9,.0f} requests/CPU-s", flush=True)
    if given.plot is not None:
        draw(lengths, costs, given.plot)


def measure(load: str, requests: int, served_per_s: float = 1.0) -> float:
    """Return the processor seconds of a replay."""
    trace = conversations(requests)
    if load == "overload":
        later_s = np.arange(max(requests - BACKLOG, 0)) / served_per_s
        trace = replace(trace, arrival_s=np.concatenate([np.zeros(min(requests, BACKLOG)), later_s]))
    options = EngineOptions(enable_prefix_caching=LOADS[load])
    began_s = time.process_time()
    simulate(trace, Immediate(), options, load_table(DEFAULT))
    return time.process_time() - began_s


def makespan_s(requests: int) -> float:
    """Return how long as many requests take that come at once."""
    trace = replace(conversations(requests), arrival_s=np.zeros(requests))
    return simulate(trace, Immediate(), EngineOptions(), load_table(DEFAULT)).meta.makespan_s


def conversations(requests: int) -> Trace:
    """Return so many invented conversations, at an even rate."""
    shape, sha256 = read_shape("chat")
    return synthesize(replace(shape, rate_per_s=RATE_PER_S), sha256, duration_s=requests / RATE_PER_S)


def draw(lengths: list[int], costs: dict[str, list[float]], path: Path) -> None:
    """Draw the cost of a request over the length of the trace."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 3.5), layout="constrained")
    for load, seconds in costs.items():
        axes.plot(lengths, [1e6 * one for one in seconds], marker="o", label=load)
    most = 1e6 * max(map(max, costs.values()))
    axes.set(xscale="log", xlabel="requests of the trace", ylabel="processor µs a request")
    axes.set_ylim(0, 1.5 * most)  # leaves room for the legend
    axes.legend(loc="upper left")
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
