"""The policy `shortest-first`: at most so many requests run, and the shortest goes next."""

from dataclasses import dataclass, field
from heapq import heappop, heappush

from sim.concurrency import Concurrency
from sim.policy import Decision, Held, HeldRequest


@dataclass(frozen=True, slots=True)
class ShortestFirst(Concurrency):
    """Releases the held requests with the fewest tokens as long as fewer than `most` run.

    A request's length is its prompt and its predicted output; without a prediction, its prompt. Of equal
    requests the oldest goes first. A long request may wait for as long as shorter ones come. An event costs
    O(log held).

    Attributes:
        most: Most requests released and unfinished, at least 1.
    """

    _waiting: list[tuple[int, int, HeldRequest]] = field(default_factory=list, init=False, repr=False)

    def decide(self, now_s: float, held: Held, running: int) -> Decision:  # noqa: ARG002
        """Release as many as there are places, shortest first."""
        for place in range(len(self._waiting) - len(held), 0):
            request = held[place]
            heappush(self._waiting, (expected_tokens(request), request.id, request))
        places = min(self.most - running, len(self._waiting))
        return Decision(tuple(heappop(self._waiting)[2] for _ in range(places)))


def expected_tokens(request: HeldRequest) -> int:
    """Return the tokens of the prompt and of the predicted output; without a prediction, of the prompt."""
    return request.prompt_tokens + (request.predicted_output_tokens or 0)
