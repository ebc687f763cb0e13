"""A table's validation: all its comparisons with measured replays in one file, which ships beside it."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from replay.cases import SELECTION, Case
from sim.compare import TARGETS

if TYPE_CHECKING:
    from sim.compare import Comparison

VALIDATION_FILE = "validation.json"
LATENCIES = ("ttft", "tpot", "e2e")
LEVELS = ("p50", "p90", "p99")
MEANING = "simulated against measured, %; latencies at p50 / p90 / p99; * is beyond the target"


def write_validation(compared: Sequence[tuple[Case, "Comparison"]], out: Path) -> None:
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
        validation_lines(entries)
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path}: not a validation as `replay validate` writes it ({error})") from error
    return entries


def validation_lines(entries: Sequence[dict[str, Any]]) -> list[str]:
    """Return the entries as aligned lines that fit 80 columns, a heading first."""
    headings = ("case", "energy", "95 %", *(latency.upper() for latency in LATENCIES))
    return [_aligned(headings), *(_aligned(_cells(entry)) for entry in entries)]


def error_percent(entry: dict[str, Any], metric: str) -> float | None:
    """Return an entry's error of a metric of `Summary`, None if there is none."""
    rows = {row["metric"]: row["error_fraction"] for row in entry["comparison"]["rows"]}
    fraction: float | None = rows[metric]
    return None if fraction is None else 100 * fraction


def margin_percent(entry: dict[str, Any]) -> float | None:
    """Return half the 95 % interval of an entry's simulated energy, None if it has none."""
    interval = entry["comparison"]["interval_j"]
    return None if interval is None else 100 * (interval[1] - interval[0]) / (interval[1] + interval[0])


def _cells(entry: dict[str, Any]) -> tuple[str, ...]:
    margin = margin_percent(entry)
    latencies = (
        "/".join(_error(entry, f"{latency}_{level}_s", latency, 1) for level in LEVELS)
        for latency in LATENCIES
    )
    energy = _error(entry, "total_energy_j", "total_energy", 2)
    return (entry["case"], energy, "-" if margin is None else f"±{margin:.1f}", *latencies)


def _error(entry: dict[str, Any], metric: str, target: str, digits: int) -> str:
    error = error_percent(entry, metric)
    if error is None:
        return "-"
    return f"{error:+.{digits}f}" + ("*" if abs(error) > 100 * TARGETS[target] else "")


def _aligned(cells: Sequence[str]) -> str:
    return f"{cells[0]:<16}{cells[1]:>7}{cells[2]:>6}" + "".join(f" {cell:>16}" for cell in cells[3:])
