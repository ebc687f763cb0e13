"""An engine for tests in both worlds: each request takes a known time, whatever else runs.

Times are sums of binary fractions, so exact, and no such sum falls on an arrival of `toy_trace.traces`: what
comes first is defined in simulated time and chance in real time.
"""

import asyncio
import heapq
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import numpy as np

from traces.trace import Ints, Request, Trace

FIRST_TOKEN_S = 0.25 + 2**-16


def service_s(request: Request) -> float:
    """Return how long a request takes from its release to its last token."""
    return FIRST_TOKEN_S + (request.output_tokens - 1) / 8


@dataclass(frozen=True, slots=True)
class Reached:
    time_s: float
    finished: Ints


class ToyEngine:
    """Simulated: `sim.driver.Engine`."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self._due: list[tuple[float, int]] = []
        self.now_s = 0.0
        self.submitted: list[tuple[float, int]] = []
        self.finished_s = np.full(len(trace), np.nan)

    @property
    def idle(self) -> bool:
        return not self._due

    def submit(self, rows: Sequence[int] | Ints, at_s: float) -> None:
        assert at_s >= self.now_s, "the engine has run past this release"
        for row in rows:
            self.submitted.append((at_s, row))
            heapq.heappush(self._due, (at_s + service_s(self._trace.request(row)), row))

    def advance(self, until_s: float) -> Reached:
        assert until_s >= self.now_s
        finished: list[int] = []
        if self._due and self._due[0][0] <= until_s:
            until_s = self._due[0][0]
            while self._due and self._due[0][0] == until_s:
                finished.append(heapq.heappop(self._due)[1])
        self.now_s = until_s
        self.finished_s[finished] = until_s
        return Reached(until_s, np.array(finished, dtype=np.int64))


class ToyLiveEngine:
    """Live: `backends.live.LiveEngine`; fails the rows it is told to after their first token."""

    def __init__(self, failing: frozenset[int] = frozenset(), short: frozenset[int] = frozenset()) -> None:
        self._failing = failing
        self._short = short
        self.order: list[int] = []

    async def generate(self, request: Request) -> AsyncIterator[int]:
        self.order.append(request.id)
        start_s = asyncio.get_running_loop().time()
        await sleep_until(start_s + FIRST_TOKEN_S)
        yield 1
        if request.id in self._failing:
            raise RuntimeError("out of memory")
        await sleep_until(start_s + service_s(request))
        rest = request.output_tokens - 1 - (request.id in self._short)
        if rest > 0:
            yield rest


async def sleep_until(at_s: float) -> None:
    """Sleep to an exact time of the loop."""
    woken = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_at(at_s, woken.set_result, None)
    await woken
