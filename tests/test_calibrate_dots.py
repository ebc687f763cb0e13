"""Dots for plots: each window beside its residual, and none that belongs to other points."""

from dataclasses import replace
from math import isnan
from pathlib import Path

import pytest
from invented_calibration import FACTS, calibration

from calibrate.dots import read_dots
from calibrate.fit import Residual
from calibrate.raw import write_parquet
from calibrate.table import write_residuals
from calibrate.windows import Window, windows


def residual(window: Window) -> Residual:
    """Return a residual of a model that finds 2 % more seconds and 1 % fewer joules."""
    key, kind = window.point.key, window.point.kind
    seconds, joules = window.seconds, window.joules
    return Residual(key, kind, seconds, joules, 1.02 * seconds, 0.99 * joules, None, None)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with points, and residuals of all but the first window."""
    write_parquet(tmp_path / "points.parquet", calibration(), FACTS)
    fitted = windows(calibration())[1:]
    write_residuals(tuple(residual(window) for window in fitted), tmp_path / "residuals.parquet")
    return tmp_path


def test_a_dot_tells_what_was_measured_and_what_the_model_makes_of_it(folder: Path) -> None:
    first, *others = read_dots(folder)
    for dot in others:
        window = dot.window
        assert dot.step_ms == pytest.approx(1e3 * window.seconds / (window.last - window.first))
        assert dot.power_w == pytest.approx(window.joules / window.seconds)
        assert dot.model_step_ms == pytest.approx(1.02 * dot.step_ms)
        assert dot.model_power_w == pytest.approx(0.99 / 1.02 * dot.power_w)
        assert (dot.seconds_error, dot.joules_error) == pytest.approx((0.02, -0.01))
    assert first.residual is None
    assert isnan(first.model_step_ms)
    assert isnan(first.model_power_w)


def test_a_load_measured_twice_has_two_residuals(folder: Path) -> None:
    twice = [*calibration(), *calibration()]
    write_parquet(folder / "points.parquet", twice, FACTS)
    found = windows(twice)
    residuals = [residual(window) for window in found]
    residuals[-1] = replace(residuals[-1], model_joules=2 * found[-1].joules)
    write_residuals(tuple(residuals), folder / "residuals.parquet")
    dots = read_dots(folder)
    assert [dot.joules_error for dot in dots] == pytest.approx([-0.01] * (len(found) - 1) + [1.0])


def test_residuals_of_other_points_are_refused(folder: Path) -> None:
    stray = replace(residual(windows(calibration())[1]), key="decode-7")
    write_residuals((stray,), folder / "residuals.parquet")
    with pytest.raises(
        ValueError, match=r"residuals\.parquet: decode-7 is not in .*; fit again with --fit-only"
    ):
        read_dots(folder)
