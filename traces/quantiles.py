"""Quantile tables: a distribution in at most 200 numbers, too few to give back the values it was made of."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from traces.trace import Floats

STEPS = 180
TAIL = (0.99, 0.9925, 0.997, 0.998, 0.999, 0.9995, 0.9998, 0.9999)
LEAST_VALUES_A_STEP = 5
DIGITS = 5
SLICE_ROWS = 1 << 20


@dataclass(frozen=True, slots=True)
class QuantileTable:
    """Values at ascending probabilities, straight between them.

    Attributes:
        probability: From 0 to 1, ascending.
        value: Not descending, as many.
    """

    probability: tuple[float, ...]
    value: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.probability) != len(self.value) or len(self.value) < 2:
            raise ValueError(
                f"a quantile table needs as many values as probabilities, at least 2, "
                f"got {len(self.value)} and {len(self.probability)}"
            )
        p, v = np.array(self.probability), np.array(self.value)
        if (
            p[0] != 0
            or p[-1] != 1
            or (np.diff(p) <= 0).any()
            or (np.diff(v) < 0).any()
            or not np.isfinite(v).all()
        ):
            raise ValueError(
                "a quantile table needs probabilities ascending from 0 to 1 and values that never fall"
            )

    def at(self, probability: Floats) -> Floats:
        """Return the values at `probability`, any shape."""
        return np.interp(probability, self.probability, self.value)


def tabulate(values: NDArray[np.floating] | NDArray[np.integer]) -> QuantileTable:
    """Return the quantiles of `values`, finer in the upper tail; between two of them lie at least 5 values.

    Args:
        values: At least 10, shape (values,).

    Raises:
        ValueError: There are fewer.
    """
    if len(values) < 2 * LEAST_VALUES_A_STEP:
        raise ValueError(
            f"a quantile table needs at least {2 * LEAST_VALUES_A_STEP} values, got {len(values)}"
        )
    least = LEAST_VALUES_A_STEP / len(values)
    kept = [0.0]
    for probability in sorted({*np.linspace(0, 1, STEPS + 1)[1:-1].round(6).tolist(), *TAIL}):
        if probability - kept[-1] >= least and 1 - probability >= least:
            kept.append(probability)
    kept.append(1.0)
    found = np.quantile(values.astype(np.float64), kept)
    return QuantileTable(tuple(kept), tuple(float(f"{value:.{DIGITS}g}") for value in found.tolist()))


def spaced(rng: np.random.Generator, count: int) -> Floats:
    """Return `count` probabilities, one drawn from each of as many equal steps, in random order.

    A sample taken at them follows a table more closely than independent draws would.
    """
    drawn = (np.arange(count) + rng.random(count)) / max(count, 1)
    rng.shuffle(drawn)
    return drawn


def ranks(values: NDArray[np.floating] | NDArray[np.integer], rng: np.random.Generator) -> NDArray[np.int64]:
    """Return the rank of each value, from 0, equal values in random order."""
    order = np.lexsort((rng.random(len(values)), values))
    found = np.empty(len(values), dtype=np.int64)
    found[order] = np.arange(len(values))
    return found


def rank_correlation(one: NDArray[np.integer], other: NDArray[np.integer]) -> float | None:
    """Return Spearman's rank correlation, equal values sharing the mean of their ranks.

    None where a column does not vary. Memory beside the columns: a sorted copy of one of them.
    """
    left, right = _MeanRanks(one), _MeanRanks(other)
    if left.variance == 0 or right.variance == 0:
        return None
    product = 0.0
    for start in range(0, len(one), SLICE_ROWS):
        part = slice(start, start + SLICE_ROWS)
        product += float(np.dot(left.of(one[part]), right.of(other[part])))
    return product / len(one) / math.sqrt(left.variance * right.variance)


class _MeanRanks:
    """Ranks of values, less the mean of all ranks."""

    def __init__(self, values: NDArray[np.integer]) -> None:
        self._values, sizes = np.unique(values, return_counts=True)
        self._ranks = np.cumsum(sizes) - (sizes + 1) / 2 - (len(values) - 1) / 2
        self.variance = float(np.dot(self._ranks**2, sizes)) / len(values)

    def of(self, values: NDArray[np.integer]) -> Floats:
        ranks: Floats = self._ranks[np.searchsorted(self._values, values)]
        return ranks
