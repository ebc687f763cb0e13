"""The policy `immediate`: every request goes to the engine as it arrives."""

from dataclasses import dataclass

from sim.policy import Decision, Held
from traces.trace import Floats


@dataclass(frozen=True, slots=True)
class Immediate:
    """Holds nothing back."""

    def decide(self, now_s: float, held: Held, running: int) -> Decision:  # noqa: ARG002
        """Release whatever is held."""
        return Decision(release=tuple(held))

    def release_times(self, arrival_s: Floats) -> Floats:
        """Return the arrivals."""
        return arrival_s.copy()
