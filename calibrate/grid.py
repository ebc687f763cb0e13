"""The grid: which loads a calibration measures, and in which order."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import astuple, dataclass, replace
from math import exp
from statistics import NormalDist
from typing import Literal

import numpy as np

Kind = Literal["idle", "decode", "ragged", "prefill", "mixed", "trickle", "burst", "open", "scan"]
GridName = Literal["full", "standard", "card", "quick"]
Sizes = Mapping[int, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Point:
    """One load, held until its window is measured.

    Attributes:
        kind: `idle` (loaded, no work), `decode` (a batch that only decodes, contexts equal), `ragged` (the
            same, contexts unequal), `prefill` (a stream of prompts, one output token each), `mixed` (decode
            and prefill; with a `gap_s`, contexts are unequal and prompts come at random times), `trickle`
            (one request after the other, with a pause), `burst` (pauses and short prefill streams in turn),
            `open` (prompts of random lengths at random times), `scan` (prompts of all lengths, one after the
            other with a pause, beside a batch of unequal contexts, if any, that decodes).
        batch: Decoding sequences.
        context_tokens: Tokens before: of each decoding sequence (ragged: their mean), or before each chunk.
        chunk_tokens: Fresh prompt tokens of each streamed request (open: their median; scan: the longest).
        streams: Streamed requests outstanding at any time.
        output_tokens: Output tokens of each streamed request (open: their mean).
        gap_s: Pause between requests (trickle, scan) or bursts, mean time between arrivals (open, mixed).
        repeat: Counts the repeats of this load from 0.
    """

    kind: Kind
    batch: int = 0
    context_tokens: int = 0
    chunk_tokens: int = 0
    streams: int = 0
    output_tokens: int = 1
    gap_s: float = 0.0
    repeat: int = 0

    @property
    def is_mixed_at_random(self) -> bool:
        """Whether prompts come at random times beside a decoding batch."""
        return self.kind == "mixed" and self.gap_s > 0

    @property
    def is_unequal(self) -> bool:
        """Whether the contexts of the decoding batch differ."""
        return self.batch > 1 and (self.kind in ("ragged", "scan") or self.is_mixed_at_random)

    @property
    def comes_at_random(self) -> bool:
        """Whether prompts come without regard to the engine's steps, as in service."""
        return self.kind in ("open", "scan") or self.is_mixed_at_random

    @property
    def key(self) -> str:
        """Name of the point, unique in a grid."""
        return "-".join(str(part) for part in astuple(self))


@dataclass(frozen=True, slots=True)
class Limits:
    """What the engine under calibration can hold.

    Attributes:
        max_num_seqs: Most sequences running.
        max_num_batched_tokens: Token budget of a step.
        kv_tokens: Tokens that fit the KV cache.
        max_model_len: Longest request.
    """

    max_num_seqs: int
    max_num_batched_tokens: int
    kv_tokens: int
    max_model_len: int


DECODE = {
    128: (
        *(1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 160, 192, 256),
        *(320, 384, 416, 448, 480, 512, 640, 768, 1024),
    ),
    512: (8, 64, 256, 512),
    1024: (1, 4, 16, 40, 64, 100, 128, 200, 256, 512),
    2048: (320,),
    4096: (1, 8, 24, 48, 96, 176),
    16384: (1, 2, 4, 8, 16),
}
"""Decode batches by context."""

RAGGED = {
    400: (2, 3, 4, 6, 8, 9, 12, 16, 20, 24, 32, 48, 64, 96, 128, 192, 256),
    1200: (2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256),
    4000: (2, 4, 8, 16, 32, 64),
}
"""Decode batches by mean context, for contexts that are not equal."""

RAGGEDNESS = 0.8
"""Standard deviation of the logarithm of a ragged batch's contexts."""

PREFILL_ALONE = {
    0: (128, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8192),
    2048: (512, 2048, 6144),
    8192: (512, 2048, 8192),
    15360: (1024, 4096),
}
"""Fresh tokens of one chunk a step, by the context before them."""

PREFILL_PACKED = (64, 128, 256, 512, 1024, 2048)
"""Prompt lengths of which several fill a step."""

MIXED: dict[int, dict[int, tuple[int, ...]]] = {
    512: {
        2: (256, 2048),
        8: (128, 512, 2048, 8000),
        32: (128, 512, 1024, 4096),
        64: (256, 1024, 2048, 8000),
        128: (128, 512, 2048, 4096),
        256: (256, 1024, 2048, 7800),
        512: (512, 2048),
    },
    2048: {256: (2048,)},
    4096: {16: (512, 2048), 64: (1024, 4096)},
}
"""Chunk sizes by decode context and decode batch."""

TRICKLE = (
    Point("trickle", chunk_tokens=256, output_tokens=16, gap_s=0.0),
    Point("trickle", chunk_tokens=256, output_tokens=16, gap_s=0.02),
    Point("trickle", chunk_tokens=256, output_tokens=16, gap_s=0.06),
    Point("trickle", chunk_tokens=256, output_tokens=16, gap_s=0.15),
    Point("trickle", chunk_tokens=256, output_tokens=16, gap_s=0.5),
    Point("trickle", chunk_tokens=32, output_tokens=1, gap_s=0.05),
    Point("trickle", chunk_tokens=1024, output_tokens=1, gap_s=0.05),
    Point("trickle", chunk_tokens=4096, output_tokens=1, gap_s=0.1),
)
"""One request at a time: the overheads outside the GPU, and how the power falls after a step."""

BURST = (
    Point("burst", chunk_tokens=1024, streams=24, gap_s=0.6),
    Point("burst", chunk_tokens=1024, streams=24, gap_s=0.2),
    Point("burst", batch=64, context_tokens=512, chunk_tokens=1024, streams=24, gap_s=0.6),
)
"""Work that begins on a cool GPU: what the power governor lets through at first."""

OPEN = (
    Point("open", chunk_tokens=600, output_tokens=120, gap_s=1 / 1.5),
    Point("open", chunk_tokens=1000, output_tokens=200, gap_s=1 / 4),
    Point("open", chunk_tokens=800, output_tokens=150, gap_s=1 / 8),
    Point("open", chunk_tokens=2000, output_tokens=40, gap_s=1 / 4),
    Point("open", chunk_tokens=400, output_tokens=60, gap_s=1 / 12),
    Point("open", chunk_tokens=1000, output_tokens=100, gap_s=1 / 16),
)
"""Arrivals that do not wait for the engine: launches are then not held up by the next request coming in."""

STANDARD_RAGGED = {
    400: (2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 72, 96, 128, 136, 192, 256, 512, 900),
    1200: (2, 4, 8, 16, 32, 64, 72, 96, 128, 136, 160, 256, 512, 1000),
    4000: (2, 8, 32, 64),
}

LARGE = (
    *(
        Point("ragged", batch=batch, context_tokens=context)
        for batch, context in ((150, 4000), (400, 1500), (600, 1000))
    ),
    *(
        Point("mixed", batch=batch, context_tokens=context, chunk_tokens=chunk, gap_s=gap_s)
        for batch, context, chunk, gap_s in (
            (400, 1500, 8000, 0.15),
            (600, 1000, 2000, 0.1),
            (600, 1000, 8000, 0.15),
            (900, 1000, 8000, 0.15),
        )
    ),
)
"""Batches that fill the KV cache, alone and beside prompts that fill the step: what offline work runs at."""

STANDARD_DECODE = {
    128: (1, 320, 384, 448, 480, 512, 640),
    1024: (1, 64, 76, 136, 256),
    4096: (1, 48),
    16384: (1, 8),
}
"""Batches of equal contexts: their KV tokens without a longest context."""

STANDARD_TRICKLE = (
    *(Point("trickle", chunk_tokens=256, output_tokens=16, gap_s=gap_s) for gap_s in (0.0, 0.06, 0.5)),
    *(
        Point("trickle", chunk_tokens=chunk, gap_s=0.05)
        for chunk in (32, 128, 256, 272, 384, 512, 528, 768, 1024, 1040, 1536, 2048, 3072, 4096, 8192)
    ),
)
"""Prompts just above a power of two, too: matrix products then may take one more wave of blocks."""

STANDARD_PREFILL = {0: (512, 1024, 2048, 4096, 8192), 2048: (6144,), 8192: (2048, 8192), 15360: (4096,)}

STANDARD_PACKED = (128, 512, 2048)

STANDARD_MIXED = {
    8: ((256, 20), (1024, 15), (4000, 5)),
    32: ((128, 30), (512, 20), (2000, 10)),
    64: ((1024, 15),),
    128: ((256, 20), (1024, 15), (4000, 6)),
    256: ((512, 20), (2000, 12)),
    512: ((512, 15), (2000, 8)),
    900: ((512, 15), (2000, 8)),
}
"""Prompt tokens and prompts a second, by decode batch."""

STANDARD_OPEN = (
    *OPEN,
    Point("open", chunk_tokens=60, output_tokens=400, gap_s=1 / 6),
    Point("open", chunk_tokens=1500, output_tokens=25, gap_s=1 / 2),
    Point("open", chunk_tokens=2500, output_tokens=30, gap_s=1 / 8),
    Point("open", chunk_tokens=300, output_tokens=250, gap_s=1 / 3),
    Point("open", chunk_tokens=150, output_tokens=30, gap_s=1 / 20),
    Point("open", chunk_tokens=1000, output_tokens=220, gap_s=1 / 24),
    Point("open", chunk_tokens=3000, output_tokens=20, gap_s=1 / 14),
)

SCAN = tuple(
    Point("scan", batch=batch, context_tokens=400 if batch else 0, chunk_tokens=8192, gap_s=0.03)
    for batch in (0, 8, 32)
)
"""What a step takes by its tokens, finely: kernels cut them into blocks, and lengths in service are any."""

SCANNED = 128
"""Prompts of a scan."""

SHORTEST = 16
"""Tokens of a scan's shortest prompt, and of any sequence's context."""

ONE_SEQUENCE = Point("decode", batch=1, context_tokens=128)
"""One sequence that decodes: the shortest steps there are."""

CARD_LOADS = (
    Point("idle"),
    ONE_SEQUENCE,
    *(Point("ragged", batch=batch, context_tokens=400) for batch in (4, 16, 64)),
    *(Point("ragged", batch=batch, context_tokens=1200) for batch in (8, 32)),
    *(Point("prefill", chunk_tokens=chunk, streams=2) for chunk in (1024, 4096)),
    *(Point("trickle", chunk_tokens=chunk, gap_s=0.05) for chunk in (256, 1024)),
    OPEN[1],
    OPEN[3],
)
"""What tells one card, and its host, from another: two of each kind that a replay mostly consists of."""

KV_SHARE = 0.9
"""Share of the KV cache that a load may fill: beyond it requests would be preempted."""

GROWTH_TOKENS = 256
"""What each sequence of a large batch may decode meanwhile."""

QUICK = (
    Point("idle"),
    ONE_SEQUENCE,
    Point("decode", batch=16, context_tokens=128),
    Point("decode", batch=16, context_tokens=1024),
    Point("ragged", batch=16, context_tokens=400),
    Point("open", chunk_tokens=100, output_tokens=10, gap_s=0.1),
    Point("prefill", chunk_tokens=512, streams=2),
    Point("prefill", chunk_tokens=2048, streams=2),
    Point("prefill", chunk_tokens=256, streams=24),
    Point("prefill", chunk_tokens=1024, context_tokens=1024, streams=2),
    Point("mixed", batch=8, context_tokens=512, chunk_tokens=512, streams=2),
    Point("trickle", chunk_tokens=256, output_tokens=16, gap_s=0.05),
    Point("burst", chunk_tokens=1024, streams=24, gap_s=0.3),
    Point("scan", batch=2, context_tokens=128, chunk_tokens=2048, gap_s=0.005),
)
"""A grid for rehearsals: every kind once, too coarse for a table to trust."""


def loads(limits: Limits, grid: GridName) -> Iterator[Point]:
    """Yield each load of the grid that the engine can hold, once."""
    grids: dict[GridName, Iterable[Point]] = {
        "full": _full(limits),
        "standard": _standard(limits),
        "card": CARD_LOADS,
        "quick": QUICK,
    }
    candidates = grids[grid]
    for point in candidates:
        kv_tokens = (
            point.batch * (point.context_tokens + GROWTH_TOKENS) + 2 * point.streams * point.chunk_tokens
        )
        raggedness = 8 if point.kind in ("ragged", "open") or point.gap_s else 1
        chunk_tokens = point.chunk_tokens * (8 if point.kind == "open" else 1)
        longest = raggedness * point.context_tokens + chunk_tokens + 512
        if (
            point.batch + bool(point.streams or point.gap_s) <= limits.max_num_seqs
            and kv_tokens <= KV_SHARE * limits.kv_tokens
            and longest <= limits.max_model_len
            and (point.kind != "mixed" or point.batch < limits.max_num_batched_tokens)
        ):
            yield point


def _full(limits: Limits) -> Iterator[Point]:
    yield Point("idle")
    yield from _decodes(DECODE, RAGGED)
    yield from TRICKLE
    yield from _prefills(limits, PREFILL_ALONE, PREFILL_PACKED)
    for context, by_batch in MIXED.items():
        for batch, chunks in by_batch.items():
            yield from (
                Point("mixed", batch=batch, context_tokens=context, chunk_tokens=chunk, streams=2)
                for chunk in chunks
            )
    yield from BURST
    yield from OPEN
    yield from SCAN


def _standard(limits: Limits) -> Iterator[Point]:
    yield Point("idle")
    yield from _decodes(STANDARD_DECODE, STANDARD_RAGGED)
    yield from STANDARD_TRICKLE
    yield from _prefills(limits, STANDARD_PREFILL, STANDARD_PACKED)
    for batch, arrivals in STANDARD_MIXED.items():
        for chunk, per_s in arrivals:
            yield Point("mixed", batch=batch, context_tokens=512, chunk_tokens=chunk, gap_s=1 / per_s)
    yield from BURST
    yield from STANDARD_OPEN
    yield from SCAN
    yield from LARGE


def _decodes(equal: Sizes, ragged: Sizes) -> Iterator[Point]:
    """Yield decoding batches by context, of equal contexts and of unequal ones."""
    for context, batches in equal.items():
        yield from (Point("decode", batch=batch, context_tokens=context) for batch in batches)
    for context, batches in ragged.items():
        yield from (Point("ragged", batch=batch, context_tokens=context) for batch in batches)


def _prefills(limits: Limits, alone: Sizes, packed: tuple[int, ...]) -> Iterator[Point]:
    """Yield streams of prompts, one chunk a step by the context before it, and several to a step."""
    budget = limits.max_num_batched_tokens
    for context, chunks in alone.items():
        yield from (
            Point("prefill", context_tokens=context, chunk_tokens=chunk, streams=2)
            for chunk in chunks
            if chunk <= budget
        )
    for chunk in packed:
        yield Point("prefill", chunk_tokens=chunk, streams=3 * max(1, budget // chunk))


CACHED = ("idle", "decode", "ragged", "trickle")
"""Kinds measured first in each repeat: the others push the decode contexts out of the prefix cache."""


def contexts(point: Point) -> list[int]:
    """Return the context of each decoding sequence: equal, or quantiles of a log-normal of that mean.

    They are unequal in ragged loads, in scans, and in mixed loads whose prompts come at random times.
    """
    if not point.is_unequal:
        return [point.context_tokens] * point.batch
    normal = NormalDist()
    weights = [exp(RAGGEDNESS * normal.inv_cdf((i + 0.5) / point.batch)) for i in range(point.batch)]
    scale = point.batch * point.context_tokens / sum(weights)
    return [max(round(scale * weight), SHORTEST) for weight in weights]


def scanned_lengths(point: Point) -> list[int]:
    """Return the prompt lengths of a scan, ascending, others in each repeat; the cube roots lie evenly."""
    shift = (0.5 + point.repeat * 0.618034) % 1.0
    span = point.chunk_tokens - SHORTEST
    return [round(SHORTEST + span * ((i + shift) / SCANNED) ** 3) for i in range(SCANNED)]


def order(points: list[Point], repeats: int, seed: int) -> list[Point]:
    """Return `repeats` rounds of the loads, each round in a seeded random order of its own."""
    rng = np.random.default_rng(seed)
    rounds: list[Point] = []
    for repeat in range(repeats):
        for early in (True, False):
            block = [point for point in points if (point.kind in CACHED) is early]
            for index in rng.permutation(len(block)):
                rounds.append(replace(block[index], repeat=repeat))
    return rounds
