"""The policy `static-batch`: cohorts that start together, the next when all of the last have finished."""

from dataclasses import dataclass
from itertools import islice

from sim.policy import Decision, Held


@dataclass(frozen=True, slots=True)
class StaticBatch:
    """Releases the oldest held requests once nothing runs and there are enough of them, or one has waited.

    Attributes:
        batch_size: Most requests of a cohort, at least 1.
        max_wait_s: Longest that an idle engine lets the oldest request wait for a full cohort, at least 0 s.
    """

    batch_size: int = 32
    max_wait_s: float = 0.0

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be >= 1, got {self.batch_size}")
        if not 0 <= self.max_wait_s < float("inf"):
            raise ValueError(f"max_wait_s must be >= 0 and finite, got {self.max_wait_s}")

    def decide(self, now_s: float, held: Held, running: int) -> Decision:
        """Release a cohort if the one before has drained and this one is full or late."""
        if running or not len(held):
            return Decision()
        late_s = held[0].arrival_s + self.max_wait_s
        if len(held) < self.batch_size and now_s < late_s:
            return Decision(wake_at_s=late_s)
        return Decision(tuple(islice(held, self.batch_size)))
