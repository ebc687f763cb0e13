"""Pools: fleets whose engines differ from pool to pool, in model, GPUs, cost table or options."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from sim.kv_transfer import KvTransfer
from sim.length_split import LengthSplit
from sim.options import EngineOptions
from sim.request_table import RequestTable, check_lengths, known_prefixes, table_of
from sim.router_registry import make_router
from sim.scaling import make_scaling
from sim.scheduler_state import BRINGS_KV
from sim.service_time import Prompts, ServiceTime
from sim.table import CostTable
from sim.told_costs import ToldCosts
from traces.trace import Trace

Role = Literal["prefill", "decode"]

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
        role: Which part of every request it does, None for all of it.

    Raises:
        ValueError: There is not one engine, or no such role.
    """

    name: str | None
    count: int
    options: EngineOptions
    table: CostTable
    role: Role | None = None

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"pool {self.name}: count must be >= 1, got {self.count}")
        if self.role not in (None, *get_args(Role)):
            known = " or ".join(get_args(Role))
            raise ValueError(f"pool {self.name}: role must be {known}, got {self.role!r}; or leave it out")


@dataclass(frozen=True, slots=True)
class Pools:
    """A fleet: pools behind one policy and one router, replicas numbered in their order.

    Attributes:
        pools: At least one; those that prefill, if any, before those that decode.
        router: Name of the router, with options if need be; of those that prefill, if some do only that.
        scaling: Who sleeps when, as `FleetOptions.scaling`.
        kv_transfer: How KV gets from those that prefill to those that decode, None if each does both.
        decode_router: The router of those that decode.

    Raises:
        ValueError: There is no such router or scaling, an option of these is refused, or the router, the
            pools and their roles do not suit each other.
    """

    pools: tuple[Pool, ...]
    router: str = "round-robin"
    scaling: str = "fixed"
    kv_transfer: KvTransfer | None = None
    decode_router: str = "least-loaded"

    def __post_init__(self) -> None:
        if self.kv_transfer is not None or any(pool.role for pool in self.pools):
            _check_roles(self)
        for stage in self.stages:
            make_router(stage.router, stage.counts)
        make_scaling(self.scaling)

    @property
    def stages(self) -> "tuple[Pools, ...]":
        """The fleets that a request goes through: itself, or those that prefill and those that decode."""
        if self.kv_transfer is None:
            return (self,)
        prefill, decode = (
            tuple(replace(pool, role=None) for pool in self.pools if pool.role == role)
            for role in get_args(Role)
        )
        return Pools(prefill, self.router), Pools(decode, self.decode_router)

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
    if fleet.pools[0].name is None:
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


def prompts_of(trace: Trace) -> Trace:
    """Return the requests as engines that only prefill get them: each has one output token."""
    return replace(trace, output_tokens=np.ones_like(trace.output_tokens))


def prefilled_requests_of(trace: Trace, fleet: Pools) -> RequestTable:
    """Return the table of `requests_of`, in which each request brings its prompt's KV.

    Raises:
        ValueError: As `requests_of` does.
    """
    table = requests_of(trace, fleet)
    table.requests[:, BRINGS_KV] = 1
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


def _check_roles(fleet: Pools) -> None:
    """Refuse a fleet whose roles, KV transfer and scaling do not make a disaggregated one."""
    roles = [pool.role for pool in fleet.pools]
    if roles != sorted(roles, key=str, reverse=True) or set(roles) != {*get_args(Role)}:
        raise ValueError(
            f"pools must all have a role, first those of role prefill, then those of role decode, got "
            f"{', '.join(str(role) for role in roles)}"
        )
    if fleet.kv_transfer is None:
        raise ValueError("pools with roles need kv_transfer: how KV gets from one role to the other")
    models = dict.fromkeys(str(pool.table.engine.get("model")) for pool in fleet.pools)
    if len(models) > 1:
        raise ValueError(f"pools with roles must serve one model, got {', '.join(models)}")
    if make_scaling(fleet.scaling) is not None:
        raise ValueError(f"pools with roles never sleep: leave scaling {fleet.scaling} out")
