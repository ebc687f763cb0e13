"""The validation that ships beside a table: written, read, shown, and there for every table."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from toy_run import toy_run

from replay.cases import Case
from replay.main import main
from replay.validation import (
    HEADINGS,
    read_validation,
    validation_rows,
    write_validation,
)
from sim.compare import Comparison, compare
from sim.compare_plot import plot_validation
from sim.table_files import find_table, shipped

CASE = Case("a", "toy.parquet", "immediate", from_s=1.0, to_s=2.0)


def compared() -> list[tuple[Case, Comparison]]:
    simulated = toy_run(energy_interval_j=(2300.0, 2500.0))
    measured = toy_run(kind="measured", energy_source="nvml", table=None, counter_j=[0.0, 1000.0, 2000.0])
    return [(CASE, compare(simulated, (measured,), force=True))]


def test_what_is_written_is_read_and_shown(tmp_path: Path) -> None:
    write_validation(compared(), tmp_path)
    (entry,) = read_validation(tmp_path)
    assert (entry["case"], entry["selection"]["from_s"]) == ("a", 1.0)
    assert HEADINGS == ("case", "energy", "95 %", "TTFT", "TPOT", "E2E")
    assert validation_rows([entry]) == [("a", "+0.00", "±4.2", *["+0.0/+0.0/+0.0"] * 3)]


def test_a_folder_without_one_has_no_entries_and_a_damaged_one_is_one_line(tmp_path: Path) -> None:
    assert read_validation(tmp_path) == []
    (tmp_path / "validation.json").write_text('[{"case": "a"}]')
    with pytest.raises(ValueError, match="not a validation as `replay validate` writes it"):
        read_validation(tmp_path)


def test_the_errors_are_drawn(tmp_path: Path) -> None:
    named = [(case.name, comparison) for case, comparison in compared()]
    plot_validation(named, "toy", tmp_path / "errors.png")
    assert (tmp_path / "errors.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", tuple(shipped()))
def test_every_shipped_table_shows_its_validation(name: str) -> None:
    entries = read_validation(find_table(name).parent)
    assert {entry["comparison"]["table"] for entry in entries} == {name}
    assert {entry["comparison"]["policy"] for entry in entries} >= {"immediate", "batch-window", "offline"}
    shown = CliRunner().invoke(main, ["tables", name])
    assert shown.exit_code == 0
    lines = shown.output.splitlines()[-len(entries) :]
    assert [line.split()[0] for line in lines] == [entry["case"] for entry in entries]
    assert max(map(len, lines)) <= 100


def test_no_request_of_a_trace_is_in_a_shipped_validation() -> None:
    for name in shipped():
        text = json.dumps(read_validation(find_table(name).parent))
        assert "arrival_s" not in text
        assert "prompt_tokens" not in text
