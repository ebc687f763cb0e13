"""A table's validation: all its comparisons with measured replays in one file, which ships beside it."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from replay.cases import SELECTION, Case
from sim.compare import Comparison, LoggedEnergy, Row, StepErrors

VALIDATION_FILE = "validation.json"
LATENCIES = ("ttft", "tpot", "e2e")
LEVELS = ("p50", "p90", "p99")
HEADINGS = ("case", "energy", "95 %", *(latency.upper() for latency in LATENCIES))
MEANING = "simulated against measured, %; latencies at p50 / p90 / p99; * is beyond the target"


def write_validation(compared: Sequence[tuple[Case, Comparison]], out: Path) -> None:
    """Write what was replayed and all errors, no request among them, into the folder `out`."""
    entries = [
        {
            "case": case.name,
            "selection": {name: getattr(case, name) for name in SELECTION},
            "settings": dict(case.settings),
            "comparison": asdict(comparison),
        }
        for case, comparison in compared
    ]
    text = json.dumps(entries, indent=1, allow_nan=False)
    (out / VALIDATION_FILE).write_text(text + "\n")


def read_validation(folder: Path) -> list[dict[str, Any]]:
    """Return the entries that `write_validation` wrote into `folder`, none if it has no such file.

    Raises:
        ValueError: The file is not one of these.
    """
    path = folder / VALIDATION_FILE
    if not path.exists():
        return []
    try:
        entries: list[dict[str, Any]] = json.loads(path.read_text())
        validation_rows(entries)
    except (ValueError, TypeError, KeyError, StopIteration) as error:
        raise ValueError(f"{path}: not a validation as `replay validate` writes it ({error})") from error
    return entries


def validation_rows(entries: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    """Return the cells of each entry, those that HEADINGS names."""
    return [_cells(entry) for entry in entries]


def _comparison(entry: dict[str, Any]) -> Comparison:
    """Return the comparison in an entry, as far as its numbers go."""
    values = entry["comparison"]
    rows = tuple(Row(**row) for row in values["rows"])
    steps = tuple(StepErrors(**errors) for errors in values.get("steps", ()))
    logged = LoggedEnergy(**values["logged"]) if values.get("logged") else None
    return Comparison(**{**values, "rows": rows, "steps": steps, "logged": logged})


def _cells(entry: dict[str, Any]) -> tuple[str, ...]:
    comparison = _comparison(entry)
    margin = comparison.margin_fraction
    latencies = (
        "/".join(_error(comparison.row(f"{latency}_{level}_s"), 1) for level in LEVELS)
        for latency in LATENCIES
    )
    energy = _error(comparison.row("total_energy_j"), 2)
    return (entry["case"], energy, "-" if margin is None else f"±{100 * margin:.1f}", *latencies)


def _error(row: Row, digits: int) -> str:
    if row.error_fraction is None:
        return "-"
    return f"{100 * row.error_fraction:+.{digits}f}" + ("*" if row.is_within_target is False else "")
