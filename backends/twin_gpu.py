"""The pretend GPU: prices each step that vLLM launches by a cost table, and writes down what it draws."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from backends.twin import STRETCH
from sim.gpu_step import Load
from sim.host_time import launch_s, lead_s
from sim.step_cost import gap_energy, new_state, step_cost
from sim.table import CostTable


class Launch(NamedTuple):
    """What becomes of a launched step, in monotonic seconds.

    Attributes:
        launched_s: Its last kernel is launched; until then the launching thread is busy.
        output_s: Its output is there.
    """

    launched_s: float
    output_s: float


class TwinGpu:
    """Runs steps one after the other, as `sim.gpu_step.run_on_gpu` does, on the clock of who launches them.

    Attributes:
        steps_end_s: When the last step launched ends.
    """

    def __init__(self, table: CostTable, energy_file: Path, now_s: float) -> None:
        """Begin at rest, with a counter of 0 J.

        Args:
            table: What steps cost, on the GPU and to launch.
            energy_file: STRETCH rows are appended to it.
            now_s: Monotonic time.
        """
        self._costs, self._host = table.coefficients, table.host
        self._state = new_state()
        self._energy_j = 0.0
        self._out = open(energy_file, "ab", buffering=0)  # noqa: SIM115, open until the engine ends
        self.steps_end_s = now_s
        self._write(now_s, 0.0)

    def launch(self, load: Load, decided_s: float, now_s: float) -> Launch:
        """Take in a step.

        What the caller spent since the decision is part of the launch, as it is in the table's times.

        Args:
            load: What the step holds, at least one token.
            decided_s: Its scheduling began.
            now_s: The caller begins to launch it.
        """
        counts = (load.chunks, load.prefill_tokens, load.decode_seqs)
        first_kernel_s = max(now_s, decided_s + lead_s(self._host, *counts))
        launched_s = max(now_s, decided_s + launch_s(self._host, *counts))
        start_s = max(self.steps_end_s, first_kernel_s)
        self._energy_j += gap_energy(self._costs, self._state, start_s - self.steps_end_s)
        seconds, prefill_j, decode_j, _, _ = step_cost(
            self._costs, self._state, *load, at_least_s=launched_s - start_s
        )
        self.steps_end_s = start_s + seconds
        self._write(start_s, prefill_j + decode_j)
        return Launch(launched_s, self.steps_end_s + self._host.output_s)

    def close(self) -> None:
        """Write no more."""
        self._out.close()

    def _write(self, from_s: float, joules: float) -> None:
        from_j, self._energy_j = self._energy_j, self._energy_j + joules
        row = (from_s, from_j, self.steps_end_s, self._energy_j)
        self._out.write(np.array([row], dtype=STRETCH).tobytes())
