"""Releases that can be told before the replay, for policies that depend on arrivals alone."""

from collections.abc import Iterable, Iterator
from typing import Protocol, runtime_checkable

import numpy as np

from sim.policy import Policy
from sim.replica_group import Released
from traces.trace import Floats, Trace

STRETCH_REQUESTS = 1 << 16


@runtime_checkable
class Foreseeing(Protocol):
    """A policy that depends on arrivals alone and can tell all its releases at once: a faster replay.

    What it tells is exactly what `decide` would answer through the gateway.
    """

    def release_times(self, arrival_s: Floats) -> Floats:
        """Return when each request is released, shape (requests,); `arrival_s` is ascending."""
        ...


def release_times(policy: Policy, arrival_s: Floats) -> Floats | None:
    """Return when `policy` releases each request, None if only a replay can tell.

    Raises:
        ValueError: A release is missing, infinite or before its arrival.
    """
    if not isinstance(policy, Foreseeing):
        return None
    release_s = np.asarray(policy.release_times(arrival_s), dtype=np.float64)
    name = type(policy).__name__
    if release_s.shape != arrival_s.shape:
        raise ValueError(
            f"policy {name} told {release_s.size} release times for {len(arrival_s)} requests; "
            "tell one for each"
        )
    wrong = np.flatnonzero(~(np.isfinite(release_s) & (release_s >= arrival_s)))
    if len(wrong):
        row = int(wrong[0])
        raise ValueError(
            f"policy {name} told the release of request {row} at {release_s[row]} s; "
            f"it must be finite and not before its arrival at {arrival_s[row]} s"
        )
    return release_s


def stretches(parts: Iterable[Trace], release_s: Floats) -> Iterator[Released]:
    """Yield all requests, a stretch at a time.

    Args:
        parts: The trace part by part, in the order of release.
        release_s: When each request is released, ascending, shape (requests,).
    """
    first = 0
    for part in parts:
        yield Released(first, part, release_s[first : first + len(part)])
        first += len(part)
