"""What a policy is told of the engines before a replay, if it asks: their cost table and options."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from sim.options import EngineOptions
from sim.policy import Policy
from sim.table import CostTable


@dataclass(frozen=True, slots=True, eq=False)
class ToldCosts:
    """What the engines behind a policy cost.

    Attributes:
        table: What a step of one engine costs.
        options: What each engine is told.
        replicas: How many engines there are.
    """

    table: CostTable
    options: EngineOptions
    replicas: int = 1


@runtime_checkable
class AsksForCosts(Protocol):
    """A policy that estimates by the cost table; it is told once, before its first decision."""

    def learn_costs(self, costs: ToldCosts) -> None:
        """Take in what the engines cost."""
        ...


def tell_costs(policy: Policy, costs: ToldCosts | None) -> None:
    """Tell `policy` what the engines cost, if it asks.

    Raises:
        ValueError: It asks, and nobody knows.
    """
    if not isinstance(policy, AsksForCosts):
        return
    if costs is None:
        raise ValueError(
            f"policy {type(policy).__name__} estimates by a cost table, there is none; give --table"
        )
    policy.learn_costs(costs)
