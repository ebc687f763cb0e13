"""JSON-lines traces with block hashes: Mooncake, Qwen-Bailian, and what vLLM's `timed_trace` reads."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from traces.json_lines import JsonColumns, read_json_lines
from traces.rows import Rows, left_out_notes
from traces.source_file import SourceFile

JsonFormat = Literal["mooncake", "qwen-bailian", "timed-trace"]
JSON_FORMATS: tuple[JsonFormat, ...] = ("mooncake", "qwen-bailian", "timed-trace")

MOONCAKE_BLOCK_TOKENS = 512
QWEN_BLOCK_TOKENS = 16
VLLM_BLOCK_TOKENS = 16
TICK_ROWS = 3  # requests an arrival time, on average, from which times count as ticks of a coarse clock


def read_json(
    file: SourceFile, form: JsonFormat | None = None, *, leave_out_zero: bool = False
) -> tuple[JsonFormat, Rows]:
    """Return the format and rows of a JSON-lines trace.

    Qwen-Bailian is known by its `chat_id`, Mooncake by 512 tokens a hash; anything else is read as vLLM's
    `timed_trace` with its defaults: times in seconds, 16 tokens a hash unless the hashes say otherwise.

    Args:
        file: Lines with `timestamp`, `input_length`, `output_length`, and `hash_ids` where known.
        form: The format, where content does not tell.
        leave_out_zero: Leave out and count rows with zero tokens instead of failing.

    Raises:
        ValueError: A line breaks a rule, or the unit of its times cannot be told.
    """
    columns = read_json_lines(file, leave_out_zero=leave_out_zero)
    form = form or _tell(file, columns)
    block_tokens = _block_tokens(file, columns, form)
    prefix, cut = columns.with_blocks(block_tokens)
    notes = list(left_out_notes(columns.left_out, failures=False))
    if cut:
        notes.append(
            f"{cut:,} requests have more hashes than blocks of {block_tokens} tokens; cut to their prompts."
        )
    if form == "timed-trace":
        hashes = "" if prefix is None else f", {block_tokens} tokens a hash"
        notes.append(
            f"Read as vLLM's timed_trace: times in seconds{hashes}; "
            "give --format mooncake if times are milliseconds and a hash is 512 tokens."
        )
    milliseconds = form == "mooncake"
    notes.extend(_tick_notes(columns.timestamp / (1e3 if milliseconds else 1.0)))
    return form, Rows(
        ticks=columns.timestamp,
        ticks_per_s=1e3 if milliseconds else 1.0,
        is_calendar=False,
        prompt_tokens=columns.prompt_tokens,
        output_tokens=columns.output_tokens,
        prefix=prefix,
        session_id=_sessions(columns),
        notes=tuple(notes),
    )


def _tell(file: SourceFile, columns: JsonColumns) -> JsonFormat:
    if columns.chats:
        return "qwen-bailian"
    smallest, largest, _ = columns.block_range()
    if (
        len(columns.hashes)
        and smallest <= MOONCAKE_BLOCK_TOKENS <= largest
        and not _fits(columns, VLLM_BLOCK_TOKENS)
    ):
        return "mooncake"
    if (columns.timestamp % 1 != 0).any() or (
        len(columns.hashes) and not _fits(columns, MOONCAKE_BLOCK_TOKENS)
    ):
        return "timed-trace"
    raise ValueError(
        f"{file.path}: nothing in it tells milliseconds from seconds; "
        "give --format mooncake (milliseconds) or --format timed-trace (seconds)"
    )


def _fits(columns: JsonColumns, block_tokens: int) -> bool:
    smallest, largest, _ = columns.block_range()
    return smallest <= block_tokens <= largest


def _block_tokens(file: SourceFile, columns: JsonColumns, form: JsonFormat) -> int:
    if form == "qwen-bailian":
        return QWEN_BLOCK_TOKENS
    smallest, largest, line = columns.block_range()
    usual = MOONCAKE_BLOCK_TOKENS if form == "mooncake" else VLLM_BLOCK_TOKENS
    if smallest <= usual <= largest:
        return usual
    powers = [1 << power for power in range(31) if smallest <= 1 << power <= largest]
    if form == "mooncake" or not (powers or smallest == largest):
        raise ValueError(
            f"{file.path}, line {line}: a hash must stand for {usual} tokens, or one number in all lines; "
            f"these hashes stand for at least {smallest} and at most {largest}"
        )
    return powers[0] if powers else smallest


def _sessions(columns: JsonColumns) -> NDArray[np.object_] | None:
    """Return the first chat of each request's conversation."""
    if not columns.chats:
        return None
    roots: dict[object, object] = {}
    for chat, parent in columns.chats:
        roots[chat] = chat if parent in (-1, None) else roots.get(parent, parent)
    return np.array([str(roots[chat]) for chat, _ in columns.chats], dtype=object)


def _tick_notes(timestamp_s: NDArray[np.float64]) -> tuple[str, ...]:
    times = np.unique(timestamp_s)
    if len(times) < 2 or len(timestamp_s) < TICK_ROWS * len(times):
        return ()
    tick_s = float(np.median(np.diff(times)))
    return (
        f"{len(timestamp_s):,} requests share {len(times):,} arrival times, {tick_s:.3g} s apart, ticks of a "
        f"coarse clock; spread them with --spread {tick_s:.3g}.",
    )
