"""The policy `concurrency`: at most so many requests run, the others wait their turn."""

from dataclasses import dataclass
from itertools import islice

from sim.policy import Decision, Held


@dataclass(frozen=True, slots=True)
class Concurrency:
    """Releases the oldest held requests as long as fewer than `most` run.

    Attributes:
        most: Most requests released and unfinished, at least 1.
    """

    most: int = 64

    def __post_init__(self) -> None:
        if self.most < 1:
            raise ValueError(f"most must be >= 1, got {self.most}")

    def decide(self, now_s: float, held: Held, running: int) -> Decision:  # noqa: ARG002
        """Release as many as there are places."""
        return Decision(tuple(islice(held, max(0, self.most - running))))
