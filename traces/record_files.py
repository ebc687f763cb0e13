"""A run on disk: a folder with run.json, requests.parquet and power.parquet, there whole or not at all."""

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, asdict, fields
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from traces.record import STATUS_NAMES, EnergySplit, Footprint, Meta, Outcomes, Power, ReplicaUse, Run
from traces.whole_files import ensure_free, whole_folder

FORMAT = 1
COMPRESSION: Final = "zstd"
META_FILE, OUTCOMES_FILE, POWER_FILE = "run.json", "requests.parquet", "power.parquet"
TIMES = ("arrival_s", "released_s", "first_token_s", "finished_s", "energy_j")
COUNTS = ("prompt_tokens", "output_tokens")
REPLICAS = ("replica", "prefill_replica")


def write_run(
    run: Run,
    directory: Path,
    *,
    overwrite: bool = False,
    attachments: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """Write `run` to the folder `directory`, whole or not at all.

    Args:
        run: Its NaN times become null, its None facts null; nothing missing becomes 0.
        directory: Must not exist, unless it is a run record and may be overwritten.
        overwrite: Whether a run record that lies there may be replaced.
        attachments: Columns of further tables, by table; each becomes a Parquet file of that name.

    Raises:
        ValueError: `directory` exists and may not be replaced, or the folder above it is missing.
    """
    with new_record(directory, overwrite=overwrite) as record:
        record.add(run.outcomes)
        record.finish(run.meta, run.power, attachments)


@contextmanager
def new_record(directory: Path, *, overwrite: bool = False) -> Iterator["RecordWriter"]:
    """Give a writer of the record `directory`, which is there whole when the block ends, or not at all.

    Raises:
        ValueError: As `write_run` does.
    """
    ensure_record_free(directory, overwrite=overwrite)
    with whole_folder(directory, overwrite=overwrite) as part:
        writer = RecordWriter(part)
        try:
            yield writer
        finally:
            writer.close()


class RecordWriter:
    """Writes a run part by part: the outcomes of the next requests as often as one likes, then the rest."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._outcomes: Any = None

    def add(self, outcomes: Outcomes) -> None:
        """Write what became of the next requests; the first part says which columns there are."""
        table = _outcomes_table(outcomes)
        if self._outcomes is None:
            path = self._folder / OUTCOMES_FILE
            self._outcomes = pq.ParquetWriter(path, table.schema, compression=COMPRESSION)
        self._outcomes.write_table(table)

    def finish(
        self, meta: Meta, power: Power, attachments: Mapping[str, Mapping[str, Any]] | None = None
    ) -> None:
        """Write all but the outcomes."""
        facts = {"format": FORMAT, **_without_nan(asdict(meta))}
        (self._folder / META_FILE).write_text(json.dumps(facts, indent=2, allow_nan=False) + "\n")
        _write(self._folder / POWER_FILE, _table({"time_s": power.time_s, "energy_j": power.energy_j}))
        for name, columns in (attachments or {}).items():
            _write(self._folder / f"{name}.parquet", _table(dict(columns)))

    def close(self) -> None:
        """Close the file of outcomes."""
        if self._outcomes is not None:
            self._outcomes.close()


def ensure_record_free(directory: Path, *, overwrite: bool = False) -> None:
    """Refuse a folder that `write_run` would refuse, before the run that would be lost.

    Raises:
        ValueError: `directory` exists and is no run record that may be replaced, or its parent is missing.
    """
    ensure_free(directory, overwrite=overwrite)
    if directory.exists() and not (directory / META_FILE).is_file():
        raise ValueError(f"{directory}: exists and is no run record; choose another name")


def read_run(directory: Path) -> Run:
    """Return the run in the folder `directory`.

    Raises:
        OSError: A file of it cannot be read.
        ValueError: A file is damaged, of another version, or they do not fit together.
    """
    if not (directory / META_FILE).exists():
        raise FileNotFoundError(f"{directory}: no run; give the folder of one, which has {META_FILE}")
    meta = _read_meta(directory / META_FILE)
    requests = _read(directory / OUTCOMES_FILE)
    power = _read(directory / POWER_FILE)
    if len(requests) != meta.requests:
        raise ValueError(
            f"{directory}: {META_FILE} tells of {meta.requests:,} requests, {OUTCOMES_FILE} has "
            f"{len(requests):,}; the record has been changed by hand"
        )
    status = requests.column("status").to_pylist()
    unknown = set(status) - set(STATUS_NAMES)
    if unknown:
        raise ValueError(
            f"{directory / OUTCOMES_FILE}: no status {unknown.pop()!r}; there are {STATUS_NAMES}"
        )
    times = {name: _floats(requests, name) for name in TIMES}
    counts = {name: requests.column(name).to_numpy().astype(np.int32) for name in COUNTS}
    outcomes = Outcomes(
        request_id=requests.column("request_id").to_numpy().astype(np.int64),
        status=np.array([STATUS_NAMES.index(one) for one in status], dtype=np.uint8),
        **times,
        **counts,
        **{name: requests.column(name).to_numpy() for name in REPLICAS if name in requests.column_names},
    )
    return Run(meta, outcomes, Power(_floats(power, "time_s"), _floats(power, "energy_j")))


def read_attachment(directory: Path, name: str) -> dict[str, Any] | None:
    """Return the columns of a further table of the run in `directory`, None if it has no such table.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is damaged.
    """
    path = directory / f"{name}.parquet"
    if not path.exists():
        return None
    table = _read(path)
    return {column: table.column(column).to_numpy() for column in table.column_names}


def _outcomes_table(outcomes: Outcomes) -> Any:
    columns = {field.name: getattr(outcomes, field.name) for field in fields(outcomes)}
    known = {name: values for name, values in columns.items() if values is not None}
    status: Any = pa.DictionaryArray.from_arrays(outcomes.status, np.array(STATUS_NAMES))
    return _table({**known, "status": status.cast(pa.string())})


def _table(columns: dict[str, Any]) -> Any:
    return pa.table({name: pa.array(values, from_pandas=True) for name, values in columns.items()})


def _write(path: Path, table: Any) -> None:
    pq.write_table(table, path, compression=COMPRESSION)


def _read(path: Path) -> Any:
    try:
        return pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise ValueError(f"{path}: not a whole Parquet file ({error})") from error


def _floats(table: Any, name: str) -> Any:
    if name not in table.column_names:
        raise ValueError(f"no column {name} in the run record; it has {', '.join(table.column_names)}")
    return table.column(name).cast(pa.float64()).to_numpy()


def _read_meta(path: Path) -> Meta:
    try:
        facts = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not whole JSON ({error})") from error
    version = facts.pop("format", None) if isinstance(facts, dict) else None
    if version != FORMAT:
        raise ValueError(f"{path}: its format is {version!r}, this version of replay reads {FORMAT}")
    names = {field.name for field in fields(Meta)}
    required = {field.name for field in fields(Meta) if field.default is MISSING}
    wrong = (facts.keys() - names) | (required - facts.keys())
    if wrong:
        raise ValueError(f"{path}: fields {', '.join(sorted(wrong))} are missing or not known")
    facts["energy"] = None if facts["energy"] is None else EnergySplit(**facts["energy"])
    for name in ("invalid_reasons", "notes"):
        facts[name] = tuple(facts.get(name, ()))
    if facts.get("energy_interval_j") is not None:
        facts["energy_interval_j"] = tuple(facts["energy_interval_j"])
    if facts.get("footprint") is not None:
        facts["footprint"] = Footprint(**facts["footprint"])
    facts["replicas"] = tuple(ReplicaUse(**one) for one in facts.get("replicas", ()))
    return Meta(**facts)


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(one) for one in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and math.isnan(value) else value
