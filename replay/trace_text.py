"""Traces in numbers, as text for a person."""

from collections.abc import Iterable
from dataclasses import fields

from traces.comparison import Likeness
from traces.info import Lengths, TraceInfo
from traces.public import PublicTrace

COLUMNS = ("mean", "min", "p1", "p5", "p25", "p50", "p75", "p90", "p95", "p99", "max")


def info_text(info: TraceInfo) -> str:
    """Return what `replay trace info` prints."""
    synthetic = " (synthetic)" if info.synthetic else ""
    lines = [
        f"{info.name}{synthetic}",
        f"  source         {info.source}",
        f"  licence        {info.licence}",
        f"  sha256         {info.sha256}",
        f"  requests       {info.requests:,} over {info.span_s:,.1f} s, "
        f"the first {info.first_arrival_s:,.1f} s after time 0",
        f"  rate           {_number(info.rate_per_s)} a second; in a second p50 {info.per_second_p50:g}, "
        f"p90 {info.per_second_p90:g}, p99 {info.per_second_p99:g}, max {info.per_second_max:g}; "
        f"{info.empty_second_fraction:.1%} of seconds empty",
        f"  gaps           CV {_number(info.gap_cv)} (1 is Poisson), longest {_number(info.gap_max_s)} s",
        "",
        f"  {'tokens':<8}" + "".join(f"{name:>9}" for name in COLUMNS) + f"{'total':>14}",
        _lengths("input", info.input),
        _lengths("output", info.output),
        f"  rank correlation of input and output {_number(info.rank_correlation)}",
        *_optional(info),
        *(f"  note: {note}" for note in info.notes),
    ]
    return "\n".join(lines)


def likeness_text(likeness: Likeness) -> str:
    """Return what `replay trace compare` prints: one line a number."""
    width = max(len(field.name) for field in fields(likeness))
    return "\n".join(
        f"{field.name.replace('_', ' '):<{width}}  {_number(getattr(likeness, field.name), 4):>9}"
        for field in fields(likeness)
    )


def public_text(traces: Iterable[PublicTrace]) -> str:
    """Return the list of public traces, one line each."""
    return "\n".join(
        f"{trace.name:<22}  {trace.licence:<10}  {trace.title}"
        + ("" if trace.sha256 else "; no published hash, needs --sha256")
        for trace in traces
    )


def _lengths(name: str, lengths: Lengths) -> str:
    cells = "".join(f"{getattr(lengths, column):>9,.0f}" for column in COLUMNS)
    return f"  {name:<8}{cells}{lengths.total:>14,}"


def _optional(info: TraceInfo) -> list[str]:
    lines = []
    if info.sharing is not None:
        share = info.sharing
        lines.append(
            f"  prefixes       {share.shared_token_fraction:.1%} of input tokens repeat the start of an "
            f"earlier prompt; {share.distinct_blocks:,} distinct blocks of {share.block_tokens} tokens"
        )
    if info.sessions is not None:
        lines.append(f"  sessions       {info.sessions:,}")
    if info.offline_fraction is not None:
        lines.append(f"  offline        {info.offline_fraction:.1%} of requests")
    if info.deadlines is not None:
        lines.append(f"  deadlines      {info.deadlines:,} requests have one")
    return lines


def _number(value: float | None, digits: int = 3) -> str:
    return "none" if value is None else f"{value:.{digits}g}"
