"""The intake of requests is read from batches that come at once, and only from these."""

from dataclasses import replace

import numpy as np
import pytest
from invented_calibration import calibration

from calibrate.grid import Point
from calibrate.intake import read_intake
from calibrate.raw import RawPoint

LAUNCH_S, INTAKE_S, INTAKE_TOKEN_S = 0.008, 4e-5, 1.5e-7


def batch_at_once(batch: int, context_tokens: int, first: int, kind: str = "decode") -> RawPoint:
    """Return a point whose first step is decided when `first` requests are in, the second with all."""
    (one, *_) = (raw for raw in calibration() if raw.point.kind == "decode")
    taken_in_s = (batch - first) * (INTAKE_S + INTAKE_TOKEN_S * context_tokens)
    steps = {name: column[:2].copy() for name, column in one.steps.items()}
    steps["scheduled_s"] = np.array([0.001, 0.001 + LAUNCH_S + taken_in_s])
    steps["running"], steps["waiting"] = np.array([first, 10.0]), np.array([0.0, batch - 10.0])
    point = Point(kind, batch=batch, context_tokens=context_tokens)  # type: ignore[arg-type]
    return replace(one, point=point, steps=steps)


BATCHES = [
    batch_at_once(batch, tokens, first)
    for batch, first in ((16, 2), (64, 5), (256, 3), (500, 9))
    for tokens in (128, 1024, 4096)
]


def test_a_request_and_its_tokens_are_told_apart() -> None:
    assert read_intake(BATCHES) == pytest.approx((INTAKE_S, INTAKE_TOKEN_S), rel=1e-6)


def test_other_loads_do_not_count() -> None:
    others = [batch_at_once(400, 512, 1, kind) for kind in ("prefill", "mixed", "open")]
    assert read_intake([*BATCHES, *others]) == read_intake(BATCHES)


def test_a_few_batches_do_not_say() -> None:
    assert read_intake(BATCHES[:9]) == (0.0, 0.0)
    assert read_intake(calibration()) == (0.0, 0.0)
