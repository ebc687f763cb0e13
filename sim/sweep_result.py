"""Results of a sweep: one file each on disk, named by the hash of its inputs, and all in one table."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pyarrow as pa
import pyarrow.parquet as pq

from sim.summary import Summary
from sim.sweep_key import Inputs, key_of
from traces.whole_files import whole_file


@dataclass(frozen=True, slots=True)
class Result:
    """One replay of a sweep: what went in, and what it came to."""

    inputs: Inputs
    summary: Summary


def path_of(inputs: Inputs, folder: Path) -> Path:
    """Return where the result of these inputs is kept."""
    return folder / f"{key_of(inputs)}.json"


def write_result(result: Result, folder: Path) -> None:
    """Keep a result, whole or not at all."""
    text = json.dumps(asdict(result), indent=1, allow_nan=False, default=str)
    with whole_file(path_of(result.inputs, folder), overwrite=True) as part:
        part.write_text(text + "\n")


def read_result(inputs: Inputs, folder: Path) -> Result | None:
    """Return the result of these inputs, None if there is none yet.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is damaged.
    """
    path = path_of(inputs, folder)
    if not path.exists():
        return None
    try:
        values = json.loads(path.read_text())
        summary = {name: _frozen(value) for name, value in values["summary"].items()}
        kept = Result(values["inputs"], Summary(**summary))
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: not a whole result ({error})") from error
    if key_of(kept.inputs) != path.stem:
        raise ValueError(f"{path}: not the result of its inputs")
    return kept


def write_table(results: Sequence[Result], marks: Sequence[dict[str, Any]], path: Path) -> None:
    """Write a Parquet file of one row a result: inputs, then `Summary`'s fields, then `marks`.

    Args:
        results: At least one.
        marks: Further columns of each result, of the same names.
        path: An existing file is replaced.
    """
    inputs = list(dict.fromkeys(name for result in results for name in result.inputs))
    columns = {name: _column([result.inputs.get(name) for result in results]) for name in inputs}
    types = get_type_hints(Summary)
    for name in (field.name for field in fields(Summary)):
        values = [getattr(result.summary, name) for result in results]
        columns[name] = pa.array(values, pa.float64()) if float in get_args(types[name]) else pa.array(values)
    columns |= {name: pa.array([mark[name] for mark in marks]) for name in marks[0]}
    with whole_file(path, overwrite=True) as part:
        pq.write_table(pa.table(columns), part)


def _column(values: list[Any]) -> Any:
    """Return a column of an input; what policies give different types is text."""
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.array([None if value is None else str(value) for value in values])


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
