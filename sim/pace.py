"""The policy `pace`: requests go one at a time, at least an interval apart."""

from dataclasses import dataclass, field

import numpy as np

from sim.policy import Decision, Held, HeldRequest


@dataclass(slots=True)
class Pace:
    """Releases the oldest held request, then none until the interval and a random jitter are over.

    Attributes:
        interval_s: Least time between two releases, above 0 s.
        jitter_s: Most time added to an interval, drawn evenly from 0 to here, at least 0 s.
        seed: Of the jitter.
    """

    interval_s: float = 0.1
    jitter_s: float = 0.0
    seed: int = 0
    _random: np.random.Generator = field(init=False, repr=False)
    _next_s: float = field(default=0.0, init=False, repr=False)

    def __post_init__(self) -> None:
        if not 0 < self.interval_s < float("inf"):
            raise ValueError(f"interval_s must be > 0 and finite, got {self.interval_s}")
        if not 0 <= self.jitter_s < float("inf"):
            raise ValueError(f"jitter_s must be >= 0 and finite, got {self.jitter_s}")
        self._random = np.random.default_rng(self.seed)

    def decide(self, now_s: float, held: Held, running: int) -> Decision:  # noqa: ARG002
        """Release the oldest if its turn has come, and wake for the next one's."""
        release: tuple[HeldRequest, ...] = ()
        if len(held) and now_s >= self._next_s:
            release = (held[0],)
            self._next_s = now_s + self.interval_s + self.jitter_s * float(self._random.random())
        return Decision(release, self._next_s if len(held) > len(release) else None)
