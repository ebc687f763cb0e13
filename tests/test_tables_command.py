"""`replay tables`: which tables there are, what they say, and how well the model replays their points."""

import json
import re
from pathlib import Path

from click.testing import CliRunner, Result
from terminal import terminal
from toy_table import toy_table

from replay.main import main
from replay.tables import cli
from replay.validation import read_validation, validation_rows
from sim.table import PowerState
from sim.table_files import DEFAULT, find_table, load_table, save_table, shipped


def tables(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["tables", *arguments])


def refusal_of(*arguments: str) -> str:
    done = tables(*arguments)
    assert done.exit_code == 2
    (line,) = done.stderr.splitlines()
    return line


def test_every_shipped_table_is_listed_with_where_it_was_measured_and_one_is_the_default() -> None:
    done = tables()
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert lines[0::2] == [
        f"{name} (measured{', the default' if name == DEFAULT else ''})" for name in shipped()
    ]
    assert lines[1::2] == [f"  {load_table(name).measured_on}" for name in shipped()]


def test_a_named_table_tells_its_powers_limits_and_errors() -> None:
    done = tables(DEFAULT)
    table = load_table(DEFAULT)
    assert (
        f"power limit {table.power_limit_w:.0f} W a GPU, held at {table.coefficients.cap_w:.0f} W"
        in done.stdout
    )
    assert f"idle {table.coefficients.idle_w:.0f} W loaded, {table.bare_idle_w:.0f} W bare" in done.stdout
    assert f"{table.coefficients.limits[1]:,.0f} sequences" in done.stdout
    for kind, errors in table.meta["errors"].items():
        assert f"{kind:8} {errors['windows']:4.0f} windows" in done.stdout


def test_no_error_of_a_replay_is_broken_where_a_terminal_is_narrow() -> None:
    shown = CliRunner().invoke(main, ["tables", DEFAULT], env={**terminal(60), "NO_COLOR": "1"}).stdout
    errors = {
        error
        for cells in validation_rows(read_validation(find_table(DEFAULT).parent))
        for error in "/".join(cells[3:]).split("/")
    }
    assert len(errors) > 20
    assert errors <= set(re.split(r"[\s/]+", shown))


def test_a_table_of_ones_own_is_shown_by_its_folder(tmp_path: Path) -> None:
    save_table(toy_table(name="mine"), tmp_path)
    done = tables(str(tmp_path))
    assert done.stdout.splitlines()[:3] == [
        "mine (assumed)",
        "  nowhere: invented numbers",
        "  power limit 700 W a GPU, not capped",
    ]


def test_an_unknown_table_is_one_line() -> None:
    assert refusal_of("h900").startswith("Error: no table 'h900'; there are ")


def test_a_plot_that_cannot_be_drawn_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    picture = tmp_path / "table.png"
    assert "--plot draws one table, got 0" in refusal_of("--plot", str(picture))
    assert "--plot draws one table, got 2" in refusal_of(DEFAULT, DEFAULT, "--plot", str(picture))
    assert "a plot ends in .png, .svg, .pdf" in refusal_of(DEFAULT, "--plot", str(tmp_path / "table.txt"))
    save_table(toy_table(), tmp_path)
    line = refusal_of(str(tmp_path), "--plot", str(picture))
    assert line.endswith("points.parquet: not there; a plot needs the points beside the table")
    assert {path.name for path in tmp_path.iterdir()} == {"table.json"}


def test_the_points_of_a_shipped_table_can_be_drawn_over_a_file_only_when_told_to(tmp_path: Path) -> None:
    picture = tmp_path / "table.svg"
    picture.write_text("precious")
    assert "exists already" in refusal_of(DEFAULT, "--plot", str(picture))
    assert picture.read_text() == "precious"
    done = tables(DEFAULT, "--plot", str(picture), "--overwrite")
    assert done.exit_code == 0, done.stderr
    assert done.stderr == f"The plot is in {picture}\n"
    drawn = picture.read_text()
    assert drawn.lstrip().startswith("<?xml")
    for kind, errors in load_table(DEFAULT).meta["errors"].items():
        assert f"{kind} ({errors['windows']})" in drawn


def test_every_option_is_in_the_docs() -> None:
    text = (Path(__file__).parents[1] / "docs" / "calibrate.md").read_text()
    for parameter in cli.params:
        for option in parameter.opts:
            assert option in text or not option.startswith("--"), option


def test_a_named_table_tells_its_power_states(tmp_path: Path) -> None:
    save_table(toy_table(states={"off": PowerState(78.0, 4.0, 480.25, 83.0, 10200.0)}), tmp_path)
    line = "  off 78.0 W; to it 4.00 s, 480 J; from it 83.00 s, 10200 J"
    assert line in tables(str(tmp_path)).stdout.splitlines()
    (told,) = json.loads(tables(str(tmp_path), "--json").stdout)["tables"]
    assert told["states"]["off"]["enter_j"] == 480.25
