"""The step log: what each engine step held and when, one fixed-size row a step."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

STEP = np.dtype(
    [
        ("scheduled_s", "f8"),
        ("done_s", "f8"),
        ("chunks", "i4"),
        ("prefill_tokens", "i4"),
        ("prefill_pairs", "f8"),
        ("decode_seqs", "i4"),
        ("kv_tokens", "i8"),
        ("longest_tokens", "i8"),
        ("running", "i4"),
        ("waiting", "i4"),
        ("free_blocks", "i4"),
    ]
)
"""Monotonic times of the scheduling decision and of its output processed; the rest as in `sim.step_cost`."""

PATH_VARIABLE = "REPLAY_STEP_LOG"
"""Environment variable that tells the engine's process where the log goes."""


def read_steps(path: Path, since_s: float = 0.0) -> NDArray[np.void]:
    """Return the steps whose output was processed at or after `since_s`, dtype STEP, in time order."""
    if not path.exists():
        return np.zeros(0, dtype=STEP)
    whole = path.stat().st_size // STEP.itemsize
    rows = np.fromfile(path, dtype=STEP, count=whole)
    kept: NDArray[np.void] = rows[np.searchsorted(rows["done_s"], since_s) :]
    return kept
