"""Raw points: what is read is what was written, whatever was cut off, and energies come from the counter."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from calibrate.grid import Kind, Point
from calibrate.raw import (
    STEP_COLUMNS,
    RawPoint,
    append,
    from_json,
    read_lines,
    read_parquet,
    to_json,
    write_parquet,
)

KINDS: tuple[Kind, ...] = ("idle", "decode", "prefill", "mixed", "trickle", "burst")
times = st.floats(-10.0, 1000.0).map(lambda value: round(value, 6))
energies = st.floats(0.0, 1e6).map(lambda value: round(value, 4))


def pairs(width: int, elements: st.SearchStrategy[float]) -> st.SearchStrategy[Any]:
    return st.integers(0, 5).flatmap(lambda rows: hnp.arrays(np.float64, (rows, width), elements=elements))


def raw_points() -> st.SearchStrategy[RawPoint]:
    steps = st.integers(0, 4).flatmap(
        lambda rows: st.fixed_dictionaries(
            {name: hnp.arrays(np.float64, rows, elements=times) for name in STEP_COLUMNS}
        )
    )
    points = st.builds(
        Point,
        kind=st.sampled_from(KINDS),
        batch=st.integers(0, 1024),
        context_tokens=st.integers(0, 16384),
        chunk_tokens=st.integers(0, 8192),
        streams=st.integers(0, 100),
        output_tokens=st.integers(1, 16),
        gap_s=st.floats(0.0, 1.0),
        repeat=st.integers(0, 9),
    )
    return st.builds(
        RawPoint,
        point=points,
        session=st.integers(0, 9),
        began_at=st.datetimes().map(lambda moment: moment.isoformat()),
        window_s=st.tuples(times, times),
        end_s=times,
        steps=steps,
        counter=pairs(2, energies),
        power=pairs(2, energies),
        requests=pairs(3, times),
        clock_mhz=st.floats(0.0, 3000.0) | st.just(float("nan")),
        temperature_c=st.floats(0.0, 100.0),
        throttle_reasons=st.integers(0, 2**9 - 1),
    )


def some_point(repeat: int = 0) -> RawPoint:
    return RawPoint(
        point=Point("decode", batch=8, context_tokens=128, repeat=repeat),
        session=0,
        began_at="2026-01-01T00:00:00+00:00",
        window_s=(0.5, 2.0),
        end_s=2.1,
        steps={name: np.arange(3.0) for name in STEP_COLUMNS},
        counter=np.array([[-0.1, 0.0], [0.9, 100.0], [1.9, 300.0], [2.9, 400.0]]),
        power=np.array([[-0.1, 100.0], [0.9, 200.0], [1.9, 100.0]]),
        requests=np.zeros((0, 3)),
        clock_mhz=1980.0,
        temperature_c=50.0,
        throttle_reasons=0,
    )


def same(one: RawPoint, other: RawPoint) -> bool:
    return to_json(one) == to_json(other)


@given(raw_points())
def test_a_point_survives_json(raw: RawPoint) -> None:
    read = from_json(json.loads(json.dumps(to_json(raw), allow_nan=False)))
    assert read.point == raw.point
    assert (read.window_s, read.end_s) == (raw.window_s, raw.end_s)
    assert set(read.steps) == set(STEP_COLUMNS)
    for name in STEP_COLUMNS:
        np.testing.assert_array_equal(read.steps[name], raw.steps[name])
    for name in ("counter", "power", "requests"):
        assert getattr(read, name).shape == getattr(raw, name).shape
        np.testing.assert_array_equal(getattr(read, name), getattr(raw, name))
    assert same(read, raw)


@settings(max_examples=30)
@given(st.lists(raw_points(), min_size=1, max_size=3))
def test_points_and_facts_survive_parquet(
    tmp_path_factory: pytest.TempPathFactory, raws: list[RawPoint]
) -> None:
    path = tmp_path_factory.mktemp("raw") / "points.parquet"
    facts = {"engine": {"max_num_seqs": 8, "quantization": None}, "date": "2026-01-01"}
    write_parquet(path, raws, facts)
    read, facts_read = read_parquet(path)
    assert facts_read == facts
    assert len(read) == len(raws)
    assert all(map(same, read, raws))


def test_points_from_before_a_column_was_kept_are_without_it_beside_others(tmp_path: Path) -> None:
    new = some_point()
    old = replace(new, steps={name: column for name, column in new.steps.items() if name != "longest_tokens"})
    write_parquet(tmp_path / "points.parquet", [old, new], {})
    read, _ = read_parquet(tmp_path / "points.parquet")
    assert same(read[0], old)
    assert same(read[1], new)


def test_lines_are_read_in_the_order_in_which_they_were_appended(tmp_path: Path) -> None:
    path = tmp_path / "points.jsonl"
    assert read_lines(path) == []
    for repeat in range(3):
        append(path, some_point(repeat))
    assert [raw.point.repeat for raw in read_lines(path)] == [0, 1, 2]


@given(st.data())
def test_a_last_line_cut_anywhere_is_dropped_and_the_file_goes_on(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("raw") / "points.jsonl"
    append(path, some_point(0))
    whole = path.stat().st_size
    append(path, some_point(1))
    size = path.stat().st_size
    cut = data.draw(st.integers(whole, size - 1), label="bytes kept")
    with open(path, "r+b") as file:
        file.truncate(cut)
    assert [raw.point.repeat for raw in read_lines(path)] == [0]
    assert path.stat().st_size == whole
    append(path, some_point(2))
    assert [raw.point.repeat for raw in read_lines(path)] == [0, 2]


def test_a_broken_line_before_the_last_is_refused_and_nothing_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "points.jsonl"
    for repeat in range(2):
        append(path, some_point(repeat))
    text = path.read_text()
    path.write_text(text.replace('"session"', '"sessio', 1))
    with pytest.raises(
        ValueError, match=r"points.jsonl: line 1 is no point .*; remove the line or use another --out"
    ):
        read_lines(path)
    assert len(path.read_text().splitlines()) == 2


def test_energy_is_linear_between_ticks_and_adds_up() -> None:
    raw = some_point()
    assert raw.energy_j(0.4, 1.4) == pytest.approx(50.0 + 100.0)
    assert raw.energy_j(0.4, 2.0) == pytest.approx(raw.energy_j(0.4, 1.1) + raw.energy_j(1.1, 2.0))


@pytest.mark.parametrize("window_s", [(-0.2, 1.0), (1.0, 3.0)])
def test_energy_outside_the_ticks_is_refused(window_s: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match=r"decode-8-128.*: the energy counter ticked from -0.100 to 2.900 s"):
        some_point().energy_j(*window_s)


def test_power_is_held_between_its_changes() -> None:
    assert some_point().integrated_j(0.4, 2.4) == pytest.approx(0.5 * 100.0 + 1.0 * 200.0 + 0.5 * 100.0)
