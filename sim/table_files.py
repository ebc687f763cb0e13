"""Cost tables on disk: `table.json` in a folder, beside the raw points that it was fitted to."""

import json
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from sim.host_time import HostTime
from sim.step_cost import Coefficients
from sim.table import CostTable

DEFAULT = "h200-llama-3.1-8b-bf16"
"""The table used when none is named."""

FORMAT = 1
TABLE_FILE = "table.json"


def shipped() -> Iterator[str]:
    """Yield the names of the tables that ship with the project."""
    folder = _shipped_folder()
    yield from sorted(path.parent.name for path in folder.glob(f"*/{TABLE_FILE}"))


def load_table(name_or_path: str) -> CostTable:
    """Return a shipped table by name, or any table by its folder or file.

    Raises:
        ValueError: There is no such table, or its file is not a table.
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
    try:
        return table_from_json(json.loads(path.read_text()))
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: not a cost table ({error!r}); make one with `replay calibrate`") from error


def save_table(table: CostTable, folder: Path) -> None:
    """Write `table.json` into a folder."""
    (folder / TABLE_FILE).write_text(json.dumps(table_to_json(table), indent=1) + "\n")


def table_to_json(table: CostTable) -> dict[str, Any]:
    """Return the table as plain JSON values."""
    values = {field.name: getattr(table, field.name) for field in fields(table)}
    values["coefficients"] = {name: _plain(value) for name, value in table.coefficients._asdict().items()}
    values["host"] = table.host._asdict()
    return {"format": FORMAT, **values}


def table_from_json(values: dict[str, Any]) -> CostTable:
    """Return the table that `table_to_json` wrote.

    Raises:
        ValueError: It is of another format.
        KeyError, TypeError: Something is missing or too much.
    """
    if values.get("format") != FORMAT:
        raise ValueError(
            f"a cost table of format {values.get('format')!r}; this version reads format {FORMAT}"
        )
    columns = {field.name: values[field.name] for field in fields(CostTable)}
    numbers = {name: _number(name, value) for name, value in values["coefficients"].items()}
    columns["coefficients"] = Coefficients(**numbers)
    columns["host"] = HostTime(**values["host"])
    return CostTable(**columns)


def _number(name: str, value: Any) -> Any:
    if isinstance(value, list):
        return np.array(value, dtype=np.int64 if name == "padded" else np.float64)
    return float(value)


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else value


def _shipped_folder() -> Path:
    return Path(__file__).parent / "tables"
