"""A trace too long for memory: a Parquet file read stretch by stretch."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from traces.parquet import facts_of, intact
from traces.parquet_columns import ParquetColumns
from traces.reading import PARQUET_MAGIC
from traces.source_file import SourceFile, open_source
from traces.trace import Floats, Trace

LONG_REQUESTS = 1 << 22
COLUMNS = ("arrival_s", "prompt_tokens", "output_tokens", "request_class")


class LongTrace:
    """A trace in a Parquet file of the project's own format, sorted by arrival.

    Attributes:
        facts: The trace without its requests.
        requests: How many it has.
        has_hashes: Whether it tells of equal prefixes, which are not read here.
    """

    def __init__(self, file: SourceFile) -> None:
        """Look into the file.

        Raises:
            ValueError: It is not whole or lacks a column.
        """
        self._path = file.path
        with intact(file.path):
            self._parquet: Any = pq.ParquetFile(file.path)
        self.facts = facts_of(file, self._parquet)
        self.requests: int = self._parquet.metadata.num_rows
        self.has_hashes = "prefix_hashes" in self._parquet.schema_arrow.names

    def arrivals(self) -> Floats:
        """Return all arrival times, shape (requests,).

        Raises:
            ValueError: One is not a time, or before that of the row above.
        """
        arrival_s = self._columns(self._parquet.read(columns=["arrival_s"]), 0).times("arrival_s")
        early = np.flatnonzero(arrival_s[1:] < arrival_s[:-1])
        if len(early):
            raise ValueError(
                f"{self._path}, row {early[0] + 1}: arrival_s is before that of the row above; "
                "sort the trace by `replay trace convert`"
            )
        return arrival_s

    def parts(self, requests: int) -> Iterator[Trace]:
        """Yield the trace, so many requests at a time.

        Raises:
            ValueError: A value breaks a rule.
        """
        names = [name for name in COLUMNS if name in self._parquet.schema_arrow.names]
        first_row = 0
        for batch in self._parquet.iter_batches(batch_size=requests, columns=names):
            columns = self._columns(pa.Table.from_batches([batch]), first_row)
            yield replace(
                self.facts,
                arrival_s=columns.times("arrival_s"),
                prompt_tokens=columns.counts("prompt_tokens"),
                output_tokens=columns.counts("output_tokens"),
                is_offline=columns.is_offline() if "request_class" in names else None,
            )
            first_row += len(batch)

    def _columns(self, table: Any, first_row: int) -> ParquetColumns:
        return ParquetColumns(self._path, {}, table.column, first_row)


def open_long(path: Path) -> LongTrace | None:
    """Return the trace at `path` to be read stretch by stretch, None if it is short or of another format.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is not whole.
    """
    file = open_source(path)
    if file.is_gzip or not file.head.startswith(PARQUET_MAGIC):
        return None
    trace = LongTrace(file)
    return trace if trace.requests >= LONG_REQUESTS else None
