"""Prints how many requests are simulated in a second of processor time on one core; run by hand.

    python tests/benchmarks/bench_engine.py AzureLLMInferenceTrace_conv.csv

Measured is `simulate()`, from the trace to the run in memory, guards included; the best of several. Each line
is one load: the trace as it came, or so much faster, up to all requests at once. `asked` is a policy that
tells nothing beforehand, so that SimPy steps from arrival to finish. Start-up and compilation are not
counted.
"""

import argparse
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from sim.batch_window import BatchWindow
from sim.immediate import Immediate
from sim.options import EngineOptions, FleetOptions
from sim.policy import Decision, Held, Policy
from sim.simulate import simulate
from sim.table import CostTable
from sim.table_files import DEFAULT, load_table
from traces.reading import read_trace
from traces.trace import Trace

AT_ONCE = np.inf


@dataclass(frozen=True, slots=True)
class Asked:
    """Holds nothing back, and tells nothing beforehand."""

    def decide(self, now_s: float, held: Held, running: int) -> Decision:  # noqa: ARG002
        """Release whatever is held."""
        return Decision(release=tuple(held))


POLICIES: dict[str, Policy] = {"immediate": Immediate(), "batch-window": BatchWindow(), "asked": Asked()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("trace", type=Path, help="a trace in any known format")
    parser.add_argument("--table", default=DEFAULT)
    parser.add_argument("--replicas", type=int, default=1)
    parser.add_argument("--router", default="round-robin")
    parser.add_argument("--best-of", type=int, default=5)
    given = parser.parse_args()
    table, fleet = load_table(given.table), FleetOptions(given.replicas, given.router)
    trace = read_trace(given.trace)
    print("policy        speed-up  caching  requests/CPU-s")
    for name, policy in POLICIES.items():
        for caching in (False, True):
            options = EngineOptions(enable_prefix_caching=caching)
            measure(trace.part(0, 10), policy, table, options, fleet)
            for faster in (1.0, 5.0, 25.0, AT_ONCE):
                sooner = replace(trace, arrival_s=trace.arrival_s / faster)
                cpu_s = min(measure(sooner, policy, table, options, fleet) for _ in range(given.best_of))
                print(f"{name:12}  {faster:8g}  {caching!s:>7}  {len(trace) / cpu_s:14,.0f}", flush=True)


def measure(
    trace: Trace, policy: Policy, table: CostTable, options: EngineOptions, fleet: FleetOptions
) -> float:
    """Return the processor seconds of a replay."""
    began_s = time.process_time()
    simulate(trace, policy, options, table, fleet=fleet)
    return time.process_time() - began_s


if __name__ == "__main__":
    main()
