"""Traces in numbers, as text for a person."""

from collections.abc import Iterable, Iterator
from dataclasses import fields

from replay.screen import View, heading, indented, table
from traces.comparison import Likeness
from traces.info import TraceInfo
from traces.public import PublicTrace

STATISTICS = ("mean", "min", "p1", "p5", "p25", "p50", "p75", "p90", "p95", "p99", "max", "total")
LABEL = 11
"""Least width of a column, in characters."""


def info_view(info: TraceInfo) -> View:
    """Return what `replay trace info` prints."""
    synthetic = " (synthetic)" if info.synthetic else ""
    facts = [
        ("source", info.source),
        ("licence", info.licence),
        ("sha256", info.sha256),
        (
            "requests",
            f"{info.requests:,} over {info.span_s:,.1f} s, "
            f"the first {info.first_arrival_s:,.1f} s after time 0",
        ),
        (
            "rate",
            f"{_number(info.rate_per_s)} a second; in a second p50 {info.per_second_p50:g}, "
            f"p90 {info.per_second_p90:g}, p99 {info.per_second_p99:g}, max {info.per_second_max:g}; "
            f"{info.empty_second_fraction:.1%} of seconds empty",
        ),
        ("gaps", f"CV {_number(info.gap_cv)} (1 is Poisson), longest {_number(info.gap_max_s)} s"),
        *_optional(info),
    ]
    lengths = [
        (f"  {name}", *(f"{getattr(each, name):,.0f}" for each in (info.input, info.output)))
        for name in STATISTICS
    ]
    return [
        heading(f"{info.name}{synthetic}"),
        table([(f"  {name}", text) for name, text in facts], "ll", widths=(LABEL,)),
        "",
        table(lengths, "lrr", heads=("  tokens", "input", "output"), widths=(LABEL,)),
        indented(f"rank correlation of input and output {_number(info.rank_correlation)}"),
        *(indented(f"note: {note}") for note in info.notes),
    ]


def likeness_view(likeness: Likeness) -> View:
    """Return what `replay trace compare` prints: one line a number."""
    values = ((field.name, getattr(likeness, field.name)) for field in fields(likeness))
    return [table([(name.replace("_", " "), _number(value, 4)) for name, value in values], "lr")]


def public_view(traces: Iterable[PublicTrace]) -> View:
    """Return the list of public traces, one line each."""
    rows = [
        (
            trace.name,
            trace.licence,
            trace.title + ("" if trace.sha256 else "; no published hash, needs --sha256"),
        )
        for trace in traces
    ]
    return [table(rows, "lll")]


def _optional(info: TraceInfo) -> Iterator[tuple[str, str]]:
    if info.sharing is not None:
        share = info.sharing
        yield (
            "prefixes",
            f"{share.shared_token_fraction:.1%} of input tokens repeat the start of an "
            f"earlier prompt; {share.distinct_blocks:,} distinct blocks of {share.block_tokens} tokens",
        )
    if info.sessions is not None:
        yield "sessions", f"{info.sessions:,}"
    if info.offline_fraction is not None:
        yield "offline", f"{info.offline_fraction:.1%} of requests"
    if info.deadlines is not None:
        yield "deadlines", f"{info.deadlines:,} requests have one"


def _number(value: float | None, digits: int = 3) -> str:
    return "none" if value is None else f"{value:.{digits}g}"
