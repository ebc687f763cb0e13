"""The policy `offline-sorted`: everything at once, in the order of length."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from sim.policy import Decision, Held
from sim.shortest_first import expected_tokens

GATHERING_S = 1e-6
"""From an arrival to an alarm: at one instant the other arrivals are told first."""


@dataclass(slots=True)
class OfflineSorted:
    """Serves the trace as `offline` does, the longest or the shortest requests going first.

    A request's length is its prompt and its predicted output; without a prediction, its prompt. Of equal
    requests the oldest goes first.

    Attributes:
        first: Which end of the order goes first.
    """

    retimes: ClassVar[bool] = True

    first: Literal["longest", "shortest"] = "longest"
    _held: int = field(default=0, init=False, repr=False)

    def decide(self, now_s: float, held: Held, running: int) -> Decision:  # noqa: ARG002
        """Release all, sorted, when no more come at this instant."""
        if len(held) > self._held:
            self._held = len(held)
            return Decision(wake_at_s=now_s + GATHERING_S)
        self._held = 0
        return Decision(tuple(sorted(held, key=expected_tokens, reverse=self.first == "longest")))
