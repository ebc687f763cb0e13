"""An asyncio loop whose time jumps to the next timer instead of passing."""

import asyncio
import heapq
import selectors
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class VirtualLoop(asyncio.SelectorEventLoop):
    """Time starts at `start_s` and stands still while anything is ready to run.

    Timers are late by `slack` of the time waited for them.
    """

    def __init__(self, start_s: float = 0.0, slack: float = 0.0) -> None:
        self._virtual_s = start_s
        self._slack = slack
        self._due_s: list[float] = []
        super().__init__(JumpingSelector(self.jump))

    def time(self) -> float:
        return self._virtual_s

    def call_at(
        self,
        when: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        heapq.heappush(self._due_s, when)
        return super().call_at(when, callback, *args, context=context)

    def skip(self, seconds: float) -> None:
        """Let time pass while nothing runs."""
        self._virtual_s += seconds

    def jump(self) -> None:
        """Go to the next timer."""
        while self._due_s and self._due_s[0] <= self._virtual_s:
            heapq.heappop(self._due_s)
        if not self._due_s:
            raise RuntimeError("everything waits and no timer is set")
        due_s = heapq.heappop(self._due_s)
        self._virtual_s = due_s + self._slack * (due_s - self._virtual_s)


class JumpingSelector(selectors.DefaultSelector):
    """Waits for nothing: where a real selector would sleep, time jumps."""

    def __init__(self, jump: Callable[[], None]) -> None:
        super().__init__()
        self._jump = jump

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or timeout > 0:
            self._jump()
        return super().select(0)


def run_virtually(main: Coroutine[Any, Any, T], start_s: float = 0.0) -> T:
    """Run `main` on a loop of its own and return its result."""
    loop = VirtualLoop(start_s)
    try:
        return loop.run_until_complete(main)
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
