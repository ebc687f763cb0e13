"""What all commands have in common: --json, --quiet, terminals, pipes and encodings."""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result
from doc_runs import fill
from terminal import PLAIN_TERMINAL, terminal

from replay.main import COMMANDS, main
from replay.output import is_watched, output_options
from replay.screen import View, bad, encodable, indented, plain, table

UNANSWERED = {"explore": "serves until it is stopped and comes to no result"}
"""Commands without --json and --quiet."""
ELSEWHERE = {
    "calibrate": "needs a GPU: test_calibrate_command.py",
    "validate": "needs an engine: test_validate.py",
    "optimize": "needs Optuna: test_optimize.py",
}
"""Commands whose --json is tested in another file."""
CHAT = "traces/chat.parquet"
RUN = "runs/mine"
BEFORE = (
    f"{CHAT} --out {RUN}",
    f"export {RUN} --format vllm-bench --out bench.json",
    "import vllm-bench bench.json --out runs/bench",
    "runs/bench/requests.parquet --out runs/simulated",
)
ANSWERS = {
    f"run {CHAT} --out runs/new": "runs/new",
    f"trace info {CHAT}": None,
    "trace convert mine.csv mine.parquet": "mine.parquet",
    "trace fetch": None,
    "trace describe mine.csv --out statistics.json": "statistics.json",
    "trace synthesize --statistics chat --duration 20 --out drawn.parquet": "drawn.parquet",
    f"trace compare {CHAT} traces/code.parquet": None,
    f"sweep {CHAT} --jobs 1 --grid max_num_seqs=2,4 --out swept": "swept",
    f"estimate {CHAT}": None,
    "compare runs/simulated runs/bench": None,
    f"report {RUN} --out report.html": "report.html",
    f"export {RUN} --format otel --out otel.json": "otel.json",
    "import vllm-bench bench.json --out runs/again": "runs/again",
    "tables": None,
    "tables h200-llama-3.1-8b-bf16": None,
    "doctor": None,
}
"""Commands, and the path of what they write."""
ESCAPE = "\x1b["
COLOUR = re.compile(r"\x1b\[[\d;]*3\dm")


def leaves() -> Iterator[tuple[str, click.Command]]:
    for name in COMMANDS:
        command = main.get_command(click.Context(main), name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from ((f"{name} {one}", leaf) for one, leaf in command.commands.items())
        else:
            yield name, command


def invoke(line: str, env: dict[str, str] | None = None, charset: str = "utf-8") -> Result:
    runner = CliRunner(charset=charset)
    return runner.invoke(main, line.split(), prog_name="replay", env=env)


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with small files, a run and an imported one."""
    monkeypatch.chdir(tmp_path)
    fill(tmp_path)
    for line in BEFORE:
        result = invoke(line)
        assert result.exit_code == 0, result.output


def test_every_command_has_json_and_quiet() -> None:
    for name, command in leaves():
        options = {option for parameter in command.params for option in parameter.opts}
        assert ({"--json", "--quiet"} <= options) == (name not in UNANSWERED), name


def test_the_answer_of_every_command_is_tested() -> None:
    tested = {name for name, _ in leaves() for line in ANSWERS if line.startswith(name)}
    assert tested | set(ELSEWHERE) | set(UNANSWERED) == {name for name, _ in leaves()}


@pytest.mark.usefixtures("scratch")
@pytest.mark.parametrize("line", ANSWERS)
def test_json_is_one_object_on_standard_output(line: str) -> None:
    result = invoke(f"{line} --json")
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout, parse_constant=pytest.fail)
    assert isinstance(answer, dict)
    assert len(answer) > 1 or any(answer.values())
    assert result.stdout.count("\n") == 1
    if ANSWERS[line] is not None:
        assert answer["out"] == ANSWERS[line]
        assert Path(answer["out"]).exists()


@pytest.mark.usefixtures("scratch")
@pytest.mark.parametrize("line", ANSWERS)
def test_quiet_is_the_path_of_what_was_written_or_nothing(line: str) -> None:
    result = invoke(f"{line} --quiet")
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    if (out := ANSWERS[line]) is not None:
        assert result.stdout == f"{out}\n"
        assert Path(out).exists()
    else:
        assert result.stdout == ""


@pytest.mark.usefixtures("scratch")
def test_quiet_does_not_hide_errors_and_warnings() -> None:
    refused = invoke("run none.csv --quiet")
    assert refused.exit_code == 2
    assert refused.stderr.startswith("Error: none.csv: no such file")


@pytest.mark.parametrize("quiet", [False, True])
def test_nobody_watches_the_progress_of_a_quiet_command(quiet: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    watched: list[bool] = []

    @click.command()
    @output_options
    def command() -> None:
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
        watched.append(is_watched())

    CliRunner().invoke(command, ["--quiet"] if quiet else [])
    assert watched == [not quiet]


@pytest.mark.usefixtures("scratch")
def test_an_export_to_standard_output_has_no_json_of_its_own() -> None:
    refused = invoke(f"export {RUN} --format prometheus --json")
    assert refused.exit_code == 2
    assert "the export itself goes to standard output; give one of them" in refused.stderr
    assert invoke(f"export {RUN} --format prometheus --quiet").stdout.startswith("# HELP")


@pytest.mark.usefixtures("scratch")
@pytest.mark.parametrize("line", ANSWERS)
def test_no_line_is_wider_than_a_terminal(line: str) -> None:
    result = invoke(line, PLAIN_TERMINAL)
    assert result.exit_code == 0, result.output
    assert ESCAPE not in result.stdout
    assert all(len(row) <= 80 for row in result.stdout.splitlines())


@pytest.mark.usefixtures("scratch")
def test_a_terminal_has_colours_unless_it_is_told_otherwise() -> None:
    assert ESCAPE not in invoke("doctor").stdout
    assert COLOUR.search(invoke("doctor", terminal(100)).stdout)
    assert not COLOUR.search(invoke("doctor", {**terminal(100), "NO_COLOR": "1"}).stdout)
    assert ESCAPE not in invoke("doctor", {**terminal(100), "TERM": "dumb"}).stdout


@pytest.mark.usefixtures("scratch")
@pytest.mark.parametrize("columns", [60, 80, 132])
def test_a_table_keeps_all_its_words_however_wide_the_terminal(columns: int) -> None:
    piped = invoke(f"{CHAT} --replicas 3 --out runs/piped").stdout.replace("piped", "shown")
    env = {**terminal(columns), "TERM": "xterm", "NO_COLOR": "1"}
    shown = re.sub(r"\x1b\[\d*m", "", invoke(f"{CHAT} --replicas 3 --out runs/shown", env).stdout)
    assert max(map(len, shown.splitlines())) <= columns

    def words(text: str) -> list[str]:
        return sorted(re.sub("[▁-█]+", "", text).replace(" ", "").replace("\n", ""))

    if columns > 78:  # else there are fewer spans
        assert words(shown) == words(piped)
    else:
        assert "p99" in shown
        assert "assumed" not in shown
        assert shown.count("▁") > 0


@pytest.mark.usefixtures("scratch")
def test_names_stand_above_numbers_where_there_is_little_room() -> None:
    line = f"sweep {CHAT} --jobs 1 --grid max_num_seqs=2,4 --out swept"
    many = "--slo ttft=2 --slo ttft_p99=2 --grid-intensity 300 --price 0.2"
    few = [row.split() for row in invoke(line, PLAIN_TERMINAL).stdout.splitlines()]
    rows = [row.split() for row in invoke(f"{line} {many}", PLAIN_TERMINAL).stdout.splitlines()]
    for name in ("max_num_seqs=2", "max_num_seqs=4"):
        assert any(row[-2:] == ["immediate", name] and "J" in row for row in few)
        place = rows.index(["immediate", name])
        assert {"J", "s", "/s"} <= set(rows[place + 1])
    piped = invoke(f"{line} {many}").stdout
    assert len(re.findall(r"^\S* +.* J .*  immediate max_num_seqs=\d$", piped, re.MULTILINE)) == 2


@pytest.mark.usefixtures("scratch")
@pytest.mark.parametrize("charset", ["ascii", "latin-1"])
def test_an_encoding_without_blocks_gets_ascii(charset: str) -> None:
    result = invoke(f"{CHAT} --out runs/ascii", charset=charset)
    assert result.exit_code == 0, result.output
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("power  ")]
    assert re.fullmatch(r"power {2,}[.:=+*#@-]+", line)


def test_what_an_encoding_lacks_is_replaced() -> None:
    assert encodable("▁▄█ 5 µs ±1 %", "ascii") == ".=@ 5 us +-1 %"
    assert encodable("5 µs ±1 %", "latin-1") == "5 µs ±1 %"
    assert encodable("größer", "ascii") == "gr??er"


def test_a_name_cannot_steer_a_terminal() -> None:
    lines = plain(["a\x1b[31mb\x07c", bad("\x9bx"), table([("d\x1b]0;title\x07",)], "l")]).split("\n")
    assert lines == ["a?[31mb?c", "?x", "d?]0;title?"]


def test_nothing_in_a_text_is_taken_for_markup() -> None:
    view: View = [table([("[red]a[/red]", ":smile:")], "ll", heads=("[b]", "")), indented("[i]b[/i]")]
    assert plain(view).split() == ["[b]", "[red]a[/red]", ":smile:", "[i]b[/i]"]
