"""Columns of a Parquet trace, read one at a time and checked."""

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from traces.rows import LARGEST_COUNT
from traces.trace import Counts, Floats, PrefixBlocks


class ParquetColumns:
    """Columns of a Parquet file, each read when asked for; a value that breaks a rule is a ValueError."""

    def __init__(
        self, path: Path, metadata: Mapping[bytes, bytes], read: Callable[[str], Any], first_row: int = 0
    ) -> None:
        """Take what tells about columns.

        Args:
            path: The file, for messages.
            metadata: The file's.
            read: Returns the column of a name, of the whole file or of some rows.
            first_row: Row of the first value, for messages.
        """
        self._path = path
        self._metadata = metadata
        self._column = read
        self._first_row = first_row

    def of_trace(self, names: Collection[str]) -> dict[str, Any]:
        """Return the columns of a trace by the names of its fields, None for those not among `names`."""
        return {
            "arrival_s": self.times("arrival_s"),
            "prompt_tokens": self.counts("prompt_tokens"),
            "output_tokens": self.counts("output_tokens"),
            "prefix": self.prefix() if "prefix_hashes" in names else None,
            "session_id": self.texts("session_id") if "session_id" in names else None,
            "is_offline": self.is_offline() if "request_class" in names else None,
            "deadline_s": self.times("deadline_s", optional=True) if "deadline_s" in names else None,
        }

    def times(self, name: str, *, optional: bool = False) -> Floats:
        """Return seconds of at least 0, NaN for what is missing where it is optional."""
        column = self._numbers(name)
        if not optional:
            self._whole(column, name)
        values: Floats = column.cast(pa.float64()).to_numpy()
        known = np.isfinite(values) & (values >= 0)
        self._demand(known | np.isnan(values) if optional else known, values, name, "a number of at least 0")
        return values

    def counts(self, name: str) -> Counts:
        """Return whole numbers of at least 1."""
        column = self._numbers(name)
        self._whole(column, name)
        values: NDArray[Any] = column.to_numpy()
        rule = f"a whole number from 1 to {LARGEST_COUNT:,}"
        holds = (values >= 1) & (values <= LARGEST_COUNT)
        if values.dtype.kind == "f":
            holds &= np.floor(values) == values
        self._demand(holds, values, name, rule)
        return values.astype(np.int32)

    def prefix(self) -> PrefixBlocks:
        """Return the block hashes, of as many tokens each as the file's metadata says."""
        column = self._column("prefix_hashes")
        tokens = self._metadata.get(b"block_tokens")
        if tokens is None or not tokens.isdigit() or int(tokens) < 1:
            raise ValueError(
                f"{self._path}: prefix_hashes need block_tokens in the file's metadata, a whole number of at "
                f"least 1, got {tokens!r}; write there how many tokens a hash stands for"
            )
        lists = column.combine_chunks()
        hashes = lists.flatten().to_numpy(zero_copy_only=False).astype(np.int64, copy=False)
        lengths = lists.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
        return PrefixBlocks(hashes, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64), int(tokens))

    def texts(self, name: str) -> NDArray[np.object_]:
        """Return strings, None for what is missing."""
        values = self._column(name).cast(pa.string()).to_pylist()
        return np.array(values, dtype=object)

    def is_offline(self) -> NDArray[np.bool_]:
        """Return where the request class is `offline`; it must be given."""
        values = self.texts("request_class")
        known = np.array([value in ("online", "offline") for value in values])
        self._demand(known, values, "request_class", "online or offline")
        offline: NDArray[np.bool_] = values == "offline"
        return offline

    def _numbers(self, name: str) -> Any:
        column = self._column(name)
        if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
            raise ValueError(f"{self._path}: column {name} must hold numbers, it holds {column.type}")
        return column

    def _whole(self, column: Any, name: str) -> None:
        if column.null_count:
            row = self._first_row + column.is_null().to_numpy().argmax()
            raise ValueError(f"{self._path}, row {row}: {name} must be given, but is missing")

    def _demand(self, holds: NDArray[np.bool_], values: Any, name: str, rule: str) -> None:
        if not holds.all():
            place = int(np.argmin(holds))
            row = self._first_row + place
            raise ValueError(f"{self._path}, row {row}: {name} must be {rule}, got {values[place]}")
