"""Loads: keep an engine at one point of the grid for as long as its window lasts."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from calibrate.attention import typical_order
from calibrate.grid import RAGGEDNESS, SHORTEST, Point, contexts, scanned_lengths

SETTLE_S = 0.35
"""Wait after the load has taken shape: the power governor needs 100-200 ms."""

REST_S = 0.35
"""Pause after each load, so that no load warms up the next one's first steps."""

OPEN_SETTLE_S = 1.5
"""An open load's first requests find an empty engine; its window begins later."""

UNENDING = 6000
"""Output tokens of a decoding sequence, if the model allows: more than any window lasts; it is aborted."""

WARM_UPS = ((500, 32), (3000, 8))
"""Prompt and output tokens of the requests before the first load, WARM_UP_WIDTH of each together."""

WARM_UP_WIDTH = 8


class StartedEngine(Protocol):
    """An engine that can be loaded."""

    def facts(self) -> dict[str, Any]:
        """Return the engine options in force."""
        ...

    def generate(self, request_id: str, prompt: list[int], output_tokens: int) -> AsyncIterator[int]:
        """Yield the number of tokens of each delivery; closing early aborts."""
        ...


class LoadEngine(StartedEngine, Protocol):
    """An engine that can be started and loaded: `backends.vllm_engine.VllmEngine` or a stand-in."""

    async def start(self) -> None:
        """Become ready."""
        ...

    def stop(self) -> None:
        """Release the GPU."""
        ...


@dataclass(slots=True)
class Times:
    """When a load did what, monotonic seconds.

    Attributes:
        begin_s: First submission.
        window_begin_s, window_end_s: The load was steady between these.
        end_s: Everything drained.
        requests: (submitted, first token, finished) of each streamed request that finished.
    """

    begin_s: float = 0.0
    window_begin_s: float = 0.0
    window_end_s: float = 0.0
    end_s: float = 0.0
    requests: list[tuple[float, float, float]] = field(default_factory=list)


class Loader:
    """Runs points on one engine, one after the other."""

    def __init__(self, engine: StartedEngine, seed: int, hold_s: float) -> None:
        """Prepare loads of random tokens, each window about `hold_s` long, on an engine that has started."""
        facts = engine.facts()
        self._engine = engine
        self._vocabulary = int(facts["vocabulary"])
        self._max_model_len = int(facts["max_model_len"])
        self._seed = seed
        self._rng = np.random.default_rng(seed)
        self._hold_s = hold_s
        self._sent = 0

    async def run(self, point: Point) -> Times:
        """Load the engine as `point` says and return when what happened."""
        times = Times(begin_s=time.monotonic())
        shape: dict[str, Callable[[Point, Times], Any]] = {
            "idle": self._idle,
            "decode": self._steady,
            "ragged": self._steady,
            "prefill": self._steady,
            "mixed": self._steady,
            "trickle": self._trickle,
            "burst": self._burst,
            "open": self._open,
            "scan": self._scan,
        }
        await shape[point.kind](point, times)
        times.end_s = time.monotonic()
        await asyncio.sleep(REST_S)
        return times

    async def warm_up(self) -> None:
        """Send a few requests that are not measured."""
        most = self._max_model_len // 2
        for prompt_tokens, output_tokens in WARM_UPS:
            unmeasured = Times()
            prompts = [self._fresh(min(prompt_tokens, most)) for _ in range(WARM_UP_WIDTH)]
            await asyncio.gather(
                *(self._once(prompt, min(output_tokens, most), unmeasured) for prompt in prompts)
            )
        await asyncio.sleep(REST_S)

    async def _idle(self, _: Point, times: Times) -> None:
        times.window_begin_s = time.monotonic()
        await asyncio.sleep(2 * self._hold_s)
        times.window_end_s = time.monotonic()

    async def _steady(self, point: Point, times: Times) -> None:
        ready = [asyncio.Event() for _ in range(point.batch)]
        tasks = self._decoding(point, ready)
        try:
            await _all_or_failure(ready, tasks)
            tasks += [asyncio.create_task(self._stream(point, times)) for _ in range(point.streams)]
            if point.is_mixed_at_random:
                tasks.append(asyncio.create_task(self._arrive(point, times, float("inf"))))
            await asyncio.sleep(SETTLE_S)
            times.window_begin_s = time.monotonic()
            await asyncio.wait(tasks, timeout=self._hold_s, return_when=asyncio.FIRST_EXCEPTION)
            times.window_end_s = time.monotonic()
        finally:
            await _end(tasks)

    async def _trickle(self, point: Point, times: Times) -> None:
        times.window_begin_s = time.monotonic()
        while time.monotonic() < times.window_begin_s + 1.5 * self._hold_s:
            await self._once(self._fresh(point.chunk_tokens), point.output_tokens, times)
            await asyncio.sleep(point.gap_s)
        times.window_end_s = time.monotonic()

    async def _burst(self, point: Point, times: Times) -> None:
        times.window_begin_s = time.monotonic()
        while time.monotonic() < times.window_begin_s + 2 * self._hold_s:
            tasks = self._decoding(point, [asyncio.Event() for _ in range(point.batch)])
            tasks += [asyncio.create_task(self._stream(point, times)) for _ in range(point.streams)]
            await asyncio.wait(tasks, timeout=0.6, return_when=asyncio.FIRST_EXCEPTION)
            await _end(tasks)
            await asyncio.sleep(point.gap_s)
        times.window_end_s = time.monotonic()

    async def _scan(self, point: Point, times: Times) -> None:
        ready = [asyncio.Event() for _ in range(point.batch)]
        tasks = self._decoding(point, ready)
        try:
            await _all_or_failure(ready, tasks)
            await asyncio.sleep(SETTLE_S)
            times.window_begin_s = time.monotonic()
            for length in self._rng.permutation(scanned_lengths(point)).tolist():
                await self._once(self._fresh(length), point.output_tokens, times)
                await asyncio.sleep(point.gap_s)
            times.window_end_s = time.monotonic()
        finally:
            await _end(tasks)

    async def _open(self, point: Point, times: Times) -> None:
        begin_s = time.monotonic()
        end_s = begin_s + OPEN_SETTLE_S + 4 * self._hold_s
        await self._arrive(point, times, end_s)
        times.window_begin_s, times.window_end_s = begin_s + OPEN_SETTLE_S, end_s

    async def _arrive(self, point: Point, times: Times, end_s: float) -> None:
        """Send requests at random times until `end_s`, then abort those under way; raise what has failed."""
        tasks: list[asyncio.Task[None]] = []
        due_s = time.monotonic()
        try:
            while True:
                await asyncio.sleep(min(due_s, end_s) - time.monotonic())
                if due_s >= end_s:
                    break
                prompt_tokens, output_tokens = self._lengths(point)
                sent = self._once(self._fresh(prompt_tokens), output_tokens, times)
                tasks.append(asyncio.create_task(sent))
                due_s += self._rng.exponential(point.gap_s)
        finally:
            await _end(tasks)

    def _lengths(self, point: Point) -> tuple[int, int]:
        """Return a random request's prompt and output tokens; those of a mixed load are all equal."""
        if point.kind == "mixed":
            return point.chunk_tokens, point.output_tokens
        stretch = np.exp(RAGGEDNESS * self._rng.standard_normal())
        drawn = 1 + int(self._rng.exponential(point.output_tokens))
        prompt_tokens = min(max(round(point.chunk_tokens * stretch), SHORTEST), 8 * point.chunk_tokens)
        return prompt_tokens, min(drawn, 8 * point.output_tokens)

    def _decoding(self, point: Point, ready: list[asyncio.Event]) -> list[asyncio.Task[None]]:
        """Start the sequences of a batch that decodes, in a typical order; each tells when it has begun.

        Attention walks through a batch in this order and ends the later the later the longest contexts come:
        in ascending order decode steps took up to 9 % longer, by the luck of one random order up to 10 %.
        """
        tokens = contexts(point)
        return [
            asyncio.create_task(self._decode(self._context(index, tokens[index]), ready[index]))
            for index in typical_order(tokens, point.repeat)
        ]

    async def _decode(self, prompt: list[int], ready: asyncio.Event) -> None:
        output_tokens = min(UNENDING, self._max_model_len - len(prompt))
        async for _ in self._engine.generate(self._next_id(), prompt, output_tokens):
            ready.set()

    async def _stream(self, point: Point, times: Times) -> None:
        turn = 0
        while True:
            before = self._context(turn % 2, point.context_tokens) if point.kind == "prefill" else []
            await self._once(before + self._fresh(point.chunk_tokens), point.output_tokens, times)
            turn += 1

    async def _once(self, prompt: list[int], output_tokens: int, times: Times) -> None:
        submitted_s, first_s = time.monotonic(), 0.0
        async for _ in self._engine.generate(self._next_id(), prompt, output_tokens):
            first_s = first_s or time.monotonic()
        times.requests.append((submitted_s, first_s, time.monotonic()))

    def _context(self, index: int, tokens: int) -> list[int]:
        """Return the prompt that always begins sequence `index`, whose KV the prefix cache may still hold."""
        rng = np.random.default_rng([self._seed, index])
        return self._tokens(rng, tokens)

    def _fresh(self, tokens: int) -> list[int]:
        return self._tokens(self._rng, tokens)

    def _tokens(self, rng: np.random.Generator, tokens: int) -> list[int]:
        drawn: list[int] = rng.integers(10, self._vocabulary, tokens).tolist()
        return drawn

    def _next_id(self) -> str:
        self._sent += 1
        return f"calibrate-{self._sent}"


async def _all_or_failure(ready: list[asyncio.Event], tasks: list[asyncio.Task[None]]) -> None:
    """Wait until every event is set; raise if a task fails first."""
    all_ready: asyncio.Future[Any] = asyncio.gather(*(event.wait() for event in ready))
    futures: list[asyncio.Future[Any]] = [all_ready, *tasks]
    await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        if task.done() and task.exception() is not None:
            all_ready.cancel()
            await task
    await all_ready


async def _end(tasks: list[asyncio.Task[None]]) -> None:
    """Abort what still runs; raise what has failed."""
    failures = [task.exception() for task in tasks if task.done() and not task.cancelled()]
    for task in tasks:
        task.cancel()
    for task in tasks:
        with suppress(asyncio.CancelledError):
            await task
    for failure in failures:
        if failure is not None:
            raise failure
