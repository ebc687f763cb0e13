"""Routers by name, as `--router` takes them."""

from collections.abc import Mapping, Sequence
from typing import Any

from sim.length_split import LengthSplit
from sim.prefix_affinity import PrefixAffinity
from sim.router import LeastLoaded, Pack, RoundRobin, Router
from sim.settings import parse_settings, settings_of, split_pair

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
    name, *pairs = router.split(":")
    if name not in ROUTERS:
        raise ValueError(f"no router {name!r}; there are {', '.join(ROUTERS)}")
    given = dict(split_pair(pair, f"--router {name}:") for pair in pairs)
    made: Router = ROUTERS[name](**parse_settings(ROUTERS[name], given, f"router {name}"))
    if isinstance(made, LengthSplit):
        made.divide(pools)
    return made


def full_name(router: str, pools: Sequence[int]) -> str:
    """Return the router with all its options, also those left out, as a record keeps it."""
    name, *_ = router.split(":")
    made = make_router(router, pools)
    options = [f"{option}={_text(getattr(made, option))}" for option in settings_of(type(made))]
    return ":".join([name, *options])


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return str(value).lower() if isinstance(value, bool) else str(value)
