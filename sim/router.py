"""Routers: which of several replicas a request goes to.

A router is called once a request, when the policy has released it. Like a policy it reads no clock and does
no I/O; one object routes one replay, simulated or live.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from sim.policy import HeldRequest

Loads = Mapping[int, int]
"""Requests at each replica that may be chosen, running or waiting there, in the order of the replicas."""


class Router(Protocol):
    """Chooses a replica for each request."""

    def route(self, request: HeldRequest, loads: Loads) -> int:
        """Return one of the replicas in `loads`, of which there is at least one."""
        ...


@dataclass(slots=True)
class RoundRobin:
    """Each replica in turn, however busy."""

    _last: int = field(default=-1, init=False)

    def route(self, request: HeldRequest, loads: Loads) -> int:  # noqa: ARG002, the protocol's
        """Return the replica behind the last one chosen, the first behind the last of all."""
        self._last = next((replica for replica in loads if replica > self._last), next(iter(loads)))
        return self._last


@dataclass(slots=True)
class LeastLoaded:
    """The replica with the fewest requests, the lowest of several."""

    def route(self, request: HeldRequest, loads: Loads) -> int:  # noqa: ARG002
        """Return it."""
        return least_loaded(loads)


@dataclass(slots=True)
class Pack:
    """The lowest replica that has room: one is filled before the next gets anything.

    Attributes:
        most: Requests that fill a replica; where all are full, the least loaded one is chosen.

    Raises:
        ValueError: `most` is below 1.
    """

    most: int = 64

    def __post_init__(self) -> None:
        if self.most < 1:
            raise ValueError(f"router pack: most must be >= 1, got {self.most}")

    def route(self, request: HeldRequest, loads: Loads) -> int:  # noqa: ARG002
        """Return the lowest with fewer than `most` requests."""
        has_room = (replica for replica, load in loads.items() if load < self.most)
        return next(has_room, least_loaded(loads))


def least_loaded(loads: Loads) -> int:
    """Return the replica with the fewest requests, the lowest of several."""
    return min(loads, key=loads.__getitem__)
