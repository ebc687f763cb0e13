"""What a trace holds, in numbers: what `replay trace info` prints."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from traces.quantiles import rank_correlation
from traces.trace import Counts, Floats, Ints, PrefixBlocks, Trace

QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)


@dataclass(frozen=True, slots=True)
class Lengths:
    """Lengths of the inputs or outputs, in tokens.

    Attributes:
        total: Sum over all requests.
        mean: total / requests.
        min, max: Shortest and longest.
        p1, p5, p25, p50, p75, p90, p95, p99: Quantiles.
    """

    total: int
    mean: float
    min: int
    p1: float
    p5: float
    p25: float
    p50: float
    p75: float
    p90: float
    p95: float
    p99: float
    max: int


@dataclass(frozen=True, slots=True)
class Sharing:
    """How much of the prompts repeats earlier ones.

    Attributes:
        block_tokens: Tokens a block hash stands for.
        blocks: Block hashes of all prompts.
        distinct_blocks: Of these, different ones.
        shared_token_fraction: Input tokens in full blocks that an earlier request began with, of all input
            tokens: the hit rate of a prefix cache that never forgets.
    """

    block_tokens: int
    blocks: int
    distinct_blocks: int
    shared_token_fraction: float


@dataclass(frozen=True, slots=True)
class TraceInfo:
    """A trace in numbers; None where there is no such number.

    Attributes:
        name, source, licence, sha256, synthetic, notes: As in `Trace`.
        requests: How many.
        first_arrival_s: Seconds after time 0.
        span_s: From the first to the last arrival.
        rate_per_s: requests / span_s.
        per_second_p50, per_second_p90, per_second_p99, per_second_max: Quantiles of the requests in a second,
            seconds counted from time 0, from the first second with an arrival to the last.
        empty_second_fraction: Seconds without an arrival, of these.
        gap_cv: Standard deviation of the time between arrivals by its mean: 1 for a Poisson process.
        gap_max_s: Longest time without an arrival.
        input, output: Lengths.
        rank_correlation: Spearman's, of input and output lengths.
        sharing: Repeated prefixes, where the trace has block hashes.
        sessions: Different conversations, where the trace has them.
        offline_fraction: Requests of the class `offline`, where the trace has classes.
        deadlines: Requests with a deadline, where the trace has them.
    """

    name: str
    source: str
    licence: str
    sha256: str
    synthetic: bool
    requests: int
    first_arrival_s: float
    span_s: float
    rate_per_s: float | None
    per_second_p50: float
    per_second_p90: float
    per_second_p99: float
    per_second_max: float
    empty_second_fraction: float
    gap_cv: float | None
    gap_max_s: float | None
    input: Lengths
    output: Lengths
    rank_correlation: float | None
    sharing: Sharing | None
    sessions: int | None
    offline_fraction: float | None
    deadlines: int | None
    notes: tuple[str, ...]


def inspect(trace: Trace) -> TraceInfo:
    """Return `trace` in numbers.

    Raises:
        ValueError: It is empty.
    """
    if not len(trace):
        raise ValueError(f"trace {trace.name} has no requests; there is nothing to tell of it")
    span_s = float(trace.arrival_s[-1] - trace.arrival_s[0])
    p50, p90, p99, most = per_second(trace.arrival_s, (0.5, 0.9, 0.99, 1.0))
    sessions = (
        None if trace.session_id is None else {one for one in trace.session_id.tolist() if one is not None}
    )
    return TraceInfo(
        name=trace.name,
        source=trace.source,
        licence=trace.licence,
        sha256=trace.sha256,
        synthetic=trace.synthetic,
        requests=len(trace),
        first_arrival_s=float(trace.arrival_s[0]),
        span_s=span_s,
        rate_per_s=len(trace) / span_s if span_s else None,
        per_second_p50=p50,
        per_second_p90=p90,
        per_second_p99=p99,
        per_second_max=most,
        empty_second_fraction=empty_second_fraction(trace.arrival_s),
        gap_cv=gap_cv(trace.arrival_s),
        gap_max_s=float(np.diff(trace.arrival_s).max()) if len(trace) > 1 else None,
        input=_lengths(trace.prompt_tokens),
        output=_lengths(trace.output_tokens),
        rank_correlation=rank_correlation(trace.prompt_tokens, trace.output_tokens),
        sharing=None if trace.prefix is None else _sharing(trace.prefix, trace.prompt_tokens),
        sessions=None if sessions is None else len(sessions),
        offline_fraction=None if trace.is_offline is None else float(trace.is_offline.mean()),
        deadlines=None if trace.deadline_s is None else int(np.count_nonzero(~np.isnan(trace.deadline_s))),
        notes=trace.notes,
    )


def per_second(arrival_s: Floats, probabilities: tuple[float, ...]) -> tuple[float, ...]:
    """Return quantiles of the requests a second, empty seconds included, whatever the length of the trace."""
    ordered = np.sort(np.diff(_second_starts(arrival_s), append=len(arrival_s)))
    empty = _seconds(arrival_s) - len(ordered)
    place = np.array(probabilities) * (empty + len(ordered) - 1)
    below, above = np.floor(place).astype(np.int64), np.ceil(place).astype(np.int64)
    low, high = (
        np.where(index < empty, 0, ordered[np.maximum(index - empty, 0)]) for index in (below, above)
    )
    return tuple((low + (high - low) * (place - below)).tolist())


def empty_second_fraction(arrival_s: Floats) -> float:
    """Return the fraction of seconds without an arrival, from the first with one to the last."""
    return 1 - len(_second_starts(arrival_s)) / _seconds(arrival_s)


def gap_cv(arrival_s: Floats) -> float | None:
    """Return the coefficient of variation of the time between arrivals, None if there is none."""
    gaps = np.diff(arrival_s)
    return float(gaps.std() / gaps.mean()) if len(gaps) and gaps.mean() > 0 else None


def _seconds(arrival_s: Floats) -> int:
    return int(np.floor(arrival_s[-1]) - np.floor(arrival_s[0])) + 1


def _second_starts(arrival_s: Floats) -> Ints:
    """Return the first row of each second with an arrival."""
    seconds = np.floor(arrival_s)
    return np.append(0, np.flatnonzero(seconds[1:] != seconds[:-1]) + 1)


def _lengths(tokens: Counts) -> Lengths:
    quantiles = {
        f"p{probability * 100:.0f}": value
        for probability, value in zip(QUANTILES, np.quantile(tokens, QUANTILES).tolist(), strict=True)
    }
    return Lengths(
        total=int(tokens.sum(dtype=np.int64)),
        mean=float(tokens.mean()),
        min=int(tokens.min()),
        max=int(tokens.max()),
        **quantiles,
    )


def _sharing(prefix: PrefixBlocks, prompt_tokens: Counts) -> Sharing:
    lengths = np.diff(prefix.offsets)
    request = np.repeat(np.arange(len(lengths)), lengths)
    place = np.arange(len(request)) - np.repeat(prefix.offsets[:-1], lengths)
    distinct, first, which = np.unique(prefix.hashes, return_index=True, return_inverse=True)
    is_new = request[first][which] == request
    is_full = (place + 1) * prefix.block_tokens <= prompt_tokens[request]
    shared = _leading(is_new | ~is_full, prefix.offsets)
    return Sharing(
        block_tokens=prefix.block_tokens,
        blocks=len(prefix.hashes),
        distinct_blocks=len(distinct),
        shared_token_fraction=float(shared.sum() * prefix.block_tokens / prompt_tokens.sum(dtype=np.int64)),
    )


def _leading(stops: NDArray[np.bool_], offsets: Ints) -> Ints:
    """Return how many entries of each row stand before its first that stops."""
    stop_at = np.append(np.flatnonzero(stops), len(stops))
    next_stop = stop_at[np.searchsorted(stop_at, offsets[:-1])]
    leading: Ints = np.minimum(next_stop, offsets[1:]) - offsets[:-1]
    return leading
