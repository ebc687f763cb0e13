"""A quantity over time: steps, periods, and what is refused."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.series import Series, read_series


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "grid.csv"


def test_a_value_holds_from_its_time_on(path: Path) -> None:
    path.write_text("time_s,note,g_per_kwh\n0,night,300\n3600,morning,200.5\n7200,noon,80\n")
    series = read_series(path, "g_per_kwh")
    at = {-1.0: 300.0, 0.0: 300.0, 3599.9: 300.0, 3600.0: 200.5, 7200.0: 80.0, 1e9: 80.0}
    assert {time_s: series.at(time_s) for time_s in at} == at
    changes = [series.next_change_s(time_s) for time_s in (-1.0, 0.0, 3600.0, 7200.0)]
    assert changes == [0.0, 3600.0, 7200.0, math.inf]


def test_a_period_repeats_the_values(path: Path) -> None:
    path.write_text("time_s,g_per_kwh\n0,300\n10,80\n")
    series = read_series(path, "g_per_kwh", period_s=24.0)
    assert [series.at(time_s) for time_s in (9.0, 10.0, 23.9, 24.0, 33.9, 34.0)] == [
        300,
        80,
        80,
        300,
        300,
        80,
    ]
    assert [series.next_change_s(time_s) for time_s in (0.0, 10.0, 24.0, 34.0)] == [10.0, 24.0, 34.0, 48.0]


@given(st.floats(0, 1e6), st.sampled_from([0.1, 0.7, 86400.0]))
def test_nothing_changes_before_the_next_change_which_is_later(time_s: float, period_s: float) -> None:
    series = Series(np.array([0.0, period_s / 3]), np.array([1.0, 2.0]), period_s)
    change_s = series.next_change_s(time_s)
    assert time_s < change_s <= time_s + period_s
    assert series.at(math.nextafter(change_s, 0.0)) == series.at(time_s)
    reached_s = change_s
    while series.at(reached_s) == series.at(time_s):  # a rounding before it
        reached_s = series.next_change_s(reached_s)
    assert reached_s == pytest.approx(change_s, abs=1e-9)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no column 'time_s'; it has none"),
        ("time_s,price\n0,1\n", "no column 'g_per_kwh'; it has time_s, price"),
        ("time_s,g_per_kwh\n", "no rows; a series needs at least one"),
        ("time_s,g_per_kwh\n0,much\n", "line 2: g_per_kwh must be a finite number, got 'much'"),
        ("time_s,g_per_kwh\n0,1\n5\n", "line 3: g_per_kwh must be a finite number, got None"),
        ("time_s,g_per_kwh\nnan,1\n", "line 2: time_s must be a finite number, got 'nan'"),
        ("time_s,g_per_kwh\n5,1\n5,2\n", "times must ascend, got 5 s after 5 s"),
    ],
)
def test_a_bad_file_is_one_line(path: Path, text: str, message: str) -> None:
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_series(path, "g_per_kwh")


def test_a_period_ends_after_the_last_time(path: Path) -> None:
    path.write_text("time_s,g_per_kwh\n0,1\n5,2\n")
    with pytest.raises(ValueError, match="period_s must be finite and after the last time, 5 s, got 5"):
        read_series(path, "g_per_kwh", period_s=5.0)
