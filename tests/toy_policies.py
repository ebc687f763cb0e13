"""Policies for tests that lean on everything a policy may use."""

from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np

from sim.policy import Decision, Held

GRID = str(Path(__file__).with_name("grid.csv"))
"""An invented grid: below 100 g/kWh from 5 to 6.5 s and from 12 to 14 s."""

NEEDED = {"carbon-aware": {"intensity": GRID}}
"""Options without which a shipped policy cannot be made."""


@dataclass(slots=True)
class AtMost:
    """Keeps at most `most` requests running, the newest first."""

    most: int = 2

    def decide(self, now_s: float, held: Held, running: int) -> Decision:  # noqa: ARG002
        waiting = sorted(held, key=lambda request: -request.id)
        return Decision(release=tuple(waiting[: max(0, self.most - running)]))


@dataclass(slots=True)
class Ticking:
    """Releases one request at each tick of its own, and ticks on for ever."""

    period_s: float = 0.75

    def decide(self, now_s: float, held: Held, running: int) -> Decision:  # noqa: ARG002
        tick = now_s // self.period_s
        release = tuple(islice(held, 1)) if now_s == tick * self.period_s else ()
        return Decision(release, wake_at_s=(tick + 1) * self.period_s)


@dataclass(slots=True)
class Drawing:
    """Releases a random choice of what is held, by its own seeded generator."""

    seed: int = 0
    _random: np.random.Generator = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._random = np.random.default_rng(self.seed)

    def decide(self, now_s: float, held: Held, running: int) -> Decision:  # noqa: ARG002
        release = tuple(request for request in held if self._random.random() < 0.4)
        return Decision(release, wake_at_s=now_s + 0.5 if len(release) < len(held) else None)
