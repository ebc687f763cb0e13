"""Releases that can be told before the replay, for policies that depend on arrivals alone."""

from itertools import pairwise
from math import inf
from typing import Protocol, runtime_checkable

import numpy as np

from sim.driver import Engine, Progress
from sim.policy import Policy
from traces.trace import Floats


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


def serve(release_s: Floats, engine: Engine, progress: Progress | None = None) -> None:
    """Serve every request at its release, those of one time in the order of their rows.

    There is no clock to step and nobody to ask: the engine knows all that will come.
    """
    order = np.argsort(release_s, kind="stable")
    times_s = release_s[order]
    bounds = [0, *(np.flatnonzero(np.diff(times_s)) + 1).tolist(), len(order)]
    for start, end in pairwise(bounds):
        engine.submit(order[start:end], float(times_s[start]))
    while not engine.idle:
        finished = engine.advance(inf).finished
        if progress is not None:
            progress(len(finished))
