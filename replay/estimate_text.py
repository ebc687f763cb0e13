"""Estimates beside a replay, as a person reads them, and as JSON."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from replay.printing import MISSING, quantity
from replay.screen import View, bad, heading, table
from traces.record import Run


@dataclass(frozen=True, slots=True)
class Estimate:
    """An estimate of the energy that a replay takes.

    Attributes:
        name: Its key in JSON.
        title: Its name in text.
        energy_j: What it says.
        how: The numbers behind it, in words.
    """

    name: str
    title: str
    energy_j: float
    how: str


def estimates_values(run: Run, estimates: Sequence[Estimate]) -> dict[str, Any]:
    """Return the replay's energy, and each estimate with its ratio to that."""
    total_j = run.total_energy_j
    return {
        "table": run.meta.table,
        "energy_source": run.meta.energy_source,
        "energy_valid": run.meta.energy_valid,
        "replay_energy_j": total_j,
        "estimates": {
            one.name: {"energy_j": one.energy_j, "to_replay": _to(one.energy_j, total_j), "how": one.how}
            for one in estimates
        },
    }


def estimates_view(run: Run, policy: str, estimates: Sequence[Estimate]) -> View:
    """Return a table, and below it the numbers behind each estimate."""
    total_j = run.total_energy_j
    source = " (assumed, not measured)" if run.meta.energy_source == "assumed" else ""
    energies = [(f"replay, {policy}", total_j), *((one.title, one.energy_j) for one in estimates)]
    width = max(len(title) for title, _ in energies)
    rows = []
    for title, energy_j in energies:
        to_replay = _to(energy_j, total_j)
        rows.append((title, quantity(energy_j, "J"), MISSING if to_replay is None else f"{to_replay:.3f}"))
    return [
        heading(f"{run.meta.trace_name}: {run.meta.requests:,} requests, table {run.meta.table}{source}"),
        *(bad(f"not valid: {reason}") for reason in run.meta.invalid_reasons),
        "",
        table(rows, "lrr", heads=("", "energy", "to the replay")),
        "",
        table([(one.title, one.how) for one in estimates], "ll", widths=(width,)),
    ]


def _to(energy_j: float | None, total_j: float | None) -> float | None:
    return None if energy_j is None or not total_j else energy_j / total_j
