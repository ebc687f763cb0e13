"""Writes an invented week of requests as Parquet, by default as many as Azure's traces of 2024; run by hand.

    python tests/benchmarks/synthetic_week.py week.parquet

Each hour is drawn from the shipped statistics `chat` and `code`, at a rate that follows a day and a week: a
cosine with its peak in the afternoon, and weekends at half of the other days. One hour is in memory at a
time.
"""

import argparse
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from traces.parquet import write_parts
from traces.shape import Shape, read_shape
from traces.synthesize import synthesize
from traces.trace import Floats, Ints, Trace

HOUR_S = 3600.0
PEAK_HOUR, SWING, WEEKEND = 15, 0.6, 0.5


def main() -> None:
    """Write the week."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, help="the file to write")
    parser.add_argument("--chat", type=int, default=27_300_000, help="requests of conversations")
    parser.add_argument("--code", type=int, default=16_800_000, help="requests for code")
    parser.add_argument("--hours", type=int, default=168)
    parser.add_argument("--level", action="store_true", help="every hour alike")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    parts = week(given.chat, given.code, given.hours, given.level, given.seed)
    write_parts(parts, given.out, overwrite=True)


def week(chat: int, code: int, hours: int, is_level: bool, seed: int) -> Iterator[Trace]:
    """Yield the hours, one after the other."""
    shares = np.array([1.0 if is_level else weight_of(hour) for hour in range(hours)])
    shares /= shares.sum()
    totals = {"chat": chat, "code": code}
    kinds = [(*read_shape(name), counts(total, shares)) for name, total in totals.items()]
    for hour in range(hours):
        drawn = [
            hour_of(shape, sha256, int(requests[hour]), seed + 1000 * kind + hour)
            for kind, (shape, sha256, requests) in enumerate(kinds)
            if requests[hour]
        ]
        yield merged(drawn, hour * HOUR_S)


def weight_of(hour: int) -> float:
    """Return how busy an hour is, the week beginning at midnight on Monday."""
    of_day = 1.0 + SWING * math.cos(2 * math.pi * (hour % 24 - PEAK_HOUR) / 24)
    return of_day * (WEEKEND if hour // 24 % 7 >= 5 else 1.0)


def counts(total: int, shares: Floats) -> Ints:
    """Return whole numbers in these proportions that sum to `total`."""
    requests: Ints = np.diff(np.rint(np.cumsum(shares) * total), prepend=0).astype(np.int64)
    return requests


def hour_of(shape: Shape, sha256: str, requests: int, seed: int) -> Trace:
    """Return one hour of so many requests."""
    busier = replace(shape, rate_per_s=requests / HOUR_S)
    return synthesize(busier, sha256, seed=seed, duration_s=HOUR_S)


def merged(kinds: list[Trace], start_s: float) -> Trace:
    """Return the requests of all kinds in the order of their arrival."""
    arrival_s = np.concatenate([trace.arrival_s for trace in kinds])
    order = np.argsort(arrival_s, kind="stable")
    return replace(
        kinds[0],
        name="synthetic-week",
        source="; ".join(trace.source for trace in kinds),
        arrival_s=start_s + np.minimum(arrival_s[order], HOUR_S),
        prompt_tokens=np.concatenate([trace.prompt_tokens for trace in kinds])[order],
        output_tokens=np.concatenate([trace.output_tokens for trace in kinds])[order],
    )


if __name__ == "__main__":
    main()
