"""What one GPU, and the host that it sits in, takes in terms of the mean one of a table."""

from typing import NamedTuple

import numpy as np

from sim.host_time import HostTime
from sim.step_cost import Coefficients

CARD_WIDTHS = {
    "fixed_": 0.05,
    "scaled_": 0.05,
    "pace_": 0.012,
    "host_": 0.15,
    "piecewise_": 0.15,
    "eager_": 0.2,
}
"""What tells cards apart, as `Factors` does, and how far, as a logarithm, it may reasonably lie off 1."""

BUSY = (
    *("lead_s", "graph_s", "per_token_s", "per_seq_s"),
    *("process_s", "process_seq_s", "intake_s", "intake_token_s"),
)
"""Fields of `HostTime` that tell of the engine core's thread, but for launches of many kernels."""


class Factors(NamedTuple):
    """What one card, and the host it sits in, takes in terms of the mean card.

    Attributes:
        fixed: Joules of work that does not wait for the clock (weights and KV from memory), and `busy_w`.
        scaled: Joules of work that does.
        pace: Seconds of the part of a step that no token adds to; its joules stay.
        host: Seconds that the engine core's thread is busy, but for
        piecewise, eager: the launch of a step as piecewise graphs, and of one larger than any graph.
    """

    fixed: float = 1.0
    scaled: float = 1.0
    pace: float = 1.0
    host: float = 1.0
    piecewise: float = 1.0
    eager: float = 1.0


def on_card(c: Coefficients, h: HostTime, factors: Factors) -> tuple[Coefficients, HostTime]:
    """Return the mean card's numbers for one card."""
    fixed = np.array([1.0, factors.fixed])
    scaled = np.array([1.0, factors.scaled])
    later_s = (factors.pace - 1.0) * c.linear_s[0]
    coefficients = c._replace(
        linear_s=c.linear_s + later_s,
        prompt_s=c.prompt_s + later_s,
        linear_j=factors.fixed * c.linear_j[0] + factors.scaled * (c.linear_j - c.linear_j[0]),
        prompt_j=factors.fixed * c.linear_j[0] + factors.scaled * (c.prompt_j - c.linear_j[0]),
        per_chunk=fixed * c.per_chunk,
        per_seq=fixed * c.per_seq,
        per_kv=fixed * c.per_kv,
        per_kv_mixed=fixed * c.per_kv_mixed,
        per_pair=scaled * c.per_pair,
        busy_w=factors.fixed * c.busy_w,
    )
    busy: dict[str, float] = {name: factors.host * getattr(h, name) for name in BUSY}
    host = h._replace(piecewise_s=factors.piecewise * h.piecewise_s, eager_s=factors.eager * h.eager_s)
    return coefficients, HostTime(**{**host._asdict(), **busy})
