"""The seam between policies and clocks: what a policy is told and what it answers."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from traces.trace import Request


class Held(Protocol):
    """Requests that have arrived and wait, oldest first: a view, never a copy."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Request: ...

    def __iter__(self) -> Iterator[Request]: ...


@dataclass(frozen=True, slots=True)
class Decision:
    """What a policy answers.

    Attributes:
        release: Held requests to hand to the engine now, in this order.
        wake_at_s: Ask again at this time, after now, if nothing happens before.
    """

    release: tuple[Request, ...] = ()
    wake_at_s: float | None = None


class Policy(Protocol):
    """Decides when held requests go to the engine.

    A pure decision: it reads no clock, sleeps never, does no I/O and keeps only its own state.
    """

    def decide(self, now_s: float, held: Held, running: int) -> Decision:
        """Return what to release at `now_s`, given what is held and how many requests the engine has."""
        ...
