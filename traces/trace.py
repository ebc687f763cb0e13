"""A trace: the requests of a workload, held as columns."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Counts = NDArray[np.int32]
RequestClass = Literal["online", "offline"]
OWN_COLUMNS = (
    *("arrival_s", "prompt_tokens", "output_tokens", "session_id", "is_offline", "deadline_s"),
    "predicted_output_tokens",
)


@dataclass(frozen=True, slots=True)
class Request:
    """One LLM call as the trace recorded it.

    Attributes:
        id: Position in the trace, unique within it.
        arrival_s: Seconds after time 0 of the replay.
        prompt_tokens: Tokens to prefill, at least 1.
        output_tokens: Tokens to generate, at least 1.
        prefix_hashes: One hash per block of the prompt; equal leading hashes, equal prefix. Empty: unknown.
        session_id: The conversation that the call belongs to.
        request_class: `online` (a person waits) or `offline`.
        deadline_s: When the last token is due, seconds after time 0 of the replay.
    """

    id: int
    arrival_s: float
    prompt_tokens: int
    output_tokens: int
    prefix_hashes: tuple[int, ...] = ()
    session_id: str | None = None
    request_class: RequestClass = "online"
    deadline_s: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class PrefixBlocks:
    """Block hashes of all prompts, flat; request i owns `hashes[offsets[i]:offsets[i + 1]]`.

    Attributes:
        hashes: All hashes, shape (blocks,), int64.
        offsets: Where each request's hashes begin and the last one's end, shape (requests + 1,), int64.
        block_tokens: Tokens a hash stands for; the last block of a prompt may be partial.
    """

    hashes: Ints
    offsets: Ints
    block_tokens: int

    def of(self, index: int) -> tuple[int, ...]:
        """Return the hashes of request `index`."""
        return tuple(self.hashes[self.offsets[index] : self.offsets[index + 1]].tolist())

    def take(self, rows: Ints) -> "PrefixBlocks":
        """Return the blocks of `rows`, in that order."""
        lengths = np.diff(self.offsets)[rows]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        source = np.repeat(self.offsets[rows] - offsets[:-1], lengths) + np.arange(offsets[-1])
        return PrefixBlocks(self.hashes[source], offsets, self.block_tokens)


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """Requests sorted by arrival, as columns of one length; 16 bytes a request without the optional ones.

    Attributes:
        name: Short name, as printed.
        source: Where the requests came from, in words a reader can follow.
        licence: Licence of the source.
        sha256: SHA-256 of the source file's bytes (of the statistics, for a synthetic trace), hex.
        arrival_s: Seconds after time 0 of the replay, ascending, shape (requests,).
        prompt_tokens: At least 1, shape (requests,).
        output_tokens: At least 1, shape (requests,).
        prefix: Block hashes of the prompts, where the source has them.
        session_id: Object array of str or None, where the source has it.
        is_offline: True where the request class is `offline`, where the source has it.
        deadline_s: Seconds after time 0, NaN for none, where the source has it.
        notes: What the reader left out or changed, one sentence each, to be shown to the user.
        synthetic: True if the requests were drawn, not recorded.
        predicted_output_tokens: What policies are told of the output, shape (requests,); None for nothing.
    """

    name: str
    source: str
    licence: str
    sha256: str
    arrival_s: Floats
    prompt_tokens: Counts
    output_tokens: Counts
    prefix: PrefixBlocks | None = None
    session_id: NDArray[np.object_] | None = None
    is_offline: NDArray[np.bool_] | None = None
    deadline_s: Floats | None = None
    notes: tuple[str, ...] = field(default=())
    synthetic: bool = False
    predicted_output_tokens: Counts | None = None

    def __len__(self) -> int:
        return len(self.arrival_s)

    def request(self, index: int) -> Request:
        """Return row `index` as an object; `id` is the row."""
        deadline_s = None if self.deadline_s is None else float(self.deadline_s[index])
        offline = self.is_offline is not None and bool(self.is_offline[index])
        return Request(
            id=index,
            arrival_s=float(self.arrival_s[index]),
            prompt_tokens=int(self.prompt_tokens[index]),
            output_tokens=int(self.output_tokens[index]),
            prefix_hashes=() if self.prefix is None else self.prefix.of(index),
            session_id=None if self.session_id is None else self.session_id[index],
            request_class="offline" if offline else "online",
            deadline_s=None if deadline_s is None or np.isnan(deadline_s) else deadline_s,
        )

    def part(self, first: int, end: int) -> "Trace":
        """Return the requests from `first` to before `end`, without a copy; the hashes stay those of all."""
        rows = slice(first, end)
        columns: dict[str, Any] = {
            name: column[rows] for name in OWN_COLUMNS if (column := getattr(self, name)) is not None
        }
        if self.prefix is not None:
            columns["prefix"] = replace(self.prefix, offsets=self.prefix.offsets[first : end + 1])
        return replace(self, **columns)

    def parts(self, requests: int) -> Iterator["Trace"]:
        """Yield the trace, so many requests at a time."""
        for first in range(0, len(self), requests):
            yield self.part(first, min(first + requests, len(self)))

    def take(self, rows: Ints, **changes: Any) -> "Trace":
        """Return the requests of `rows` in that order, with other fields changed as given."""
        columns: dict[str, Any] = {
            name: column[rows] for name in OWN_COLUMNS if (column := getattr(self, name)) is not None
        }
        columns["prefix"] = None if self.prefix is None else self.prefix.take(rows)
        return replace(self, **{**columns, **changes})
