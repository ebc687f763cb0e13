"""Pools: fleets whose engines differ from pool to pool, in model, GPUs, cost table or options."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sim.length_split import LengthSplit
from sim.options import EngineOptions
from sim.request_table import RequestTable, check_lengths, known_prefixes, table_of
from sim.router_registry import make_router
from sim.scaling import make_scaling
from sim.service_time import Prompts, ServiceTime
from sim.table import CostTable
from sim.told_costs import ToldCosts
from traces.trace import Trace

COMPARED_TOKENS = 1024
"""Of the prompt by whose first token the slowest pool is found."""


@dataclass(frozen=True, slots=True)
class Pool:
    """Equal engines of a fleet.

    Attributes:
        name: As the fleet file says, None of a fleet without one.
        count: How many, each on GPUs of its own.
        options: What each is told.
        table: What its steps cost.

    Raises:
        ValueError: There is not one engine.
    """

    name: str | None
    count: int
    options: EngineOptions
    table: CostTable

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"pool {self.name}: count must be >= 1, got {self.count}")


@dataclass(frozen=True, slots=True)
class Pools:
    """A fleet: pools behind one policy and one router, replicas numbered in their order.

    Attributes:
        pools: At least one.
        router: Name of the router, with options if need be.
        scaling: Who sleeps when, as `FleetOptions.scaling`.

    Raises:
        ValueError: There is no such router or scaling, an option of these is refused, or the router does not
            suit the pools.
    """

    pools: tuple[Pool, ...]
    router: str = "round-robin"
    scaling: str = "fixed"

    def __post_init__(self) -> None:
        make_router(self.router, self.counts)
        make_scaling(self.scaling)

    @property
    def counts(self) -> tuple[int, ...]:
        """How many replicas each pool has."""
        return tuple(pool.count for pool in self.pools)

    @property
    def replicas(self) -> tuple[Pool, ...]:
        """The pool of each replica."""
        return tuple(pool for pool in self.pools for _ in range(pool.count))

    @property
    def costs(self) -> ToldCosts:
        """What a policy is told that asks: all replicas as if they were of the slowest pool."""
        first, *others = self.pools
        slowest = max(self.pools, key=_first_token_s) if others else first
        return ToldCosts(slowest.table, slowest.options, len(self.replicas))


def requests_of(trace: Trace, fleet: Pools) -> RequestTable:
    """Return a table in which request i of `trace` has row i.

    Raises:
        ValueError: A request cannot be served by a pool that it may go to.
    """
    if len(fleet.pools) == 1:
        return table_of(trace, fleet.pools[0].options)
    prefix = None
    for pool, may_come in zip(fleet.pools, _who_may_come(trace, fleet), strict=True):
        try:
            check_lengths(trace, pool.options, among=may_come)
            prefix = known_prefixes(trace, pool.options) or prefix
        except ValueError as error:
            raise ValueError(f"pool {pool.name}: {error}") from error
    table = RequestTable(prefix)
    table.take(trace)
    return table


def _who_may_come(trace: Trace, fleet: Pools) -> Iterator[NDArray[np.bool_] | None]:
    """Yield for each pool whether each request may go to it, None where all may.

    Only `length-split` settles it, and only while nobody sleeps: a router knows no true output length.
    """
    router = make_router(fleet.router, fleet.counts)
    nobody_sleeps = make_scaling(fleet.scaling) is None
    groups = router.groups_of(trace) if isinstance(router, LengthSplit) and nobody_sleeps else None
    for number in range(len(fleet.pools)):
        yield None if groups is None else groups == number


def _first_token_s(pool: Pool) -> float:
    """Return how long one engine of the pool, otherwise idle, takes to the first token of a prompt."""
    prompts = Prompts()
    prompts.add(COMPARED_TOKENS)
    return ServiceTime(ToldCosts(pool.table, pool.options)).first_tokens_s(prompts, 0, 1)
