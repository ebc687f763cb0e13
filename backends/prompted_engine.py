"""An engine of tokens as the live driver wants it: with prompts, and given up when it only fails."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any, Protocol

from traces.trace import Request

FAILURES_IN_A_ROW = 100
"""So many failed requests without a token in between, and the engine is dead."""


class TokenEngine(Protocol):
    """A started engine that takes token ids: of `backends.vllm_engine`, of `backends.openai_engine`."""

    def facts(self) -> dict[str, Any]:
        """Return the engine options in force and versions, as far as known.

        `vocabulary`, if there, is what prompts' token ids are below.
        """
        ...

    def generate(self, request_id: str, prompt: list[int], output_tokens: int) -> AsyncIterator[int]:
        """Yield the number of tokens of each delivery; closing early aborts."""
        ...


def id_of(name: str, row: int) -> str:
    """Return the engine's id of request `row` of the replay `name`."""
    return f"{name}-{row}"


def row_of(request_id: str) -> int:
    """Return the row of the request that has this id."""
    return int(request_id.rpartition("-")[2])


class PromptedEngine:
    """Serves requests by their prompts.

    Attributes:
        is_given_up: Set when `FAILURES_IN_A_ROW` requests failed in a row.
    """

    def __init__(self, engine: TokenEngine, prompts: Sequence[list[int]], name: str) -> None:
        """Serve by a started engine.

        Args:
            engine: The engine.
            prompts: Prompt of each request, by its id.
            name: Begins the engine's request ids; no two replays on one engine may share it.
        """
        self._engine = engine
        self._prompts = prompts
        self._name = name
        self._failures = 0
        self.is_given_up = asyncio.Event()

    async def generate(self, request: Request) -> AsyncIterator[int]:
        """Serve `request`, yielding the number of new tokens at each delivery."""
        request_id, prompt = id_of(self._name, request.id), self._prompts[request.id]
        try:
            async for tokens in self._engine.generate(request_id, prompt, request.output_tokens):
                self._failures = 0
                yield tokens
        except Exception:
            self._failures += 1
            if self._failures >= FAILURES_IN_A_ROW:
                self.is_given_up.set()
            raise
