"""The policy `shortest-first`: at most so many requests run, and the shortest goes next."""

from dataclasses import dataclass
from heapq import nsmallest

from sim.concurrency import Concurrency
from sim.policy import Decision, Held, HeldRequest


@dataclass(frozen=True, slots=True)
class ShortestFirst(Concurrency):
    """Releases the held requests with the fewest tokens as long as fewer than `most` run.

    A request's length is its prompt and its predicted output; without a prediction, its prompt. Of equal
    requests the oldest goes first. A long request may wait for as long as shorter ones come.

    Attributes:
        most: Most requests released and unfinished, at least 1.
    """

    def decide(self, now_s: float, held: Held, running: int) -> Decision:  # noqa: ARG002
        """Release as many as there are places, shortest first."""
        places = self.most - running
        return Decision(tuple(nsmallest(places, held, key=expected_tokens)) if places > 0 else ())


def expected_tokens(request: HeldRequest) -> int:
    """Return the tokens of the prompt and of the predicted output; without a prediction, of the prompt."""
    return request.prompt_tokens + (request.predicted_output_tokens or 0)
