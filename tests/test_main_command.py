"""The command `replay TRACE`: what it prints and keeps, and how it answers bad input."""

import io
import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from toy_table import toy_table
from toy_trace import toy_trace

import replay.replay_options
import replay.run
import sim.compiled
import sim.table_files
from replay.errors import Exit
from replay.late_bar import LateBar
from replay.main import COMMANDS, main
from replay.printing import quantity
from sim.summary import Summary, summarize
from sim.table import CostTable
from sim.table_files import DEFAULT, save_table
from traces.parquet import write_trace
from traces.record_files import read_run

ROOT = Path(__file__).parents[1]


ENGINE = {"max_num_seqs": 4, "num_gpu_blocks": 64, "max_model_len": 4096, "dtype": "bf16"}


@pytest.fixture
def trace_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A trace of 20 requests in the current folder; the default table is the toy one."""
    monkeypatch.chdir(tmp_path)
    write_trace(toy_trace([0.5 * row for row in range(20)], 100, 10), tmp_path / "toy.parquet")
    monkeypatch.setattr(sim.table_files, "DEFAULT", folder_of(toy_table(engine=ENGINE), tmp_path / "table"))
    return Path("toy.parquet")


def folder_of(table: CostTable, folder: Path) -> str:
    folder.mkdir()
    save_table(table, folder)
    return str(folder)


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], prog_name="replay")


def invoked(*arguments: object) -> Result:
    result = invoke(*arguments)
    assert result.exit_code == 0, result.output
    return result


def summary_of(*arguments: object) -> dict[str, Any]:
    """Return what `--json` prints, except for the place of the record."""
    summary: dict[str, Any] = json.loads(invoked(*arguments, "--json").stdout)
    assert Path(summary.pop("out")).is_dir()
    return summary


def test_the_table_tells_energy_latency_and_where_the_costs_were_measured(trace_path: Path) -> None:
    result = invoked(trace_path, "--policy", "batch-window", "--set", "window_s=2")
    lines = [line.split() for line in result.stdout.splitlines()]
    firsts = [" ".join(words[:2]) for words in lines]
    assert "toy: 20 requests, policy batch-window (window_s=2, max_batch=none)" in result.stdout
    energies = ("energy", "prefill", "decode", "idle", "mean power", "per request", "per output", "per token")
    for label in energies:
        assert any(first.startswith(label) for first in firsts), label
    for metric in ("TTFT", "TPOT", "E2E"):
        (row,) = [words for words in lines if words[:1] == [metric]]
        assert len(row) == 7  # three quantities of a number and a unit each
    assert "toy: nowhere: invented numbers" in result.stdout
    assert "0.00 % of the steps" in result.stdout
    assert "20 of 20, 0 failed" in result.stdout
    assert "assumed, not measured" in result.stdout
    assert "note: Table toy is assumed" in result.stderr


def test_json_has_exactly_the_keys_of_summary_and_the_numbers_of_the_record(trace_path: Path) -> None:
    result = invoked(trace_path, "--json", "--out", "here")
    summary = json.loads(result.stdout)
    assert list(summary) == [*(field.name for field in fields(Summary)), "out"]
    kept = summarize(read_run(Path("here")))
    assert summary == {**asdict(kept), "invalid_reasons": [], "out": "here"}


def test_run_may_be_named_or_left_out_and_options_may_come_first(trace_path: Path) -> None:
    expected = summary_of(trace_path, "--policy", "offline")
    assert summary_of("run", trace_path, "--policy", "offline") == expected
    assert summary_of("--policy", "offline", trace_path) == expected


def test_the_record_tells_how_the_run_was_made(trace_path: Path) -> None:
    invoked(
        *(trace_path, "--policy", "batch-window", "--set", "window-s=3", "--set", "max_batch=4"),
        *("--engine", "max_num_seqs=2", "--engine", "no-async-scheduling", "--limit", 10, "--seed", 3),
        *("--stretch", 2, "--from-s", 1, "--to-s", 9, "--out", "here"),
    )
    meta = read_run(Path("here")).meta
    assert (meta.policy, meta.policy_options) == ("batch-window", {"window_s": 3.0, "max_batch": 4})
    assert (meta.engine_options["max_num_seqs"], meta.engine_options["num_gpu_blocks"]) == (2, 64)
    assert meta.engine_options["async_scheduling"] is False
    assert meta.trace_options == {"limit": 10, "stretch": 2.0, "from_s": 1.0, "to_s": 9.0}
    assert (meta.requests, meta.seed, meta.table) == (10, 3, "toy")


def test_the_engine_runs_under_the_options_of_its_table_unless_told_otherwise(trace_path: Path) -> None:
    invoked(trace_path, "--out", "default")
    assert read_run(Path("default")).meta.engine_options["max_num_seqs"] == 4


def test_selection_acts_on_the_trace(trace_path: Path) -> None:
    assert summary_of(trace_path, "--limit", 3)["requests"] == 3
    assert summary_of(trace_path, "--from-s", 2, "--to-s", 5)["requests"] == 6
    slow, fast = summary_of(trace_path), summary_of(trace_path, "--stretch", 0.1)
    assert fast["makespan_s"] < 0.5 * slow["makespan_s"]


def test_records_go_to_runs_and_none_replaces_another(trace_path: Path) -> None:
    for _ in range(3):
        invoked(trace_path, "--limit", 1)
    names = sorted(path.name for path in Path("runs").iterdir())
    assert len(names) == 3
    assert all(re.match(r"toy-immediate-\d{8}T\d{6}Z(-\d)?$", name) for name in names)


def test_a_policy_in_a_file_and_its_seed(trace_path: Path) -> None:
    Path("mine.py").write_text(
        "from dataclasses import dataclass\n"
        "from random import Random\n"
        "from sim.policy import Decision\n\n"
        "@dataclass\n"
        "class Dice:\n"
        "    seed: int = 0\n"
        "    wait_s: float = 1.0\n\n"
        "    def __post_init__(self):\n"
        "        self._random = Random(self.seed)\n\n"
        "    def decide(self, now_s, held, running):\n"
        "        release = tuple(request for request in held if self._random.random() < 0.5)\n"
        "        return Decision(release, now_s + self.wait_s if len(release) < len(held) else None)\n"
    )
    one, again = (summary_of(trace_path, "--policy", "mine.py:Dice", "--seed", 1) for _ in range(2))
    other = summary_of(trace_path, "--policy", "mine.py:Dice", "--seed", 2)
    assert one == again
    assert one["ttft_p50_s"] != other["ttft_p50_s"]
    invoked(trace_path, "--policy", "mine.py:Dice", "--set", "wait_s=0.5", "--seed", 4, "--out", "here")
    meta = read_run(Path("here")).meta
    assert (meta.policy, meta.policy_options) == ("mine.py:Dice", {"seed": 4, "wait_s": 0.5})


def test_what_the_reader_changed_is_said(trace_path: Path) -> None:
    write_columns(Path("unsorted.parquet"), [2.0, 0.0, 1.0])
    result = invoked("unsorted.parquet")
    assert "note:" in result.stderr
    assert "sort" in result.stderr
    assert invoked(trace_path).stderr.count("note:") == 1  # that the toy table is assumed


def write_columns(path: Path, arrival_s: list[float], without: str = "", **tokens: list[Any]) -> None:
    counts = [10] * len(arrival_s)
    columns: dict[str, list[Any]] = {"arrival_s": arrival_s, "prompt_tokens": counts, "output_tokens": counts}
    columns.update(tokens)
    types = {"arrival_s": pa.float64()}
    arrays = {name: pa.array(values, types.get(name)) for name, values in columns.items() if name != without}
    pq.write_table(pa.table(arrays), path)


def damaged(path: Path) -> None:
    whole = Path("toy.parquet").read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


BAD_TRACES: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing column": (
        lambda p: write_columns(p, [0.0], without="output_tokens"),
        "no column output_tokens",
    ),
    "NaN": (lambda p: write_columns(p, [0.0, float("nan")]), "arrival_s"),
    "negative tokens": (lambda p: write_columns(p, [0.0], prompt_tokens=[-5]), "-5"),
    "zero tokens": (lambda p: write_columns(p, [0.0], output_tokens=[0]), "output_tokens"),
    "text for tokens": (lambda p: write_columns(p, [0.0], output_tokens=["many"]), "output_tokens"),
    "no rows": (lambda p: write_columns(p, []), "no rows"),
    "truncated": (damaged, "not a whole Parquet file"),
    "unknown format": (lambda p: p.write_text("To whom it may concern\n"), "bad.trace"),
    "empty": (lambda p: p.write_text(""), "bad.trace"),
    "folder": (lambda p: p.mkdir(), "bad.trace: a folder, not a trace; give a trace, or a command"),
    "too long": (lambda p: write_columns(p, [0.0], prompt_tokens=[10**6]), "max_model_len"),
}

BAD_ARGUMENTS: dict[str, tuple[tuple[object, ...], str]] = {
    "no trace": (("run",), "Missing argument 'TRACE'. `replay run --help` tells more."),
    "no model": (
        ("toy.parquet", "--backend", "vllm"),
        "--backend vllm needs --model: a model's name or folder. `replay run --help` tells more.",
    ),
    "unknown option": (("toy.parquet", "--speed", 11), "No such option"),
    "missing choice": (
        ("export", "run"),
        "Missing option '--format'. Choose from: vllm-bench, prometheus, otel. `replay export --help`",
    ),
    "text for a number": (("toy.parquet", "--limit", "few"), "'few' is not a valid int"),
    "missing file": (("none.csv",), "none.csv: no such file"),
    "unknown policy": (("toy.parquet", "--policy", "fifo"), "no policy 'fifo'; there are batch-window, "),
    "unknown policy option": (
        ("toy.parquet", "--set", "window=1"),
        "policy immediate has no option 'window'",
    ),
    "policy option without value": (("toy.parquet", "--set", "window_s"), "--set takes NAME=VALUE, got"),
    "refused policy option": (
        ("toy.parquet", "--policy", "batch-window", "--set", "window_s=-1"),
        "window_s must be >= 0 and finite, got -1.0",
    ),
    "unknown engine option": (("toy.parquet", "--engine", "speed=11"), "'speed'"),
    "refused engine option": (("toy.parquet", "--engine", "max_num_seqs=0"), "max_num_seqs must be >= 1"),
    "unknown table": (("toy.parquet", "--table", "abacus"), "abacus"),
    "stretch of 0": (("toy.parquet", "--stretch", 0), "stretch must be > 0, got 0"),
    "limit of 0": (("toy.parquet", "--limit", 0), "limit must be >= 1 request, got 0"),
    "empty window": (("toy.parquet", "--from-s", 100), "no request arrives from 100"),
    "window backwards": (("toy.parquet", "--from-s", 5, "--to-s", 1), "to_s must be later than from_s"),
    "existing folder": (("toy.parquet", "--out", "."), ".: exists already; give another --out, or remove it"),
    "folder nowhere": (("toy.parquet", "--out", "no/such/place"), "no/such: no such folder"),
    "request too long": (("toy.parquet", "--engine", "max_model_len=50"), "request 0 of toy has 110 tokens"),
}


def refusal_of(*arguments: object) -> str:
    """Return the one line with which bad input is refused, which leaves nothing behind."""
    result = invoke(*arguments)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1, result.stderr
    assert "Traceback" not in result.stderr
    assert not Path("runs").exists() or not list(Path("runs").iterdir())
    return result.stderr


@pytest.mark.usefixtures("trace_path")
@pytest.mark.parametrize("kind", BAD_TRACES)
def test_a_bad_trace_is_one_line_and_exit_code_2(kind: str) -> None:
    write, expected = BAD_TRACES[kind]
    write(Path("bad.trace"))
    assert expected in refusal_of("bad.trace")


@pytest.mark.usefixtures("trace_path")
@pytest.mark.parametrize("kind", BAD_ARGUMENTS)
def test_a_bad_argument_is_one_line_and_exit_code_2(kind: str) -> None:
    arguments, expected = BAD_ARGUMENTS[kind]
    assert expected in refusal_of(*arguments)


@pytest.mark.usefixtures("trace_path")
def test_a_policy_that_breaks_a_rule_is_one_line_and_exit_code_2() -> None:
    Path("stuck.py").write_text(
        "from sim.policy import Decision\n\n"
        "class Stuck:\n"
        "    def decide(self, now_s, held, running):\n"
        "        return Decision()\n"
    )
    assert "policy Stuck is stuck at 9.5 s: it holds 20 requests" in refusal_of(
        "toy.parquet", "--policy", "stuck.py:Stuck"
    )


def test_an_existing_folder_is_refused_before_anything_is_read_or_simulated(
    trace_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def must_not_run(*_: object) -> None:
        raise AssertionError("the trace was read")

    monkeypatch.setattr(replay.run, "read_requests", must_not_run)
    Path("there").mkdir()
    assert "there: exists already" in refusal_of(trace_path, "--out", "there")


def test_an_interrupted_replay_leaves_no_record(trace_path: Path) -> None:
    Path("cut.py").write_text(
        "from sim.policy import Decision\n\n"
        "class Cut:\n"
        "    def decide(self, now_s, held, running):\n"
        "        if now_s > 5:\n"
        "            raise KeyboardInterrupt\n"
        "        return Decision(tuple(held))\n"
    )
    result = invoke(trace_path, "--policy", "cut.py:Cut", "--out", "here")
    assert result.exit_code == Exit.INTERRUPTED
    assert result.stderr == "Error: interrupted\n"
    assert not Path("here").exists()
    assert {path.name for path in Path().iterdir()} <= {"__pycache__", "cut.py", "table", "toy.parquet"}


def test_a_run_that_breaks_a_guard_says_so_in_the_table(trace_path: Path, tmp_path: Path) -> None:
    small = folder_of(toy_table(limits=np.array([50.0, 1024.0, 4e6, 2e8])), tmp_path / "small")
    result = invoke(trace_path, "--table", small)
    assert result.exit_code == Exit.FLAWED
    assert "NOT VALID, see below" in result.stdout
    assert re.search(r"not valid +guard 9: 10 % of the steps lie outside", result.stdout)
    assert "Error: the run is not valid: guard 9: 10 % of the steps lie outside" in result.stderr
    summary = json.loads(invoke(trace_path, "--table", small, "--json").stdout)
    assert summary["energy_valid"] is False
    assert len(summary["invalid_reasons"]) == 1


def test_a_measured_table_is_not_called_assumed(trace_path: Path, tmp_path: Path) -> None:
    measured = folder_of(toy_table(source="measured", measured_on="a GPU"), tmp_path / "measured")
    result = invoked(trace_path, "--table", measured)
    assert "assumed" not in result.output
    assert "toy: a GPU" in result.stdout


def test_the_default_table_is_a_measured_one_that_ships(
    trace_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sim.table_files, "DEFAULT", DEFAULT)
    summary = summary_of(trace_path)
    assert (summary["table"], summary["energy_source"]) == (DEFAULT, "simulated")
    assert summary["energy_valid"], summary["invalid_reasons"]


@pytest.mark.parametrize("policy", ["immediate", "batch-window", "offline"])
@pytest.mark.parametrize("name", ["AzureLLMInferenceTrace_conv.csv", "AzureLLMInferenceTrace_code.csv"])
def test_a_real_hour_holds_every_guard(
    name: str, policy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = ROOT.parent / "shared" / "traces" / name
    if not source.is_file():
        pytest.skip(f"needs ../shared/traces/{name}")
    monkeypatch.chdir(tmp_path)
    # `offline` would fill all KV blocks, more than the table measured; 128 sequences stay within it.
    summary = summary_of(source, "--policy", policy, "--engine", "max_num_seqs=128")
    assert summary["energy_valid"], summary["invalid_reasons"]
    assert summary["served"] == summary["requests"]
    assert summary["out_of_range_fraction"] < 0.01


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (1107045.0, "1.107 MJ"),
        (999.96, "1.000 kJ"),
        (57.16, "57.16 J"),
        (450.0, "450.0 J"),
        (0.2704, "270.4 mJ"),
        (1.0, "1.000 J"),
        (0.0000125, "12.50 µJ"),
        (0.0, "0.000 J"),
    ],
)
def test_a_quantity_has_four_digits_and_a_prefix(value: float | None, text: str) -> None:
    assert quantity(value, "J") == text


class Terminal(io.StringIO):
    """A stream that says that somebody looks at it."""

    def isatty(self) -> bool:
        return True


def test_a_bar_shows_itself_to_a_terminal_once_its_patience_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    cases = ((Terminal(), 0.0, True), (Terminal(), 1e6, False), (io.StringIO(), 0.0, False))
    for stream, patience_s, shown in cases:
        monkeypatch.setattr(sys, "stderr", stream)
        with LateBar(10, "replaying", patience_s) as bar:
            bar.advance(4)
            bar.advance(6)
        assert ("replaying" in stream.getvalue()) == shown
        assert ("100%" in stream.getvalue()) == shown


def test_a_terminal_is_told_of_the_compilation_that_only_the_first_replay_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sim.compiled, "cache_folder", lambda: str(tmp_path))
    for stream, told in ((Terminal(), True), (io.StringIO(), False)):
        monkeypatch.setattr(sys, "stderr", stream)
        replay.replay_options.announce_compilation()
        assert ("Compiling the simulator" in stream.getvalue()) == told
    (tmp_path / "compiled").mkdir()
    again = Terminal()
    monkeypatch.setattr(sys, "stderr", again)
    replay.replay_options.announce_compilation()
    assert again.getvalue() == ""


HEAVY = ("numpy", "pandas", "numba", "pyarrow", "simpy", "scipy", "matplotlib", "rich")


@pytest.mark.parametrize(
    "arguments", [["--help"], ["run", "--help"], ["sweep", "--help"], ["optimize", "--help"]]
)
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys\n"
        "from replay.main import main\n"
        f"main({arguments!r}, prog_name='replay', standalone_mode=False)\n"
        f"print('heavy:', [name for name in {HEAVY!r} if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert "heavy: []" in done.stdout, done.stdout + done.stderr


def test_help_lists_every_command_and_how_to_replay_a_trace() -> None:
    text = invoked("--help").stdout
    assert "TRACE | COMMAND" in text
    for name in COMMANDS:
        assert re.search(rf"^  {name} ", text, re.MULTILINE)


def test_python_m_replay_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "replay", "run", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("Usage: replay run [OPTIONS] TRACE")


def test_every_option_of_the_main_command_is_in_the_docs() -> None:
    docs = "".join(path.read_text() for path in (ROOT / "docs").glob("*.md"))
    command = main.get_command(click.Context(main), "run")
    assert command is not None
    options = [name for parameter in command.params for name in parameter.opts if name.startswith("--")]
    assert len(options) > 14
    for option in options:
        assert f"`{option}" in docs, option


def test_a_fleet_is_simulated_and_recorded(trace_path: Path) -> None:
    invoked(trace_path, "--stretch", "0.01", "--replicas", "2", "--router", "least-loaded", "--out", "two")
    two = read_run(Path("two"))
    assert two.meta.gpus == 2
    assert (two.meta.engine_options["replicas"], two.meta.engine_options["router"]) == (2, "least-loaded")
    assert two.outcomes.replica is not None
    assert set(two.outcomes.replica.tolist()) == {0, 1}


NEEDING = """
from sim.immediate import Immediate

class Needing(Immediate):
    needs_prediction = True
"""


def test_a_prediction_is_in_the_record_and_a_policy_that_needs_one_is_refused_without(
    trace_path: Path, tmp_path: Path
) -> None:
    (tmp_path / "needing.py").write_text(NEEDING)
    asked = (trace_path, "--policy", "needing.py:Needing", "--out", "out")
    refused = invoke(*asked)
    assert refused.exit_code == 2
    assert "policy Needing needs a prediction of output lengths, there is none" in refused.output
    assert not Path("out").exists()
    invoked(*asked, "--length-prediction", "noisy:cv=0.5", "--seed", "4")
    meta = read_run(Path("out")).meta
    assert meta.trace_options == {"length_prediction": "noisy:cv=0.5"}
    assert "Policies were told output lengths, predicted as noisy:cv=0.5, seed 4." in meta.notes
    wrong = invoke(trace_path, "--length-prediction", "good")
    assert wrong.exit_code == 2
    assert "length prediction must be none, oracle or noisy:cv=F, F >= 0, got 'good'" in wrong.output
