"""Rows of a CSV file, read block by block and checked cell by cell."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import csv

from traces.cells import CellError, is_zoned, nanoseconds, seconds, whole_numbers
from traces.csv_format import CsvFormat
from traces.growing import GrowingColumn
from traces.rows import LARGEST_COUNT, Rows, left_out_notes
from traces.source_file import SourceFile

BLOCK_BYTES = 1 << 22


class _Columns:
    """Columns so far."""

    def __init__(self, form: CsvFormat) -> None:
        self.ticks = GrowingColumn(np.int64 if form.clock == "calendar" else np.float64)
        self.prompt = GrowingColumn(np.int32)
        self.output = GrowingColumn(np.int32)
        self.session = GrowingColumn(np.object_)
        self.offline = GrowingColumn(np.bool_)
        self.deadline = GrowingColumn(np.float64)
        self.left_out = 0


def read_header(file: SourceFile) -> list[str]:
    """Return the column names in the first line of `file`."""
    line = file.head.split(b"\n", 1)[0].decode("utf-8-sig", errors="replace").strip()
    return [name.strip().strip('"') for name in line.split(",")]


def read_csv(file: SourceFile, form: CsvFormat, *, leave_out_zero: bool = False) -> Rows:
    """Return the rows of a CSV file, read block by block.

    Args:
        file: Of the format `form`.
        form: What its columns mean.
        leave_out_zero: Leave out and count rows with zero tokens, whatever the format.

    Raises:
        ValueError: A cell breaks a rule (line and value are named), the file breaks off or has no requests.
    """
    columns = _Columns(form)
    drops = leave_out_zero or form.zero_is_failure
    zoned: bool | None = None
    rows_before = 0
    for batch in _batches(file, form):
        try:
            if zoned is None and len(batch):
                zoned = is_zoned(batch.column(form.time)[0].as_py())
            _append(columns, batch, form, bool(zoned), drops)
        except CellError as bad:
            line = _line_of_row(file, rows_before + bad.row)
            raise ValueError(f"{file.path}, line {line}: {bad.rule}") from None
        rows_before += len(batch)
    if not len(columns.ticks):
        what = (
            f"no row of {columns.left_out:,} has tokens" if columns.left_out else "no rows after the header"
        )
        raise ValueError(f"{file.path}: {what}; a trace needs at least 1 request")
    return Rows(
        ticks=columns.ticks.take(),
        ticks_per_s=1e9 if form.clock == "calendar" else 1.0,
        is_calendar=form.clock == "calendar",
        prompt_tokens=columns.prompt.take(),
        output_tokens=columns.output.take(),
        session_id=columns.session.take() if len(columns.session) else None,
        is_offline=columns.offline.take() if len(columns.offline) else None,
        deadline_s=columns.deadline.take() if len(columns.deadline) else None,
        notes=left_out_notes(columns.left_out, form.zero_is_failure),
    )


def _batches(file: SourceFile, form: CsvFormat) -> Iterator[Any]:
    header = read_header(file)
    for name in form.needs:
        if name not in header:
            raise ValueError(f"{file.path}: no column {name}; it has {', '.join(header)}")
    if not file.head.partition(b"\n")[2].strip():
        return
    optional = (form.session, form.request_class, form.deadline)
    wanted = [form.time, form.prompt, form.output, *(name for name in optional if name in header)]
    with file.open() as stream:
        try:
            yield from csv.open_csv(
                stream,
                read_options=csv.ReadOptions(block_size=BLOCK_BYTES, column_names=header, skip_rows=1),
                convert_options=csv.ConvertOptions(
                    include_columns=wanted, column_types=dict.fromkeys(wanted, pa.string())
                ),
            )
        except (pa.ArrowInvalid, pa.ArrowKeyError) as error:
            raise ValueError(f"{file.path}: not a readable CSV file: {error}") from error


def _append(columns: _Columns, batch: Any, form: CsvFormat, zoned: bool, drops: bool) -> None:
    ticks, prompt, output = (
        _cells(batch, form.time, lambda texts: _ticks(texts, form, zoned)),
        _cells(batch, form.prompt, lambda texts: whole_numbers(texts, LARGEST_COUNT)),
        _cells(batch, form.output, lambda texts: whole_numbers(texts, LARGEST_COUNT)),
    )
    keep = (prompt > 0) & (output > 0)
    if not drops and not keep.all():
        row = int(np.argmin(keep))
        column = form.prompt if prompt[row] == 0 else form.output
        way_out = "leave such rows out with `replay trace convert --leave-out-zero`"
        raise CellError(row, f"{column} must be at least 1, got 0; {way_out}")
    columns.left_out += len(keep) - int(np.count_nonzero(keep))
    columns.ticks.extend(ticks[keep])
    columns.prompt.extend(prompt[keep])
    columns.output.extend(output[keep])
    names = batch.schema.names
    if form.session and form.session in names:
        columns.session.extend(_sessions(batch.column(form.session))[keep])
    if form.request_class and form.request_class in names:
        columns.offline.extend(_cells(batch, form.request_class, _offline)[keep])
    if form.deadline and form.deadline in names:
        columns.deadline.extend(_cells(batch, form.deadline, _deadlines)[keep])


def _cells(batch: Any, column: str, parse: Any) -> NDArray[Any]:
    try:
        values: NDArray[Any] = parse(batch.column(column))
    except CellError as bad:
        raise CellError(bad.row, f"{column} {bad.rule}") from None
    return values


def _ticks(texts: Any, form: CsvFormat, zoned: bool) -> NDArray[Any]:
    return nanoseconds(texts, zoned) if form.clock == "calendar" else seconds(texts)


def _sessions(texts: Any) -> NDArray[np.object_]:
    return np.array([text or None for text in texts.to_pylist()], dtype=object)


def _offline(texts: Any) -> NDArray[np.bool_]:
    values = texts.to_pylist()
    for row, value in enumerate(values):
        if value not in ("online", "offline"):
            raise CellError(row, f"must be online or offline, got {value!r}")
    return np.array([value == "offline" for value in values])


def _deadlines(texts: Any) -> NDArray[np.float64]:
    given = np.array([bool(text) for text in texts.to_pylist()])
    values = np.full(len(given), np.nan)
    where = np.flatnonzero(given)
    try:
        values[where] = seconds(texts.take(pa.array(where)))
    except CellError as bad:
        raise CellError(int(where[bad.row]), bad.rule) from None
    return values


def _line_of_row(file: SourceFile, row: int) -> int:
    """Return the line of data row `row`, counted from 1, blank lines included."""
    with file.open() as stream:
        filled = (number for number, line in enumerate(stream, start=1) if line.strip())
        return next(islice(filled, row + 1, None))
