"""A trace as a picture: its rate over time and the distributions of its lengths."""

from pathlib import Path
from typing import Any

import numpy as np

from traces.picture import picture
from traces.trace import Counts, Trace

MOST_BINS = 360
INK, FAINT = "#1f4e79", "#9dbfe0"


def plot(trace: Trace, path: Path, *, overwrite: bool = False) -> None:
    """Draw `trace` into the file `path`.

    Args:
        trace: At least one request.
        path: Ends in .png, .svg or .pdf.
        overwrite: Whether an existing file may be replaced.

    Raises:
        ValueError: matplotlib is missing, the ending is another, or `path` exists and may not be replaced.
    """
    with picture(path, (9, 6), overwrite=overwrite) as figure:
        axes = figure.subplot_mosaic([["rate", "rate"], ["input", "output"]], height_ratios=[1.1, 1])
        origin = " (synthetic)" if trace.synthetic else ""
        figure.suptitle(f"{trace.name}{origin}: {len(trace):,} requests", x=0.01, ha="left", fontsize=12)
        _draw_rate(axes["rate"], trace)
        _draw_lengths(axes["input"], trace.prompt_tokens, "input tokens")
        _draw_lengths(axes["output"], trace.output_tokens, "output tokens")


def _draw_rate(axes: Any, trace: Trace) -> None:
    first_s, last_s = np.floor(trace.arrival_s[0]), np.floor(trace.arrival_s[-1]) + 1
    bin_s = float(np.ceil((last_s - first_s) / MOST_BINS))
    edges_s = first_s + bin_s * np.arange(int(np.ceil((last_s - first_s) / bin_s)) + 1)
    seconds, counts = np.unique(np.floor(trace.arrival_s), return_counts=True)
    which = ((seconds - first_s) // bin_s).astype(np.int64)
    mean, most = np.zeros(len(edges_s) - 1), np.zeros(len(edges_s) - 1)
    np.add.at(mean, which, counts / bin_s)
    np.maximum.at(most, which, counts)
    unit, unit_s = _unit(last_s)
    if bin_s > 1:
        axes.stairs(most, edges_s / unit_s, color=FAINT, fill=True, label=f"busiest second of {bin_s:g} s")
    axes.stairs(mean, edges_s / unit_s, color=INK, fill=bin_s == 1, label=f"mean of {bin_s:g} s")
    axes.set(
        xlabel=f"time, {unit}", ylabel="requests per second", xlim=(edges_s[0] / unit_s, edges_s[-1] / unit_s)
    )
    axes.set_ylim(bottom=0)
    axes.legend(
        frameon=False, ncols=2, loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0.1, fontsize=9
    )
    _tidy(axes)


def _draw_lengths(axes: Any, tokens: Counts, label: str) -> None:
    low, high = int(tokens.min()), int(tokens.max())
    edges = np.unique(np.round(np.geomspace(low, high + 1, 61)))
    shares, _ = np.histogram(tokens, edges)
    axes.stairs(shares / len(tokens) * 100, edges, color=FAINT, fill=True)
    axes.set(xscale="log", xlabel=label, ylabel="% of requests", xlim=(edges[0], edges[-1]))
    median, p99 = np.quantile(tokens, [0.5, 0.99])
    for value, name, side in ((median, "p50", "right"), (p99, "p99", "left")):
        axes.axvline(value, color=INK, linewidth=1)
        axes.annotate(
            f"{name} {value:,.0f}",
            (value, 1),
            xycoords=("data", "axes fraction"),
            xytext=(0, 3),
            textcoords="offset points",
            ha=side,
            fontsize=9,
            color=INK,
        )
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    _tidy(axes)


def _unit(last_s: float) -> tuple[str, float]:
    if last_s > 3 * 86_400:
        return "days", 86_400.0
    if last_s > 3 * 3_600:
        return "hours", 3_600.0
    return ("minutes", 60.0) if last_s > 180 else ("seconds", 1.0)


def _tidy(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
