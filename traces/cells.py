"""Cells of a CSV column: from text to numbers, exactly, many at a time."""

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from traces.trace import Floats, Ints

ZONE = re.compile(r"(Z|[+-]\d\d(:?\d\d)?)$")


class CellError(Exception):
    """A cell that breaks a rule.

    Attributes:
        row: Its place in the column given.
        rule: What it must be and what it is.
    """

    def __init__(self, row: int, rule: str) -> None:
        super().__init__(rule)
        self.row = row
        self.rule = rule


def whole_numbers(texts: Any, largest: int) -> Ints:
    """Return a column of text as whole numbers; `12.0` is whole, and 0 is left to the format.

    Raises:
        CellError: One is missing, no number, not whole, negative or too large.
    """
    try:
        values: Ints = texts.cast(pa.int64()).to_numpy(zero_copy_only=False)
    except pa.ArrowInvalid:
        values = np.array(_each(texts, lambda text: _whole(text, largest)), dtype=np.int64)
    _demand(texts, (values >= 0) & (values <= largest), f"must be a whole number from 1 to {largest:,}")
    return values


def seconds(texts: Any) -> Floats:
    """Return a column of text as seconds, each the float nearest to what is written.

    Raises:
        CellError: One is missing, no number, not finite or negative.
    """
    rule = "must be a number of seconds of at least 0"
    try:
        values: Floats = texts.cast(pa.float64()).to_numpy(zero_copy_only=False)
    except pa.ArrowInvalid:
        values = np.array(_each(texts, lambda text: _number(text, rule)), dtype=np.float64)
    _demand(texts, np.isfinite(values) & (values >= 0), rule)
    return values


def nanoseconds(texts: Any, zoned: bool) -> Ints:
    """Return a column of ISO 8601 dates and times as whole nanoseconds since 1970, UTC.

    Fractions may have 0 to 9 digits, and differ from row to row.

    Args:
        texts: The column.
        zoned: Whether each time ends in `Z` or an offset; if not, it is taken as UTC and none may.

    Raises:
        CellError: One is no such time.
    """
    kind: Any = pa.timestamp("ns", tz="UTC") if zoned else pa.timestamp("ns")
    try:
        return _instants(texts, kind)
    except pa.ArrowInvalid:
        expected = "with a zone, as in the first row" if zoned else "without a zone, as in the first row"
        for row, text in enumerate(texts.to_pylist()):
            try:
                _instants(pa.array([text], pa.string()), kind)
            except pa.ArrowInvalid:
                raise CellError(row, f"must be a date and time {expected}, got {text!r}") from None
        raise


def is_zoned(text: str) -> bool:
    """Return whether a date and time ends in `Z` or an offset from UTC."""
    return ZONE.search(text.strip()) is not None


def _instants(texts: Any, kind: Any) -> Ints:
    values: Ints = texts.cast(kind).cast(pa.int64()).to_numpy(zero_copy_only=False)
    return values


def _each(texts: Any, parse: Callable[[str], float]) -> list[float]:
    values = []
    for row, text in enumerate(texts.to_pylist()):
        try:
            values.append(parse(text.strip()))
        except ValueError as error:
            raise CellError(row, str(error)) from None
    return values


def _number(text: str, rule: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{rule}, got {text!r}" if text else f"{rule}, but is missing") from None


def _whole(text: str, largest: int) -> float:
    rule = f"must be a whole number from 1 to {largest:,}"
    value = _number(text, rule)
    if not math.isfinite(value) or value != int(value):
        raise ValueError(f"{rule}, got {text!r}")
    return int(value)


def _demand(texts: Any, holds: NDArray[np.bool_], rule: str) -> None:
    if not holds.all():
        row = int(np.argmin(holds))
        raise CellError(row, f"{rule}, got {texts[row].as_py()!r}")
