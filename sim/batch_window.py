"""The policy `batch-window`: requests wait for company, so that the engine rests between batches."""

from dataclasses import dataclass

import numpy as np

from sim.policy import Decision, Held
from traces.trace import Floats


@dataclass(frozen=True, slots=True)
class BatchWindow:
    """Releases all held requests once the oldest has waited, or once enough of them are held.

    Attributes:
        window_s: Longest wait, counted from the arrival of the oldest held request, at least 0 s.
        max_batch: Held requests that are released without waiting further, at least 1; None for no such
            number.
    """

    window_s: float = 10.0
    max_batch: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.window_s < float("inf"):
            raise ValueError(f"window_s must be >= 0 and finite, got {self.window_s}")
        if self.max_batch is not None and self.max_batch < 1:
            raise ValueError(f"max_batch must be >= 1 or none, got {self.max_batch}")

    def decide(self, now_s: float, held: Held, running: int) -> Decision:  # noqa: ARG002
        """Release all at the end of the window or when the batch is full, else wait for it."""
        if not len(held):
            return Decision()
        deadline_s = held[0].arrival_s + self.window_s
        if now_s >= deadline_s or (self.max_batch is not None and len(held) >= self.max_batch):
            return Decision(release=tuple(held))
        return Decision(wake_at_s=deadline_s)

    def release_times(self, arrival_s: Floats) -> Floats:
        """Return when each request goes: batch by batch, at the end of the window or when it is full."""
        release_s = np.empty_like(arrival_s)
        first, requests = 0, len(arrival_s)
        while first < requests:
            deadline_s = float(arrival_s[first]) + self.window_s
            # The first arrival on the deadline releases the batch and goes with it.
            end = max(first, int(np.searchsorted(arrival_s, deadline_s)))
            if end < requests and arrival_s[end] == deadline_s:
                end += 1
            if self.max_batch is not None and end - first >= self.max_batch:
                end = first + self.max_batch
                deadline_s = float(arrival_s[end - 1])
            release_s[first:end] = deadline_s
            first = end
        return release_s
