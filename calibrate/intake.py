"""What taking in requests costs the engine core, read where a whole batch comes at once."""

from collections.abc import Iterable

import numpy as np

from calibrate.grid import contexts
from calibrate.raw import RawPoint

AT_ONCE = ("decode", "ragged")
"""Kinds of points that send all their requests at once."""

ENOUGH = 10
"""Points that must show it."""


def read_intake(points: Iterable[RawPoint]) -> tuple[float, float]:
    """Return seconds that a request, and each token of its prompt, keep the engine core from deciding.

    Between the first two decisions of a batch lie the launch of the first step and the intake of those whom
    only the second one finds. Both are 0 where fewer than ENOUGH points show it.
    """
    from scipy.optimize import nnls

    causes, seconds = [], []
    for raw in points:
        if raw.point.kind not in AT_ONCE or len(raw.steps["scheduled_s"]) < 2:
            continue
        known = raw.steps["running"] + raw.steps["waiting"]
        taken_in = known[1] - known[0]
        if taken_in > 0:
            mean_tokens = sum(contexts(raw.point)) / raw.point.batch
            causes.append((1.0, taken_in, taken_in * mean_tokens))
            seconds.append(raw.steps["scheduled_s"][1] - raw.steps["scheduled_s"][0])
    if len(seconds) < ENOUGH:
        return 0.0, 0.0
    relative = np.array(causes) / np.array(seconds)[:, None]
    (_, intake_s, intake_token_s), _ = nnls(relative, np.ones(len(seconds)))
    return float(intake_s), float(intake_token_s)
