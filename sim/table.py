"""Cost tables: what was measured, where, and the numbers fitted to it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from sim.host_time import HostTime
from sim.step_cost import Coefficients


@dataclass(frozen=True, slots=True)
class PowerState:
    """A state in which an engine serves nothing, and the ways there and back; of all its GPUs.

    Attributes:
        power_w: Power in the state.
        enter_s, enter_j: From idle to the state.
        leave_s, leave_j: From the state to an engine that serves.
    """

    power_w: float
    enter_s: float
    enter_j: float
    leave_s: float
    leave_j: float

    def scaled(self, scale: float) -> "PowerState":
        """Return the state of a GPU that draws `scale` times as much, in the same time."""
        return replace(
            self,
            power_w=scale * self.power_w,
            enter_j=scale * self.enter_j,
            leave_j=scale * self.leave_j,
        )


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
        states: What was measured of `sleep-1`, `sleep-2` and `off`, by name.
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
    states: Mapping[str, PowerState] = field(default_factory=dict)
