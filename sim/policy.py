"""The seam between policies and clocks: what a policy is told and what it answers."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from traces.trace import RequestClass


@dataclass(frozen=True, slots=True)
class HeldRequest:
    """What a gateway knows of a request: all that came with it, and nothing of its answer's length.

    Attributes:
        id: Position in the trace, unique within it.
        arrival_s: Seconds after time 0 of the replay.
        prompt_tokens: Tokens to prefill, at least 1.
        predicted_output_tokens: A guess at the tokens to generate, at least 1; None if nobody guesses.
        prefix_hashes: One hash per block of the prompt; equal leading hashes, equal prefix. Empty: unknown.
        session_id: The conversation that the call belongs to.
        request_class: `online` (a person waits) or `offline`.
        deadline_s: When the last token is due, seconds after time 0 of the replay.
    """

    id: int
    arrival_s: float
    prompt_tokens: int
    predicted_output_tokens: int | None = None
    prefix_hashes: tuple[int, ...] = ()
    session_id: str | None = None
    request_class: RequestClass = "online"
    deadline_s: float | None = None


class Held(Protocol):
    """Requests that have arrived and wait, oldest first: a view, never a copy."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> HeldRequest: ...

    def __iter__(self) -> Iterator[HeldRequest]: ...


@dataclass(frozen=True, slots=True)
class Decision:
    """What a policy answers.

    Attributes:
        release: Held requests to hand to the engine now, in this order.
        wake_at_s: Ask again at this time, after now, if nothing happens before.
    """

    release: tuple[HeldRequest, ...] = ()
    wake_at_s: float | None = None


class Policy(Protocol):
    """Decides when held requests go to the engine.

    A pure decision: it reads no clock, sleeps never, does no I/O and keeps only its own state.
    """

    def decide(self, now_s: float, held: Held, running: int) -> Decision:
        """Return what to release at `now_s`, given what is held and how many requests the engine has."""
        ...
