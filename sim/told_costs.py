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


def asking(policy: Policy) -> list[AsksForCosts]:
    """Return who asks for costs: the policy itself, or those in its attribute `policies`."""
    if isinstance(policy, AsksForCosts):
        return [policy]
    return [asker for member in getattr(policy, "policies", ()) for asker in asking(member)]


def tell_costs(policy: Policy, costs: ToldCosts | None) -> None:
    """Tell `policy` what the engines cost, if it asks.

    Raises:
        ValueError: It asks, and nobody knows.
    """
    for asker in asking(policy):
        if costs is None:
            name = type(asker).__name__
            raise ValueError(f"policy {name} estimates by a cost table, there is none; give --table")
        asker.learn_costs(costs)
