"""What policies are told of output lengths: nothing, the truth, or a guess with a stated error."""

import math
import re
from dataclasses import replace

import numpy as np

from traces.trace import Trace

LONGEST = np.iinfo(np.int32).max


def predict_lengths(trace: Trace, how: str, seed: int = 0) -> Trace:
    """Return the trace with the predictions that policies are told of, and a note that says which.

    A noisy prediction is the true length times a log-normal factor of mean 1 and coefficient of variation
    cv, rounded, at least 1.

    Args:
        trace: In the order in which the noise is drawn.
        how: `none`, `oracle` (the truth) or `noisy:cv=F`, F at least 0.
        seed: Of the noise.

    Raises:
        ValueError: `how` is none of these.
    """
    cv = _cv(how)
    if cv is None:
        return replace(trace, predicted_output_tokens=None)
    sigma = math.sqrt(math.log1p(cv * cv))
    factor = np.exp(np.random.default_rng(seed).normal(-sigma * sigma / 2, sigma, len(trace)))
    predicted = np.clip(np.rint(trace.output_tokens * factor), 1, LONGEST).astype(np.int32)
    note = f"Policies were told output lengths, predicted as {how}" + (f", seed {seed}." if cv else ".")
    return replace(trace, predicted_output_tokens=predicted, notes=(*trace.notes, note))


def _cv(how: str) -> float | None:
    if how in ("none", "oracle"):
        return None if how == "none" else 0.0
    found = re.fullmatch(r"noisy:cv=(\d+\.?\d*|\.\d+)", how)
    if found is None:
        raise ValueError(f"length prediction must be none, oracle or noisy:cv=F, F >= 0, got {how!r}")
    return float(found[1])
