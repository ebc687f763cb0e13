"""A trace as a pandas DataFrame, and back."""

from hashlib import sha256
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from traces.parquet import NEEDED
from traces.parquet_columns import ParquetColumns
from traces.rows import sort
from traces.trace import Trace

OPTIONAL = ("prefix_hashes", "session_id", "request_class", "deadline_s")


def to_frame(trace: Trace) -> pd.DataFrame:
    """Return the requests as rows, with a column for all that the trace has; its origin is in `attrs`."""
    columns: dict[str, Any] = {name: getattr(trace, name) for name in NEEDED}
    if trace.prefix is not None:
        columns["prefix_hashes"] = [list(trace.prefix.of(row)) for row in range(len(trace))]
    if trace.session_id is not None:
        columns["session_id"] = trace.session_id
    if trace.is_offline is not None:
        columns["request_class"] = ["offline" if offline else "online" for offline in trace.is_offline]
    if trace.deadline_s is not None:
        columns["deadline_s"] = trace.deadline_s
    frame = pd.DataFrame(columns)
    frame.attrs.update(name=trace.name, source=trace.source, licence=trace.licence, notes=trace.notes)
    if trace.prefix is not None:
        frame.attrs["block_tokens"] = trace.prefix.block_tokens
    return frame


def from_frame(frame: pd.DataFrame) -> Trace:
    """Return the trace whose requests are the rows of `frame`, sorted by arrival; its index means nothing.

    Args:
        frame: Columns arrival_s, prompt_tokens and output_tokens, and any of the others that `to_frame`
            makes. `attrs` may tell name, source, licence and, for prefix_hashes, block_tokens.

    Raises:
        ValueError: A column is missing, there are no rows, or a value breaks a rule (both are named).
    """
    for name in NEEDED:
        if name not in frame.columns:
            raise ValueError(
                f"the DataFrame has no column {name}; it has {', '.join(map(str, frame.columns))}"
            )
    if frame.empty:
        raise ValueError("the DataFrame has no rows; a trace needs at least 1 request")
    metadata = {b"block_tokens": str(frame.attrs.get("block_tokens", "")).encode()}
    reader = ParquetColumns(Path("the DataFrame"), metadata, lambda name: _arrow(frame, name))
    trace = Trace(
        name=frame.attrs.get("name", "frame"),
        source=frame.attrs.get("source", "a DataFrame"),
        licence=frame.attrs.get("licence", "unknown"),
        sha256=_hash(frame),
        notes=tuple(frame.attrs.get("notes", ())),
        **reader.of_trace(frame.columns),
    )
    return sort(trace)


def _arrow(frame: pd.DataFrame, name: str) -> Any:
    try:
        return pa.chunked_array([pa.Array.from_pandas(frame[name])])
    except pa.ArrowException as error:
        raise ValueError(f"the DataFrame's column {name} holds values of several kinds ({error})") from error


def _hash(frame: pd.DataFrame) -> str:
    """Return the SHA-256 of the columns that make a trace, hex."""
    own = frame[[*NEEDED, *(name for name in OPTIONAL if name in frame)]]
    return sha256(own.to_csv(index=False).encode()).hexdigest()
