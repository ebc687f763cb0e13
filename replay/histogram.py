"""Values counted by buckets, as metrics systems exchange them."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import fsum

import numpy as np

from traces.trace import Counts, Floats


@dataclass(frozen=True, slots=True)
class Histogram:
    """How many values lie in each bucket.

    Attributes:
        bounds: Upper bounds, each part of its bucket, ascending; the last bucket has none.
        counts: Values in each bucket, one more than there are bounds.
        total: Sum of the values.
    """

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    total: float

    @property
    def count(self) -> int:
        """Values in all buckets."""
        return sum(self.counts)


def histogram(values: Floats | Counts, bounds: Sequence[float]) -> Histogram:
    """Return how many of `values`, none of them NaN, lie in the buckets that end at `bounds`."""
    places = np.searchsorted(np.asarray(bounds), values, side="left")
    counts = np.bincount(places, minlength=len(bounds) + 1)
    return Histogram(tuple(bounds), tuple(counts.tolist()), fsum(values.tolist()))
