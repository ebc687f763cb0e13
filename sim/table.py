"""Cost tables: what was measured, where, and the numbers fitted to it."""

from dataclasses import dataclass
from typing import Any, Literal

from sim.host_time import HostTime
from sim.step_cost import Coefficients


@dataclass(frozen=True, slots=True, eq=False)
class CostTable:
    """A fitted cost table and where it came from.

    Attributes:
        name: Name, as printed and as given to `--table`.
        source: `measured`, or `assumed` for anything else.
        measured_on: GPU, driver, vLLM and date in one line.
        gpu: GPU name.
        gpus: GPUs that one engine spans.
        power_limit_w: Enforced power limit of one GPU.
        bare_idle_w: Power of all GPUs, nothing loaded.
        coefficients: What a step costs on the GPU.
        host: What it costs outside.
        engine: Engine options it was measured under, vLLM's names: what `vllm serve` would use there.
        meta: Everything else that the file says.
    """

    name: str
    source: Literal["measured", "assumed"]
    measured_on: str
    gpu: str
    gpus: int
    power_limit_w: float
    bare_idle_w: float
    coefficients: Coefficients
    host: HostTime
    engine: dict[str, Any]
    meta: dict[str, Any]
