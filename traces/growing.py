"""A column that grows block by block without ever being held twice."""

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

STEP_ROWS = 1 << 20


class GrowingColumn:
    """Values so far, extended in place: a list of blocks joined at the end would need twice the memory."""

    def __init__(self, dtype: DTypeLike) -> None:
        self._values: NDArray[Any] = np.empty(0, dtype=dtype)
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def extend(self, block: NDArray[Any]) -> None:
        """Append `block`, cast to the column's type, which must hold its values."""
        end = self._length + len(block)
        if end > len(self._values):
            self._values.resize(end + STEP_ROWS, refcheck=False)
        self._values[self._length : end] = block
        self._length = end

    def take(self) -> NDArray[Any]:
        """Return the column and start anew."""
        values, self._values = self._values, np.empty(0, dtype=self._values.dtype)
        values.resize(self._length, refcheck=False)
        self._length = 0
        return values
