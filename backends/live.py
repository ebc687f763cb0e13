"""The live clock: an asyncio loop that feeds the gateway and sends what is released to a real engine."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sim.arrivals import as_offered, requests_of
from sim.gateway import Gateway
from sim.policy import HeldRequest, Policy
from traces.record import FAILED, SERVED, UNFINISHED, Outcomes
from traces.trace import Counts, Floats, Request, Trace

KERNEL_SLACK = 2e-3
LONG_SLEEP_S = 0.1
"""Linux may end a sleep in epoll late by a thousandth of its length (measured: 34 ms after 33 s)."""


class LiveEngine(Protocol):
    """What serves requests in real time."""

    def generate(self, request: Request) -> AsyncIterator[int]:
        """Serve `request`, yielding the number of new output tokens at each delivery; raise if it fails."""
        ...


class LiveReplay:
    """One replay in real time, open loop: requests arrive when the trace says, however the engine fares.

    A request that fails, or ends without the tokens asked for, counts as failed. A replay that is cancelled
    cancels what runs and keeps what it saw: `outcomes()` then has unfinished requests.

    Attributes:
        zero_s: The loop's time at time 0 of the replay, None before it.
        arrived_s: When the gateway learnt of each request; its lag is `arrived_s - arrival_s`, shape
            (requests,).
        sent_s: When each request was handed to the engine; its lag is `sent_s - released_s`, shape
            (requests,).
        failures: Why requests failed, by row.
    """

    def __init__(
        self,
        trace: Trace,
        policy: Policy,
        engine: LiveEngine,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        """Prepare a replay; `progress` is called with the number of requests just finished."""
        self._trace = as_offered(trace, policy)
        self._engine = engine
        self._progress = progress
        self._gateway = Gateway(policy)
        self._clients: set[asyncio.Task[None]] = set()
        self._news = asyncio.Event()
        self._now_s = 0.0
        self._finishes = 0
        self.zero_s: float | None = None
        self.failures: dict[int, str] = {}
        self.arrived_s, self.sent_s = self._unknown_times(), self._unknown_times()
        self._released_s, self._first_token_s, self._finished_s = (self._unknown_times() for _ in range(3))
        self._output_tokens: Counts = np.zeros(len(trace), dtype=np.int32)
        self._status: NDArray[np.uint8] = np.full(len(trace), UNFINISHED, dtype=np.uint8)

    async def run(self) -> Outcomes:
        """Replay the trace to its last finish and return what became of each request.

        Raises:
            ValueError: The policy breaks a rule.
        """
        self.zero_s = asyncio.get_running_loop().time()
        try:
            for request in requests_of(self._trace):
                await self._serve_until(request.arrival_s)
                now_s = self._clock_s()
                self.arrived_s[request.id] = now_s
                self._send(self._gateway.arrive(request, now_s), now_s)
            self._gateway.complete()
            await self._serve_until(None)
        finally:
            for client in self._clients:
                client.cancel()
            await asyncio.gather(*self._clients, return_exceptions=True)
        return self.outcomes()

    def outcomes(self) -> Outcomes:
        """Return what has become of each request so far."""
        return Outcomes(
            request_id=np.arange(len(self._trace), dtype=np.int64),
            arrival_s=self._trace.arrival_s,
            released_s=self._released_s,
            first_token_s=self._first_token_s,
            finished_s=self._finished_s,
            prompt_tokens=self._trace.prompt_tokens,
            output_tokens=self._output_tokens,
            status=self._status,
            energy_j=self._unknown_times(),
        )

    async def _serve_until(self, arrival_s: float | None) -> None:
        """Tell of finishes and alarms until an arrival is due; without one, until the last finish."""
        while True:
            await asyncio.sleep(0)  # what is due to clients goes first, also while arrivals are late
            self._tell_finishes()
            if arrival_s is None and not self._gateway.held and self._gateway.running == 0:
                return
            now_s, wake_at_s = self._clock_s(), self._gateway.wake_at_s
            next_s = min((at_s for at_s in (arrival_s, wake_at_s) if at_s is not None), default=None)
            if next_s is None or now_s < next_s:
                await self._sleep_until(next_s)
            elif next_s == arrival_s:
                return
            else:
                self._send(self._gateway.alarm(now_s), max(now_s, next_s))

    async def _sleep_until(self, at_s: float | None) -> None:
        """Sleep until `at_s` or a finish, or wake up a little early from a long sleep, to sleep again.

        After the last sleep the clock is not before `at_s`, however timers round.
        """
        self._news.clear()
        if at_s is None:
            await self._news.wait()
            return
        assert self.zero_s is not None
        sleep_s = at_s - self._clock_s()
        wake_at_s = at_s if sleep_s < LONG_SLEEP_S else at_s - KERNEL_SLACK * sleep_s
        timer = asyncio.get_running_loop().call_at(self.zero_s + wake_at_s, self._reach, wake_at_s)
        try:
            await self._news.wait()
        finally:
            timer.cancel()

    def _reach(self, at_s: float) -> None:
        self._now_s = max(self._now_s, at_s)
        self._news.set()

    def _clock_s(self) -> float:
        assert self.zero_s is not None
        self._now_s = max(self._now_s, asyncio.get_running_loop().time() - self.zero_s)
        return self._now_s

    def _tell_finishes(self) -> None:
        while self._finishes:
            self._finishes -= 1
            now_s = self._clock_s()
            self._send(self._gateway.finish(now_s), now_s)
            if self._progress is not None:
                self._progress(1)

    def _send(self, requests: tuple[HeldRequest, ...], now_s: float) -> None:
        for request in requests:
            self._released_s[request.id] = now_s
            client = asyncio.get_running_loop().create_task(self._serve(self._trace.request(request.id)))
            self._clients.add(client)
            client.add_done_callback(self._clients.discard)

    async def _serve(self, request: Request) -> None:
        row = request.id
        self.sent_s[row] = self._clock_s()
        try:
            await self._receive(request)
            self._status[row] = SERVED
        except Exception as error:
            self._status[row] = FAILED
            self.failures[row] = f"{type(error).__name__}: {error}"
        self._finishes += 1
        self._news.set()

    async def _receive(self, request: Request) -> None:
        row, received, last_s = request.id, 0, float("nan")
        async for tokens in self._engine.generate(request):
            last_s = self._clock_s()
            if received == 0 and tokens > 0:
                self._first_token_s[row] = last_s
            received += tokens
            self._output_tokens[row] = received
        if received != request.output_tokens:
            raise ValueError(f"the engine gave {received} of {request.output_tokens} tokens")
        self._finished_s[row] = last_s

    def _unknown_times(self) -> Floats:
        return np.full(len(self._trace), np.nan)
