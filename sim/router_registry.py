"""Routers by name, as `--router` takes them."""

from collections.abc import Mapping, Sequence
from typing import Any

from sim.length_split import LengthSplit
from sim.prefix_affinity import PrefixAffinity
from sim.router import LeastLoaded, Pack, RoundRobin, Router
from sim.settings import make_named

ROUTERS: Mapping[str, type[Any]] = {
    "round-robin": RoundRobin,
    "least-loaded": LeastLoaded,
    "pack": Pack,
    "length-split": LengthSplit,
    "prefix-affinity": PrefixAffinity,
}


def make_router(router: str, pools: Sequence[int]) -> Router:
    """Return a fresh router.

    Args:
        router: A name, or with options `name:option=value:option=value`.
        pools: How many replicas there are, of each pool if there are several.

    Raises:
        ValueError: There is no such router or option, a value is refused, or the pools do not fit.
    """
    made: Router = make_named(router, ROUTERS, "router")
    if isinstance(made, LengthSplit):
        made.divide(pools)
    return made
