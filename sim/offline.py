"""The policy `offline`: everything at once, the workload as one batch job."""

from dataclasses import dataclass
from typing import ClassVar

from sim.policy import Decision, Held
from traces.trace import Floats


@dataclass(frozen=True, slots=True)
class Offline:
    """Serves the trace as if all of it had been there at time 0, in its order.

    A policy cannot release what has not arrived, so this one declares that the trace is to be re-timed: the
    drivers set every arrival to 0, latencies count from there, and the run's notes say so.
    """

    retimes: ClassVar[bool] = True

    def decide(self, now_s: float, held: Held, running: int) -> Decision:  # noqa: ARG002
        """Release whatever is held."""
        return Decision(release=tuple(held))

    def release_times(self, arrival_s: Floats) -> Floats:
        """Return the arrivals, which have been set to 0."""
        return arrival_s.copy()
