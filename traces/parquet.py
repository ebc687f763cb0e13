"""A trace as a Parquet file: the project's own format."""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from traces.parquet_columns import ParquetColumns
from traces.rows import Origin, sort
from traces.source_file import SourceFile
from traces.trace import PrefixBlocks, Trace
from traces.whole_files import whole_file

ROW_GROUP_ROWS = 1 << 20
ROW_GROUP_ROWS_WITH_HASHES = 1 << 16  # offsets of hashes are 32 bits within a group
ENCODINGS = {
    "arrival_s": "BYTE_STREAM_SPLIT",
    "deadline_s": "BYTE_STREAM_SPLIT",
    "prefix_hashes.list.element": "DELTA_BINARY_PACKED",  # neighbours are often consecutive numbers
}
NEEDED = ("arrival_s", "prompt_tokens", "output_tokens")


def write_trace(trace: Trace, path: Path, *, overwrite: bool = False) -> None:
    """Write `trace` to `path`, whole or not at all.

    Args:
        trace: At least one request.
        path: Ends in `.parquet`, as a habit, not a rule.
        overwrite: Whether an existing file may be replaced.

    Raises:
        ValueError: The trace is empty, or `path` exists and may not be replaced.
    """
    if not len(trace):
        raise ValueError(f"trace {trace.name} has no requests; nothing to write to {path}")
    write_parts([trace], path, overwrite=overwrite)


def write_parts(parts: Iterable[Trace], path: Path, *, overwrite: bool = False) -> None:
    """Write a trace that comes part by part, as `write_trace` does; no two parts are in memory.

    Args:
        parts: At least one, in order; they have the same columns, and the first tells the origin of all.
        path: As for `write_trace`.
        overwrite: As for `write_trace`.

    Raises:
        ValueError: `path` exists and may not be replaced.
    """
    rest = iter(parts)
    first = next(rest)
    schema = _schema(first)
    encoded = {name: encoding for name, encoding in ENCODINGS.items() if name.split(".")[0] in schema.names}
    encoded_names = {name.split(".")[0] for name in encoded}
    options: dict[str, Any] = {
        "compression": "zstd",
        "column_encoding": encoded,
        "use_dictionary": [name for name in schema.names if name not in encoded_names],
    }
    with whole_file(path, overwrite=overwrite) as part, pq.ParquetWriter(part, schema, **options) as writer:
        rows = ROW_GROUP_ROWS if first.prefix is None else min(ROW_GROUP_ROWS, ROW_GROUP_ROWS_WITH_HASHES)
        for part_of_trace in chain([first], rest):
            for start in range(0, len(part_of_trace), rows):
                writer.write_table(_table(part_of_trace, slice(start, start + rows), schema))


def read_parquet(file: SourceFile) -> Trace:
    """Return the trace in a Parquet file.

    A file that says nothing of its origin is its own source.

    Raises:
        ValueError: The file is not whole, lacks a column, or a value breaks a rule (row and value are named).
    """
    with intact(file.path):
        parquet = pq.ParquetFile(file.path)
        return _read(file, parquet)


@contextmanager
def intact(path: Path) -> Iterator[None]:
    """Turn what reading a damaged Parquet file raises into a ValueError."""
    try:
        yield
    except (pa.ArrowInvalid, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise ValueError(f"{path}: not a whole Parquet file; get or write it again ({error})") from error


def facts_of(file: SourceFile, parquet: Any) -> Trace:
    """Return the trace in a Parquet file without its requests.

    Raises:
        ValueError: The file has no requests, or lacks a column.
    """
    names = parquet.schema_arrow.names
    for name in NEEDED:
        if name not in names:
            raise ValueError(f"{file.path}: no column {name}; it has {', '.join(names) or 'none'}")
    if not parquet.metadata.num_rows:
        raise ValueError(f"{file.path}: it has no rows; a trace needs at least 1 request")
    metadata = parquet.schema_arrow.metadata or {}
    facts = _facts(file, metadata)
    return Trace(
        name=facts.name,
        source=facts.source,
        licence=facts.licence,
        sha256=facts.sha256,
        arrival_s=np.zeros(0),
        prompt_tokens=np.zeros(0, np.int32),
        output_tokens=np.zeros(0, np.int32),
        notes=tuple(json.loads(metadata.get(b"notes", b"[]"))),
        synthetic=facts.synthetic,
    )


def _read(file: SourceFile, parquet: Any) -> Trace:
    facts = facts_of(file, parquet)
    names, metadata = parquet.schema_arrow.names, parquet.schema_arrow.metadata or {}
    reader = ParquetColumns(file.path, metadata, lambda name: parquet.read(columns=[name]).column(name))
    return sort(replace(facts, **reader.of_trace(names)))


def _facts(file: SourceFile, metadata: Mapping[bytes, bytes]) -> Origin:
    def fact(key: str) -> str | None:
        value = metadata.get(key.encode())
        return None if value is None else value.decode()

    return Origin(
        name=fact("name") or file.stem,
        source=fact("source") or f"file {file.path.name}",
        licence=fact("licence") or "unknown",
        sha256=fact("sha256") or file.sha256(),
        synthetic=fact("synthetic") == "true",
    )


def _schema(trace: Trace) -> Any:
    fields = [("arrival_s", pa.float64()), ("prompt_tokens", pa.int32()), ("output_tokens", pa.int32())]
    if trace.prefix is not None:
        fields.append(("prefix_hashes", pa.list_(pa.int64())))
    if trace.session_id is not None:
        fields.append(("session_id", pa.string()))
    if trace.is_offline is not None:
        fields.append(("request_class", pa.string()))
    if trace.deadline_s is not None:
        fields.append(("deadline_s", pa.float64()))
    facts: dict[bytes | str, bytes | str] = {
        "name": trace.name,
        "source": trace.source,
        "licence": trace.licence,
        "sha256": trace.sha256,
        "synthetic": "true" if trace.synthetic else "false",
        "notes": json.dumps(trace.notes),
    }
    if trace.prefix is not None:
        facts["block_tokens"] = str(trace.prefix.block_tokens)
    return pa.schema(
        [pa.field(name, kind, nullable=name not in NEEDED) for name, kind in fields], metadata=facts
    )


def _table(trace: Trace, rows: slice, schema: Any) -> Any:
    needed = (trace.arrival_s, trace.prompt_tokens, trace.output_tokens)
    arrays: list[Any] = [pa.array(column[rows]) for column in needed]
    if trace.prefix is not None:
        arrays.append(_lists(trace.prefix, rows))
    if trace.session_id is not None:
        arrays.append(pa.array(trace.session_id[rows].tolist(), pa.string()))
    if trace.is_offline is not None:
        classes = ["offline" if offline else "online" for offline in trace.is_offline[rows].tolist()]
        arrays.append(pa.array(classes, pa.string()))
    if trace.deadline_s is not None:
        arrays.append(pa.array(trace.deadline_s[rows], from_pandas=True))
    return pa.Table.from_arrays(arrays, schema=schema)


def _lists(prefix: PrefixBlocks, rows: slice) -> Any:
    offsets = prefix.offsets[rows.start : rows.stop + 1]
    hashes = prefix.hashes[offsets[0] : offsets[-1]]
    starts: Any = pa.array((offsets - offsets[0]).astype(np.int32))
    values: Any = pa.array(hashes)
    return pa.ListArray.from_arrays(starts, values)
