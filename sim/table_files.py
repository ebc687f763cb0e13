"""Cost tables on disk: `table.json` in a folder, beside the raw points that it was fitted to."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np

from sim.host_time import HostTime
from sim.prediction import SPREADS
from sim.step_cost import Coefficients
from sim.table import CostTable, PowerState
from traces.whole_files import whole_file

DEFAULT = "h200-llama-3.1-8b-bf16"
"""The table used when none is named."""

FORMAT = 5
OLDER_FORMAT = 4
NOT_IN_OLDER = {"beyond_mean": 0.0, "resting": 1.0}
"""Coefficients that tables of the older format lack, with the values that give what they gave."""

TABLE_FILE = "table.json"
STATES = ("sleep-1", "sleep-2", "off")
SCALARS = ("gpus", "power_limit_w", "bare_idle_w")


def shipped() -> Iterator[str]:
    """Yield the names of the tables that ship with the project."""
    folder = _shipped_folder()
    yield from sorted(path.parent.name for path in folder.glob(f"*/{TABLE_FILE}"))


def find_table(name_or_path: str) -> Path:
    """Return the file of a shipped table by name, or of any table by its folder or file.

    Raises:
        ValueError: There is no such table.
    """
    path = Path(name_or_path)
    if path.is_dir():
        path /= TABLE_FILE
    if not path.is_file():
        path = _shipped_folder() / name_or_path / TABLE_FILE
    if not path.is_file():
        raise ValueError(
            f"no table {name_or_path!r}; there are {', '.join(shipped())}, "
            f"or give the folder of a calibration"
        )
    return path


def load_table(name_or_path: str) -> CostTable:
    """Return a shipped table by name, or any table by its folder or file.

    Raises:
        ValueError: There is no such table, or its file is not a table.
    """
    path = find_table(name_or_path)
    try:
        return table_from_json(json.loads(path.read_text()))
    except ValueError as error:
        raise ValueError(f"{path}: not a cost table: {error}; make one with `replay calibrate`") from error


def save_table(table: CostTable, folder: Path) -> None:
    """Write `table.json` into a folder, over one that is there."""
    with whole_file(folder / TABLE_FILE, overwrite=True) as part:
        part.write_text(json.dumps(table_to_json(table), indent=1, allow_nan=False) + "\n")


def table_to_json(table: CostTable) -> dict[str, Any]:
    """Return the table as plain JSON values; a cap that there is not is null."""
    values = {field.name: getattr(table, field.name) for field in fields(table)}
    values["coefficients"] = {name: _plain(value) for name, value in table.coefficients._asdict().items()}
    values["host"] = table.host._asdict()
    values["states"] = {name: asdict(state) for name, state in table.states.items()}
    return {"format": FORMAT, **values}


def table_from_json(values: Any) -> CostTable:
    """Return the table that `table_to_json` wrote.

    Raises:
        ValueError: It is of another format, or something is missing, too much or no number.
    """
    if not isinstance(values, dict):
        raise ValueError(f"it holds {type(values).__name__}, not an object")
    if values.get("format") not in (OLDER_FORMAT, FORMAT):
        reads = f"{OLDER_FORMAT} and {FORMAT}"
        raise ValueError(f"its format is {values.get('format')!r}, this version reads {reads}")
    columns = _named(
        {"states": {}, **values}, "the table", ["format", *(field.name for field in fields(CostTable))]
    )
    del columns["format"]
    given = columns["coefficients"]
    if values["format"] == OLDER_FORMAT and isinstance(given, dict):
        given = {**NOT_IN_OLDER, **given}
    numbers = _named(given, "coefficients", Coefficients._fields)
    host = _named(columns["host"], "host", HostTime._fields)
    for name, value in [*host.items(), *((name, columns[name]) for name in SCALARS)]:
        if not isinstance(value, int | float) or not np.isfinite(value):
            raise ValueError(f"{name} must be a finite number, got {value!r}")
    columns["coefficients"] = Coefficients(**{name: _number(name, value) for name, value in numbers.items()})
    columns["host"] = HostTime(**host)
    columns["states"] = {name: _state(name, state) for name, state in columns["states"].items()}
    _check_shapes(columns["coefficients"])
    _check_spread(columns["meta"])
    return CostTable(**columns)


def _named(values: Any, what: str, names: Sequence[str]) -> dict[str, Any]:
    """Return `values` if it has these names and no others."""
    there = set(values) if isinstance(values, dict) else set()
    missing, unknown = sorted(set(names) - there), sorted(there - set(names))
    if missing or unknown:
        raise ValueError(f"{what} has " + (f"no {missing[0]}" if missing else f"an unknown {unknown[0]}"))
    return dict(values)


def _number(name: str, value: Any) -> Any:
    """Return a coefficient: a number, or an array where it is one."""
    if name == "cap_w" and value is None:
        return np.inf
    is_scalar = Coefficients.__annotations__[name] is float
    try:
        number = np.array(value, dtype=np.int64 if name == "padded" else np.float64)
    except (TypeError, ValueError):
        number = np.array(np.nan)
    if number.ndim != (0 if is_scalar else 1) or not np.isfinite(number).all():
        kind = "a finite number" if is_scalar else "a list of finite numbers"
        raise ValueError(f"{name} must be {kind}, got {value!r}")
    return float(number) if is_scalar else number


def _check_shapes(c: Coefficients) -> None:
    lengths = {"linear_s": len(c.knots), "linear_j": len(c.knots), "limits": 4}
    lengths |= {"prompt_s": len(c.prompt_knots), "prompt_j": len(c.prompt_knots)}
    pairs = ("per_chunk", "per_pair", "per_seq", "per_kv", "per_kv_mixed")
    lengths |= dict.fromkeys(pairs, 2)
    for name, length in lengths.items():
        if len(getattr(c, name)) != length:
            raise ValueError(f"{name} must hold {length} numbers, got {len(getattr(c, name))}")
    for name, knots in (("knots", c.knots), ("prompt_knots", c.prompt_knots)):
        if len(knots) < 2 or (np.diff(knots) <= 0).any():
            raise ValueError(f"{name} must be at least 2 and ascend, got {knots.tolist()}")


def _state(name: str, values: Any) -> PowerState:
    if name not in STATES:
        raise ValueError(f"it has an unknown state {name}; there are {', '.join(STATES)}")
    numbers = _named(values, f"state {name}", [field.name for field in fields(PowerState)])
    for number, value in numbers.items():
        if not isinstance(value, int | float) or not 0 <= value < np.inf:
            raise ValueError(f"state {name}: {number} must be a finite number >= 0, got {value!r}")
    return PowerState(**numbers)


def _check_spread(meta: dict[str, Any]) -> None:
    if "spread" not in meta:
        return
    for name, value in _named(meta["spread"], "spread", SPREADS).items():
        if not isinstance(value, int | float) or not 0 <= value < np.inf:
            raise ValueError(f"spread {name} must be a finite number >= 0, got {value!r}")


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    return None if value == np.inf else value


def _shipped_folder() -> Path:
    return Path(__file__).parent / "tables"
