"""Traces of invented requests for tests."""

from collections.abc import Sequence

import numpy as np
from hypothesis import strategies as st

from traces.trace import Trace


def toy_trace(
    arrival_s: Sequence[float],
    prompt_tokens: int | Sequence[int] = 16,
    output_tokens: int | Sequence[int] = 4,
) -> Trace:
    """Return a trace of these columns; a single number of tokens goes for every request."""
    shape = len(arrival_s)
    return Trace(
        name="toy",
        source="invented for a test",
        licence="none",
        sha256="0" * 64,
        arrival_s=np.array(arrival_s, dtype=np.float64),
        prompt_tokens=np.broadcast_to(np.array(prompt_tokens, dtype=np.int32), shape).copy(),
        output_tokens=np.broadcast_to(np.array(output_tokens, dtype=np.int32), shape).copy(),
    )


@st.composite
def traces(draw: st.DrawFn, max_requests: int = 20, longest_gap_s: int = 20) -> Trace:
    """Draw a trace whose arrivals lie on multiples of 1/1024 s, some of them together."""
    gap = st.just(0) | st.integers(0, longest_gap_s * 1024)
    gaps = draw(st.lists(gap, min_size=1, max_size=max_requests))
    sizes = st.lists(st.integers(1, 300), min_size=len(gaps), max_size=len(gaps))
    return toy_trace((np.cumsum(gaps) / 1024).tolist(), draw(sizes), draw(sizes))
