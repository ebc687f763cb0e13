"""Estimates beside a replay, as a person reads them, and as JSON."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import wrap

from replay.printing import MISSING, quantity
from traces.record import Run

WIDTH = 80
INDENT = " " * 4


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


def estimates_json(run: Run, estimates: Sequence[Estimate]) -> str:
    """Return one JSON object: the replay's energy, and each estimate with its ratio to that."""
    total_j = run.total_energy_j
    values = {
        "table": run.meta.table,
        "energy_source": run.meta.energy_source,
        "energy_valid": run.meta.energy_valid,
        "replay_energy_j": total_j,
        "estimates": {
            one.name: {"energy_j": one.energy_j, "to_replay": _to(one.energy_j, total_j), "how": one.how}
            for one in estimates
        },
    }
    return json.dumps(values, allow_nan=False)


def estimates_text(run: Run, policy: str, estimates: Sequence[Estimate]) -> str:
    """Return a table, and below it the numbers behind each estimate in lines of at most 80 columns."""
    total_j = run.total_energy_j
    source = " (assumed, not measured)" if run.meta.energy_source == "assumed" else ""
    rows = [(f"replay, {policy}", total_j), *((one.title, one.energy_j) for one in estimates)]
    width = max(len(title) for title, _ in rows)
    lines = [
        *wrap(
            f"{run.meta.trace_name}: {run.meta.requests:,} requests, table {run.meta.table}{source}", WIDTH
        ),
        *wrap("; ".join(f"not valid: {reason}" for reason in run.meta.invalid_reasons), WIDTH),
        "",
        f"{'':<{width}} {'energy':>10} {'to the replay':>15}",
    ]
    for title, energy_j in rows:
        share = _to(energy_j, total_j)
        text = MISSING if share is None else f"{share:.3f}"
        lines.append(f"{title:<{width}} {quantity(energy_j, 'J'):>10} {text:>15}")
    lines.append("")
    for one in estimates:
        lines += wrap(f"{one.title}: {one.how}", WIDTH, subsequent_indent=INDENT)
    return "\n".join(lines)


def _to(energy_j: float | None, total_j: float | None) -> float | None:
    return None if energy_j is None or not total_j else energy_j / total_j
