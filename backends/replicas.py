"""Several engines that are all alike, as one: each request goes to the one that a router chooses."""

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.prompted_engine import TokenEngine, row_of
from backends.step_log import STEP
from sim.arrivals import held_request
from sim.policy import HeldRequest
from sim.router_registry import make_router
from sim.settings import full_name
from traces.trace import Trace

REPLICA_STEP = np.dtype([*STEP.descr, ("replica", "i4")])


class Replicas:
    """Sends each request to one of several started engines, and remembers to which."""

    def __init__(self, engines: Sequence[TokenEngine], router: str) -> None:
        """Put engines together.

        Args:
            engines: At least one, started.
            router: The router, as `sim.router_registry.make_router` takes it.

        Raises:
            ValueError: The engines differ, or there is no such router.
        """
        self._engines = engines
        self._router = make_router(router, (len(engines),))
        fleet = {"replicas": len(engines), "router": full_name(router, self._router)}
        self._facts = engines[0].facts() | fleet
        for replica, engine in enumerate(engines):
            facts = engine.facts()
            for name in sorted(self._facts.keys() & facts.keys()):
                if facts[name] != self._facts[name]:
                    raise ValueError(
                        f"replica {replica} has {name} {facts[name]!r}, the first has {self._facts[name]!r}; "
                        f"replicas have to be equal"
                    )
        self._running = dict.fromkeys(range(len(engines)), 0)
        self._trace: Trace | None = None
        self._served_by: dict[str, int] = {}

    def facts(self) -> dict[str, Any]:
        """Return the engine options in force on each replica, how many there are, and the router."""
        return self._facts

    def expect(self, trace: Trace) -> None:
        """Learn what the router may know of the requests to come, beyond their prompts' lengths."""
        self._trace = trace

    def replica_of(self, request_id: str) -> int | None:
        """Return which replica a request was sent to, None if to none."""
        return self._served_by.get(request_id)

    async def generate(self, request_id: str, prompt: list[int], output_tokens: int) -> AsyncIterator[int]:
        """Yield the number of tokens of each delivery; closing early aborts."""
        replica = self._router.route(self._told(request_id, prompt), self._running)
        self._served_by[request_id] = replica
        self._running[replica] += 1
        stream: Any = self._engines[replica].generate(request_id, prompt, output_tokens)
        try:
            async with aclosing(stream):
                async for tokens in stream:
                    yield tokens
        finally:
            self._running[replica] -= 1

    def _told(self, request_id: str, prompt: list[int]) -> HeldRequest:
        if self._trace is None:
            return HeldRequest(len(self._served_by), 0.0, len(prompt))
        return held_request(self._trace, row_of(request_id))


def merge_steps(logs: Sequence[NDArray[np.void]]) -> NDArray[np.void]:
    """Return the step logs of all replicas as one, dtype REPLICA_STEP, in the order of `done_s`."""
    merged = np.zeros(sum(map(len, logs)), dtype=REPLICA_STEP)
    for name in STEP.names or ():
        merged[name] = np.concatenate([log[name] for log in logs])
    merged["replica"] = np.repeat(np.arange(len(logs)), [len(log) for log in logs])
    return merged[np.argsort(merged["done_s"], kind="stable")]
