"""Cost tables: what was measured, where, and the numbers fitted to it."""

from dataclasses import dataclass
from typing import Any

from sim.step_cost import Coefficients


@dataclass(frozen=True, slots=True, eq=False)
class CostTable:
    """A fitted cost table and where it came from.

    Attributes:
        name: Name, as printed and as given to `--table`.
        source: `measured` or `assumed`.
        measured_on: GPU, driver, vLLM and date in one line.
        gpu: GPU name.
        gpus: GPUs that one engine spans.
        power_limit_w: Enforced power limit of one GPU.
        bare_idle_w: Power of all GPUs, nothing loaded.
        coefficients: The fitted numbers.
        launch_s: From a scheduling decision to the step's start on an idle GPU.
        output_s: From a step's end on the GPU to its output processed by the engine core.
        submit_s: From the client's call to the request waiting in the engine core.
        deliver_s: From the engine core's output to the client.
        engine: Engine options it was measured under, vLLM's names, with what `vllm serve` would use.
        meta: Everything else that the file says.
    """

    name: str
    source: str
    measured_on: str
    gpu: str
    gpus: int
    power_limit_w: float
    bare_idle_w: float
    coefficients: Coefficients
    launch_s: float
    output_s: float
    submit_s: float
    deliver_s: float
    engine: dict[str, Any]
    meta: dict[str, Any]
