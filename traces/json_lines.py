"""Traces as one JSON object a line: lengths, a time, and the hashes of the prompt's blocks."""

import json
import math
from array import array
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from traces.rows import LARGEST_COUNT
from traces.source_file import SourceFile
from traces.trace import Counts, Floats, Ints, PrefixBlocks

HASH_LIMIT = 1 << 63


@dataclass(frozen=True, slots=True, eq=False)
class JsonColumns:
    """The fields of a JSON-lines trace as columns, in the order of the file.

    Attributes:
        line: Line of each request in the file, from 1.
        timestamp: As written, in the file's unit.
        prompt_tokens: At least 1, shape (requests,).
        output_tokens: At least 1, shape (requests,).
        hashes: Block hashes of all prompts, flat, shape (blocks,).
        offsets: Where each request's hashes begin, shape (requests + 1,).
        chats: `chat_id` and `parent_chat_id` of each request, where the first line has them.
        left_out: Rows left out for zero tokens.
    """

    line: Ints
    timestamp: Floats
    prompt_tokens: Counts
    output_tokens: Counts
    hashes: Ints
    offsets: Ints
    chats: tuple[tuple[Any, Any], ...]
    left_out: int

    def with_blocks(self, block_tokens: int) -> tuple[PrefixBlocks | None, int]:
        """Return the blocks, and in how many rows hashes that stand for no token of the prompt were cut."""
        if not len(self.hashes):
            return None, 0
        lengths = np.diff(self.offsets)
        kept = np.minimum(lengths, -(-self.prompt_tokens.astype(np.int64) // block_tokens))
        within = np.arange(len(self.hashes)) - np.repeat(self.offsets[:-1], lengths)
        hashes = self.hashes[within < np.repeat(kept, lengths)]
        offsets = np.concatenate([[0], np.cumsum(kept)]).astype(np.int64)
        return PrefixBlocks(hashes, offsets, block_tokens), int(np.count_nonzero(kept < lengths))

    def block_range(self) -> tuple[int, int, int]:
        """Return the smallest and largest tokens a block that explain every row, and the line that decided.

        The smallest exceeds the largest if no block size explains all rows.
        """
        lengths = np.diff(self.offsets)
        rows = np.flatnonzero(lengths)
        if not len(rows):
            return 1, LARGEST_COUNT, 0
        tokens, blocks = self.prompt_tokens[rows].astype(np.int64), lengths[rows]
        smallest = -(-tokens // blocks)
        several = blocks > 1
        largest = np.full(len(rows), LARGEST_COUNT, dtype=np.int64)
        largest[several] = -(-tokens[several] // (blocks[several] - 1)) - 1
        decided = max(rows[int(np.argmax(smallest))], rows[int(np.argmin(largest))])
        return int(smallest.max()), int(largest.min()), int(self.line[decided])


@dataclass(slots=True)
class _Parts:
    line: "array[int]" = field(default_factory=lambda: array("q"))
    timestamp: "array[float]" = field(default_factory=lambda: array("d"))
    prompt: "array[int]" = field(default_factory=lambda: array("i"))
    output: "array[int]" = field(default_factory=lambda: array("i"))
    hashes: "array[int]" = field(default_factory=lambda: array("q"))
    blocks: "array[int]" = field(default_factory=lambda: array("q"))
    chats: list[tuple[Any, Any]] = field(default_factory=list)
    left_out: int = 0


def read_json_lines(file: SourceFile, *, leave_out_zero: bool = False) -> JsonColumns:
    """Return the columns of a JSON-lines trace.

    Args:
        file: Lines with `timestamp`, `input_length`, `output_length`, and `hash_ids` where known.
        leave_out_zero: Leave out and count rows with zero tokens instead of failing.

    Raises:
        ValueError: A line is no JSON object, a field breaks a rule (line and value named), or none is left.
    """
    parts = _Parts()
    with file.open() as stream:
        for number, line in enumerate(stream, start=1):
            if line.strip():
                try:
                    _append(parts, number, _parse(line), leave_out_zero)
                except ValueError as error:
                    raise ValueError(f"{file.path}, line {number}: {error}") from None
    if not parts.line:
        what = f"no row of {parts.left_out:,} has tokens" if parts.left_out else "it has no rows"
        raise ValueError(f"{file.path}: {what}; a trace needs at least 1 request")
    return JsonColumns(
        line=np.array(parts.line, dtype=np.int64),
        timestamp=np.array(parts.timestamp, dtype=np.float64),
        prompt_tokens=np.array(parts.prompt, dtype=np.int32),
        output_tokens=np.array(parts.output, dtype=np.int32),
        hashes=np.array(parts.hashes, dtype=np.int64),
        offsets=np.concatenate([[0], np.cumsum(parts.blocks)]).astype(np.int64),
        chats=tuple(parts.chats),
        left_out=parts.left_out,
    )


def _parse(line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ValueError(f"not JSON: {error}") from None
    if not isinstance(row, dict):
        raise ValueError(f"must be a JSON object, got {type(row).__name__}")
    return row


def _append(parts: _Parts, number: int, row: dict[str, Any], leave_out_zero: bool) -> None:
    timestamp = _time(row)
    prompt, output = _count(row, "input_length"), _count(row, "output_length")
    if not (prompt and output):
        if not leave_out_zero:
            name = "output_length" if prompt else "input_length"
            way_out = "leave such rows out with `replay trace convert --leave-out-zero`"
            raise ValueError(f"{name} must be at least 1, got 0; {way_out}")
        parts.left_out += 1
        return
    hashes = row.get("hash_ids") or []
    if not isinstance(hashes, list) or not all(
        type(one) is int and -HASH_LIMIT <= one < HASH_LIMIT for one in hashes
    ):
        raise ValueError("hash_ids must be a list of whole numbers of 64 bits")
    parts.line.append(number)
    parts.timestamp.append(timestamp)
    parts.prompt.append(prompt)
    parts.output.append(output)
    parts.hashes.extend(hashes)
    parts.blocks.append(len(hashes))
    if "chat_id" in row:
        parts.chats.append((row["chat_id"], row.get("parent_chat_id", -1)))


def _field(row: dict[str, Any], name: str) -> Any:
    if name not in row:
        raise ValueError(f"no field {name}; it has {', '.join(row)}")
    return row[name]


def _time(row: dict[str, Any]) -> float:
    value = _field(row, "timestamp")
    if type(value) not in (int, float) or not math.isfinite(value) or value < 0:
        raise ValueError(f"timestamp must be a number of at least 0, got {value!r}")
    return float(value)


def _count(row: dict[str, Any], name: str) -> int:
    value = _field(row, name)
    whole = type(value) is int or (type(value) is float and value.is_integer())
    if not whole or not 0 <= value <= LARGEST_COUNT:
        raise ValueError(f"{name} must be a whole number from 1 to {LARGEST_COUNT:,}, got {value!r}")
    return int(value)
