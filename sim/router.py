"""Routers: which of several equal replicas a request goes to.

A router is a pure function: it reads no clock and keeps nothing. It is called once a request, when the policy
has released it.
"""

from collections.abc import Callable, Mapping, Sequence

Route = Callable[[int, Sequence[int]], int]
"""From a request's place in the order of release, from 0, and the number of requests at each replica,
running or waiting there, to the replica that it goes to."""


def round_robin(place: int, at_replica: Sequence[int]) -> int:
    """Return each replica in turn, however busy."""
    return place % len(at_replica)


def least_loaded(place: int, at_replica: Sequence[int]) -> int:  # noqa: ARG001
    """Return the replica with the fewest requests, the lowest of several."""
    return at_replica.index(min(at_replica))


ROUTERS: Mapping[str, Route] = {"round-robin": round_robin, "least-loaded": least_loaded}
"""By name, as `--router` takes it."""
