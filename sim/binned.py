"""The binned estimate of a trace's energy: batches of equal requests, each alone, and nothing between."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from sim.immediate import Immediate
from sim.options import EngineOptions
from sim.simulate import simulate
from sim.table import CostTable
from traces.trace import Counts, Floats, Ints, Trace

Rounding = Literal["ceiling", "exact", "floor"]
ROUNDINGS: tuple[Rounding, ...] = ("ceiling", "exact", "floor")
LEAST_PROMPT_TOKENS, LEAST_OUTPUT_TOKENS = 32, 8
"""Upper edges of the first bins; all further edges are powers of two."""


@dataclass(frozen=True, slots=True)
class Binned:
    """A binned estimate.

    Attributes:
        energy_j: Sum over bins of N / B * E_batch.
        bins: Bins that hold a request.
        least_batch, largest_batch: B of the bin with the smallest one, and of that with the largest.
        prompt_tokens, output_tokens: What the bins' requests have in all, as rounded.
    """

    energy_j: float
    bins: int
    least_batch: int
    largest_batch: int
    prompt_tokens: int
    output_tokens: int


def binned_estimate(
    trace: Trace,
    rounding: Rounding,
    options: EngineOptions,
    table: CostTable,
    *,
    batch: int | None = None,
) -> Binned:
    """Return the sum over bins of N / B * E_batch, N / B not rounded; arrivals and queues do not count.

    A bin holds the N requests whose lengths share powers of two as upper edges. E_batch is what B of
    them take that arrive at once and are served alone, their lengths being the upper edges (`ceiling`), the
    edges below (`floor`) or the bin's mean (`exact`, so that tokens are the trace's).

    Args:
        trace: At least one request.
        rounding: What becomes of lengths.
        options: What the engine is told.
        table: What steps cost.
        batch: B, at least 1; the engine may hold fewer. None for as many as it holds at once.

    Raises:
        ValueError: `batch` is below 1, or the engine cannot serve a bin's requests.
    """
    if batch is not None and batch < 1:
        raise ValueError(f"batch must be >= 1, got {batch}")
    rounded_up = rounding != "floor"
    edges = np.stack(
        [
            _edges(trace.prompt_tokens, LEAST_PROMPT_TOKENS, up=rounded_up),
            _edges(trace.output_tokens, LEAST_OUTPUT_TOKENS, up=rounded_up),
        ]
    )
    bins, bin_of, counts = np.unique(edges, axis=1, return_inverse=True, return_counts=True)
    lengths: Floats = bins.astype(np.float64)
    if rounding == "exact":
        for row, tokens in enumerate((trace.prompt_tokens, trace.output_tokens)):
            lengths[row] = np.bincount(bin_of.ravel(), tokens) / counts
    energy_j, batches = 0.0, []
    for (prompt, output), count in zip(lengths.T.tolist(), counts.tolist(), strict=True):
        most = _largest_batch(prompt, output, options)
        batches.append(most if batch is None else min(batch, most))
        energy_j += count / batches[-1] * _batch_energy_j(prompt, output, batches[-1], options, table)
    prompt_tokens, output_tokens = np.rint(lengths @ counts).astype(np.int64).tolist()
    return Binned(energy_j, len(batches), min(batches), max(batches), prompt_tokens, output_tokens)


def sum_of(estimates: Iterable[Binned]) -> Binned:
    """Return the estimates of several parts of a trace as one.

    Args:
        estimates: At least one.
    """
    parts = list(estimates)
    return Binned(
        energy_j=sum(part.energy_j for part in parts),
        bins=sum(part.bins for part in parts),
        least_batch=min(part.least_batch for part in parts),
        largest_batch=max(part.largest_batch for part in parts),
        prompt_tokens=sum(part.prompt_tokens for part in parts),
        output_tokens=sum(part.output_tokens for part in parts),
    )


def _edges(tokens: Counts, least: int, *, up: bool) -> Ints:
    """Return the next power of two at or above each number, and at or above `least`, or that at or below."""
    exponents = np.log2(tokens)
    powers: Floats = np.maximum(2 ** np.ceil(exponents), least) if up else 2 ** np.floor(exponents)
    return powers.astype(np.int64)


def _largest_batch(prompt_tokens: float, output_tokens: float, options: EngineOptions) -> int:
    """Return how many such requests the engine holds at once, to their last token."""
    tokens = int(np.ceil(prompt_tokens)) + int(np.ceil(output_tokens))
    blocks = -(-tokens // options.block_size)
    most = min((options.num_gpu_blocks - 1) // blocks, options.max_num_seqs)
    if most < 1 or tokens > options.max_model_len:
        raise ValueError(
            f"a bin's requests have {tokens} tokens, the engine holds "
            f"{min((options.num_gpu_blocks - 1) * options.block_size, options.max_model_len)}; "
            f"raise num_gpu_blocks or max_model_len, or leave such requests out"
        )
    return most


def _batch_energy_j(
    prompt_tokens: float, output_tokens: float, batch: int, options: EngineOptions, table: CostTable
) -> float:
    requests = Trace(
        name="batch",
        source="equal requests at once",
        licence="none",
        sha256="",
        arrival_s=np.zeros(batch),
        prompt_tokens=_with_mean(prompt_tokens, batch),
        output_tokens=_with_mean(output_tokens, batch),
    )
    energy_j = simulate(requests, Immediate(), options, table).total_energy_j
    assert energy_j is not None
    return energy_j


def _with_mean(tokens: float, batch: int) -> Counts:
    """Return `batch` whole numbers that differ by at most 1 and have this mean, as nearly as can be."""
    whole = int(tokens)
    lengths = np.full(batch, whole, np.int32)
    lengths[: round((tokens - whole) * batch)] += 1
    return lengths
