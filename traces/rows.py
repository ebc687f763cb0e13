"""Rows as a format's reader finds them, and how they become a trace."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from traces.trace import Counts, Floats, Ints, PrefixBlocks, Trace

DAY_S = 86_400.0
LARGEST_COUNT = np.iinfo(np.int32).max
SLICE_ROWS = 1 << 20


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Requests in the order and on the clock of their file; optional columns as in `Trace`.

    Attributes:
        ticks: Arrivals, whole nanoseconds since 1970 or units of the file's own clock, shape (requests,).
        ticks_per_s: 1e9 for nanoseconds, 1e3 for milliseconds, 1 for seconds.
        is_calendar: Whether the clock's zero means nothing, so that the first arrival becomes time 0.
        prompt_tokens: At least 1, shape (requests,).
        output_tokens: At least 1, shape (requests,).
        deadline_s: On the file's own clock, in seconds.
        notes: What the reader left out or changed, one sentence each.
    """

    ticks: Ints | Floats
    ticks_per_s: float
    is_calendar: bool
    prompt_tokens: Counts
    output_tokens: Counts
    prefix: PrefixBlocks | None = None
    session_id: NDArray[np.object_] | None = None
    is_offline: NDArray[np.bool_] | None = None
    deadline_s: Floats | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Origin:
    """Where rows come from, in the words of `Trace`."""

    name: str
    source: str
    licence: str
    sha256: str
    synthetic: bool = False


def to_trace(rows: Rows, origin: Origin) -> Trace:
    """Return `rows` as a trace, its time 0 set and sorted by arrival; its notes say where that changed them.

    A calendar has no meaningful zero: the first arrival becomes time 0. A clock that counts from its own zero
    keeps it, unless the first arrival is more than a day after it: such a file continues another one.
    """
    zero, notes = _zero_ticks(rows)
    arrival_s = np.empty(len(rows.ticks))
    for start in range(0, len(arrival_s), SLICE_ROWS):  # no temporary as long as the trace
        part = slice(start, start + SLICE_ROWS)
        arrival_s[part] = (rows.ticks[part] - zero) / rows.ticks_per_s
    trace = Trace(
        name=origin.name,
        source=origin.source,
        licence=origin.licence,
        sha256=origin.sha256,
        arrival_s=arrival_s,
        prompt_tokens=rows.prompt_tokens,
        output_tokens=rows.output_tokens,
        prefix=rows.prefix,
        session_id=rows.session_id,
        is_offline=rows.is_offline,
        deadline_s=None if rows.deadline_s is None else rows.deadline_s - float(zero) / rows.ticks_per_s,
        notes=(*rows.notes, *notes),
        synthetic=origin.synthetic,
    )
    return sort(trace)


def sort(trace: Trace) -> Trace:
    """Return `trace` sorted by arrival, equal arrivals in the order of the file, and say so if it was not."""
    early = np.count_nonzero(trace.arrival_s[1:] < trace.arrival_s[:-1])
    if not early:
        return trace
    order = np.argsort(trace.arrival_s, kind="stable")
    verb = "request arrives" if early == 1 else "requests arrive"
    note = f"{early:,} {verb} before the row above; sorted by arrival."
    return trace.take(order, notes=(*trace.notes, note))


def left_out_notes(rows: int, failures: bool) -> tuple[str, ...]:
    """Return the note on `rows` rows with zero tokens left out, none if there were none."""
    if not rows:
        return ()
    plural = "" if rows == 1 else "s"
    what = f"failed call{plural} (zero tokens)" if failures else f"row{plural} with zero tokens"
    return (f"Left out {rows:,} {what}.",)


def _zero_ticks(rows: Rows) -> tuple[int | float, tuple[str, ...]]:
    first = rows.ticks.min()
    if rows.is_calendar:
        return int(first), ()
    first_s = float(first) / rows.ticks_per_s
    if first_s <= DAY_S:
        return 0, ()
    note = f"The file's clock starts at {first_s:,.0f} s, more than a day; its first arrival is time 0 here."
    return first.item(), (note,)
