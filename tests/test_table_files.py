"""Cost tables on disk: what is written is read, and what cannot be used is refused in a line."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_table import TOY_TABLE, toy_table

from sim.table import CostTable
from sim.table_files import DEFAULT, TABLE_FILE, load_table, save_table, shipped, table_to_json


def same(one: CostTable, other: CostTable) -> bool:
    return json.dumps(table_to_json(one)) == json.dumps(table_to_json(other))


@pytest.mark.parametrize(
    "table",
    [
        TOY_TABLE,
        toy_table(padded=np.array([0, 1, 2, 4, 4]), cap_w=690.0, name="capped", source="measured"),
        toy_table(engine={"max_num_seqs": 8, "quantization": None}, meta={"errors": {"decode": {"n": 1.5}}}),
    ],
    ids=["uncapped", "padded", "with meta"],
)
def test_a_table_survives_the_disk(table: CostTable, tmp_path: Path) -> None:
    save_table(table, tmp_path)
    for place in (tmp_path, tmp_path / TABLE_FILE):
        read = load_table(str(place))
        assert same(read, table)
        for name, value in table.coefficients._asdict().items():
            np.testing.assert_array_equal(getattr(read.coefficients, name), value)
        assert read.coefficients.padded.dtype == np.int64
        assert read.coefficients.knots.dtype == np.float64
        assert read.host == table.host


def test_the_file_is_json_that_any_reader_takes(tmp_path: Path) -> None:
    save_table(TOY_TABLE, tmp_path)

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    json.loads((tmp_path / TABLE_FILE).read_text(), parse_constant=refuse)


def test_each_shipped_table_loads_under_its_name_and_says_where_it_was_measured() -> None:
    names = list(shipped())
    assert DEFAULT in names
    for name in names:
        table = load_table(name)
        assert table.name == name
        assert table.source == "measured"
        assert table.gpu in table.measured_on
        assert table.coefficients.idle_w > table.bare_idle_w > 0
        assert table.coefficients.cap_w <= table.power_limit_w * table.gpus


def test_an_unknown_table_is_answered_with_those_there_are() -> None:
    with pytest.raises(ValueError, match=f"no table 'h900'; there are .*{DEFAULT}.*, or give the folder"):
        load_table("h900")


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", '"text"', "\x00\x01", "null"])
def test_a_file_that_is_no_table_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "broken.json"
    path.write_text(text)
    with pytest.raises(
        ValueError, match=r"broken.json: not a cost table: .*; make one with `replay calibrate`"
    ):
        load_table(str(path))


def test_a_binary_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "points.parquet"
    path.write_bytes(b"PAR1\xff\xfe\x80")
    with pytest.raises(ValueError, match=r"points.parquet: not a cost table"):
        load_table(str(path))


def test_another_format_is_refused_by_its_number(tmp_path: Path) -> None:
    save_table(TOY_TABLE, tmp_path)
    change(tmp_path, lambda values: values.update(format=1))
    with pytest.raises(
        ValueError, match=r"table\.json: not a cost table: its format is 1, this version reads 4 and 5;"
    ):
        load_table(str(tmp_path))


def test_a_table_of_format_4_costs_what_it_cost(tmp_path: Path) -> None:
    save_table(TOY_TABLE, tmp_path)
    names = ("beyond_mean", "resting")

    def as_it_was(values: dict[str, Any]) -> None:
        values["format"] = 4
        for name in names:
            del values["coefficients"][name]

    change(tmp_path, as_it_was)
    read = load_table(str(tmp_path)).coefficients
    assert (read.beyond_mean, read.resting) == (0.0, 1.0)
    change(tmp_path, lambda values: values.update(format=5))
    with pytest.raises(ValueError, match="coefficients has no beyond_mean"):
        load_table(str(tmp_path))


@pytest.mark.parametrize(
    ("part", "name"),
    [(None, "gpu"), ("coefficients", "knots"), ("coefficients", "idle_w"), ("host", "lead_s")],
)
def test_a_missing_number_is_named(part: str | None, name: str, tmp_path: Path) -> None:
    save_table(TOY_TABLE, tmp_path)
    change(tmp_path, lambda values: (values[part] if part else values).pop(name))
    with pytest.raises(ValueError, match=rf"table.json: not a cost table: .* has no {name};"):
        load_table(str(tmp_path))


def test_a_number_too_many_is_named(tmp_path: Path) -> None:
    save_table(TOY_TABLE, tmp_path)
    change(tmp_path, lambda values: values["coefficients"].update(per_dream=[0.0, 1.0]))
    with pytest.raises(ValueError, match="coefficients has an unknown per_dream"):
        load_table(str(tmp_path))


@pytest.mark.parametrize("value", ["high", None, [["a"]], float("nan")])
def test_a_coefficient_that_is_no_number_is_named(value: Any, tmp_path: Path) -> None:
    save_table(TOY_TABLE, tmp_path)
    change(tmp_path, lambda values: values["coefficients"].update(idle_w=value))
    with pytest.raises(ValueError, match=r"table\.json: not a cost table: idle_w must"):
        load_table(str(tmp_path))


def test_a_power_limit_that_is_no_number_is_refused(tmp_path: Path) -> None:
    save_table(TOY_TABLE, tmp_path)
    change(tmp_path, lambda values: values.update(power_limit_w=None))
    with pytest.raises(ValueError, match="power_limit_w must be a finite number, got None"):
        load_table(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("linear_j", [1.0, 2.0], "linear_j must hold 5 numbers, got 2"),
        ("per_kv", [1.0], "per_kv must hold 2 numbers, got 1"),
        ("knots", [1.0, 64.0, 64.0, 100.0, 200.0], "knots must be at least 2 and ascend"),
        ("knots", 5.0, "knots must be a list of finite numbers"),
    ],
)
def test_coefficients_that_do_not_fit_together_are_refused(
    name: str, value: Any, message: str, tmp_path: Path
) -> None:
    save_table(TOY_TABLE, tmp_path)
    change(tmp_path, lambda values: values["coefficients"].update({name: value}))
    with pytest.raises(ValueError, match=message):
        load_table(str(tmp_path))


def change(folder: Path, edit: Any) -> None:
    values = json.loads((folder / TABLE_FILE).read_text())
    edit(values)
    (folder / TABLE_FILE).write_text(json.dumps(values))
