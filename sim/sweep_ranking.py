"""The results of a sweep in order: by workload and energy, with who is on the front and keeps the SLOs."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import inf
from typing import Any

from sim.sweep_front import front, point
from sim.sweep_result import Result
from sim.sweep_slos import Slos

WORKLOAD = ("trace", "trace_sha256", "from_s", "to_s", "limit", "stretch")
"""Inputs that say what is served; energies of different workloads are not compared."""


@dataclass(frozen=True, slots=True)
class Ranked:
    """A result beside the others.

    Attributes:
        result: The result.
        name: Its policy, and the inputs in which others differ.
        on_front: Whether no other result of its workload has both less energy and a shorter latency.
        violates: What it does not keep: latencies and percentiles by name, or `attainment`.
    """

    result: Result
    name: str
    on_front: bool
    violates: tuple[str, ...]

    @property
    def may_be_chosen(self) -> bool:
        """Whether it broke no guard and keeps every SLO."""
        return self.result.summary.energy_valid and not self.violates


def rank(results: Sequence[Result], latency: str, slos: Slos) -> dict[str, list[Ranked]]:
    """Return the results of each workload by its name, those valid first, the least energy per request first.

    Args:
        results: Of one sweep.
        latency: One of `sim.sweep_front.QUANTILES`, for the front.
        slos: What should be kept.
    """
    policies = {result.inputs["policy"] for result in results}
    own = {
        policy: _varied((r for r in results if r.inputs["policy"] == policy), "policy.")
        for policy in policies
    }
    shared = _varied(results, ("fleet", "engine.", "length_prediction"))
    if "fleet" in shared:  # the name of a file, which tells all of a fleet
        shared = [name for name in shared if not name.startswith(("fleet.", "fleet_"))]
    stretched = _varied(results, "stretch")
    groups: dict[str, list[Ranked]] = {}
    for _, group in groupby(sorted(results, key=_order), key=_workload):
        members = list(group)
        on_front = front([point(member.summary, latency) for member in members])
        groups[_name("trace", members[0], stretched)] = [
            Ranked(
                member,
                _name("policy", member, [*own[member.inputs["policy"]], *shared]),
                is_on_front,
                slos.violated(member.summary),
            )
            for member, is_on_front in zip(members, on_front, strict=True)
        ]
    return groups


def best(ranked: Sequence[Ranked]) -> Ranked | None:
    """Return the one of a workload with the least energy that keeps every SLO, None if none does."""
    return next((one for one in ranked if one.may_be_chosen), None)


def _workload(result: Result) -> tuple[str, ...]:
    return tuple(str(result.inputs[name]) for name in WORKLOAD)


def _order(result: Result) -> tuple[Any, ...]:
    energy_j = result.summary.energy_j_per_request
    return _workload(result), not result.summary.energy_valid, inf if energy_j is None else energy_j


def _varied(results: Iterable[Result], start: str | tuple[str, ...]) -> list[str]:
    """Return the names of the inputs that begin so and are not the same in all results."""
    values: dict[str, set[str]] = {}
    for result in results:
        for name, value in result.inputs.items():
            if name.startswith(start):
                values.setdefault(name, set()).add(str(value))
    return [name for name, found in values.items() if len(found) > 1]


def _name(what: str, result: Result, varied: Sequence[str]) -> str:
    """Return one input and, behind it, `name=value` of those varied, as the command line takes them."""
    options = (f"{name.partition('.')[2] or name}={_text(result.inputs[name])}" for name in varied)
    return " ".join([str(result.inputs[what]), *options])


def _text(value: Any) -> str:
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
