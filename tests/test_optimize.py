"""`replay optimize`: the least energy that keeps the SLOs, found again wherever the search was cut."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from toy_table import toy_table
from toy_trace import toy_trace

import sim.sweep
from replay.errors import Exit
from replay.main import main
from sim.simulate import simulate_fleet
from sim.sweep_grid import Span, parse_span
from sim.table_files import save_table
from traces.parquet import write_trace
from traces.record import Run

pytest.importorskip("optuna", reason="needs Optuna: pip install 'replay[optimize]'")

POLICY = ("toy.parquet", "--policy", "batch-window", "--table", "table")
SEARCH = ("optimize", *POLICY, "--over", "window_s=0..8", "--slo", "e2e_p99=4")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a trace of 20 requests and a table."""
    monkeypatch.chdir(tmp_path)
    write_trace(toy_trace([0.7 * row for row in range(20)], 100, 10), Path("toy.parquet"))
    Path("table").mkdir()
    save_table(toy_table(engine={"max_num_seqs": 8}), Path("table"))
    return tmp_path


@pytest.fixture
def simulated(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The windows of the replays simulated so far; each must be new."""
    windows: list[float] = []

    def counted(trace: Any, policy: Any, *rest: Any, **named: Any) -> Run:
        assert policy.window_s not in windows
        windows.append(policy.window_s)
        return simulate_fleet(trace, policy, *rest, **named)

    monkeypatch.setattr(sim.sweep, "simulate_fleet", counted)
    return windows


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], prog_name="replay")


def found(*arguments: object) -> dict[str, Any]:
    result = invoke(*arguments, "--json")
    assert result.exit_code == 0, result.output
    values: dict[str, Any] = json.loads(result.stdout)
    assert values.pop("out") == str(arguments[arguments.index("--out") + 1])
    return values


def test_the_search_finds_what_a_sweep_of_the_whole_range_finds() -> None:
    swept = invoke(
        "sweep", *POLICY, "--grid", "window_s=0..8", "--slo", "e2e_p99=4", "--json", "--out", "swept"
    )
    rows = json.loads(swept.stdout)["results"]
    good = [row for row in rows if not row["violates"]]
    least = min(good, key=lambda row: row["summary"]["energy_j_per_request"])
    assert 1 < len(good) < len(rows)
    best = found(*SEARCH, "--trials", 25, "--out", "out")["best"]
    assert best == {"inputs": least["inputs"], "summary": least["summary"]}


def test_the_best_is_told_beside_the_default() -> None:
    values = found(*SEARCH, "--trials", 5, "--out", "out")
    best_j, default_j = (values[name]["summary"]["energy_j_per_request"] for name in ("best", "default"))
    assert values["default"]["inputs"]["policy.window_s"] == 10.0
    assert values["energy_fraction"] == pytest.approx(best_j / default_j - 1, abs=1e-12)
    text = invoke(*SEARCH, "--trials", 5, "--out", "out").stdout
    more = "more" if best_j > default_j else "less"
    percent = abs(100 * (best_j / default_j - 1))
    unwrapped = " ".join(text.split())
    assert (
        f"{percent:.1f} % {more} than the default, batch-window window_s=10, which violates e2e_p99"
        in unwrapped
    )
    assert f"batch-window window_s={values['best']['inputs']['policy.window_s']:g}, " in unwrapped


def test_a_search_cut_anywhere_goes_on_to_the_same_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = found(*SEARCH, "--over", "max_num_seqs=2..8", "--trials", 14, "--out", "whole")
    left = [5]

    def interrupted(*arguments: Any, **named: Any) -> Run:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return simulate_fleet(*arguments, **named)

    monkeypatch.setattr(sim.sweep, "simulate_fleet", interrupted)
    parts = (*SEARCH, "--over", "max_num_seqs=2..8", "--out", "parts", "--trials")
    assert invoke(*parts, 14).exit_code == 130
    left[0] = 1000
    found(*parts, 8)
    assert found(*parts, 14) == whole
    results = [{path.name for path in Path(out, "results").iterdir()} for out in ("whole", "parts")]
    assert results[0] == results[1]


def test_trials_are_simulated_once_and_share_their_results_with_a_sweep(simulated: list[float]) -> None:
    found(*SEARCH, "--trials", 12, "--out", "out")
    before = len(simulated)
    found(*SEARCH, "--trials", 12, "--out", "out")
    assert len(simulated) == before
    invoke("sweep", *POLICY, "--grid", "window_s=0..8", "--jobs", 1, "--out", "out")
    assert sorted(simulated) == [*map(float, range(9)), 10.0]


def test_another_seed_searches_elsewhere() -> None:
    words = ("optimize", *POLICY, "--over", "window_s=0.0..8.0", "--trials", 3)
    windows = [
        {json.loads(path.read_text())["inputs"]["policy.window_s"] for path in Path(out, "results").iterdir()}
        for out, seed in (("one", 0), ("two", 7))
        if found(*words, "--seed", seed, "--out", out)
    ]
    assert windows[0] & windows[1] == {10.0}
    assert all(0 <= window_s <= 10 for window_s in windows[0] | windows[1])


def test_all_trials_are_in_the_table_of_the_folder() -> None:
    found(*SEARCH, "--trials", 6, "--out", "out")
    rows = [
        line for line in Path("out/sweep.md").read_text().splitlines() if "| batch-window window_s=" in line
    ]
    assert len(rows) == len(list(Path("out/results").iterdir()))


def test_a_search_that_keeps_no_slo_says_what_came_nearest() -> None:
    result = invoke("optimize", *POLICY, "--over", "window_s=1..2", "--slo", "e2e_p99=0.001", "--out", "out")
    assert result.exit_code == Exit.FLAWED
    line = "Error: none of 50 trials keeps the SLOs; the nearest, batch-window window_s=1, has E2E p99 "
    assert result.stderr.startswith(line)
    assert result.stderr.endswith(" s > 0.001 s: widen --over or loosen --slo\n")


def test_a_search_keeps_the_limits_of_enough_requests() -> None:
    limits = ("--slo", "ttft=3", "--attainment", 0.75)
    swept = invoke("sweep", *POLICY, "--grid", "window_s=0..8", *limits, "--json", "--out", "swept")
    good = [row for row in json.loads(swept.stdout)["results"] if not row["violates"]]
    shares = {row["summary"]["attainment_fraction"] for row in good}
    assert min(shares) < 1
    search = ("optimize", *POLICY, "--over", "window_s=0..8", *limits)
    best = found(*search, "--trials", 25, "--out", "out")["best"]
    assert best["inputs"] == good[0]["inputs"]
    hard = invoke(*search[:-3], "ttft=0.0001", "--trials", 3, "--out", "out")
    assert hard.exit_code == Exit.FLAWED
    assert "has 0.00 % of the requests within the limits < 100 %: widen --over" in hard.stderr


def test_a_search_may_be_of_a_fleet_from_a_file() -> None:
    Path("fleet.yaml").write_text("pools: [{name: a, table: table}, {name: b, table: table, count: 2}]\n")
    words = ("optimize", "toy.parquet", "--policy", "batch-window", "--fleet", "fleet.yaml", "--trials", 3)
    best = found(*words, "--over", "window_s=0..8", "--out", "out")["best"]
    assert (best["inputs"]["fleet"], best["inputs"]["fleet.replicas"]) == ("fleet", 3)
    refused = invoke(*words, "--over", "replicas=1..4", "--out", "out")
    assert refused.exit_code == 2
    assert "replicas goes into the file that --fleet names; leave it out" in refused.stderr


def test_a_trial_that_cannot_be_simulated_is_said_and_the_search_goes_on() -> None:
    words = ("--over", "num_gpu_blocks=2..9", "--trials", 8, "--out", "out")
    result = invoke("optimize", *POLICY, *words)
    assert result.exit_code == 0, result.output
    assert "left out: request 0 of toy needs KV for 109 tokens, num_gpu_blocks = " in result.stderr
    assert "num_gpu_blocks=" in result.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--over", "windows=0..1"), "no input 'windows' to vary"),
        (("--over", "window_s=5..1"), "--over takes NAME=A..B with numbers A < B, got 'window_s=5..1'"),
        (("--over", "window_s=1,2"), "--over takes NAME=A..B"),
        (("--over", "window_s=0..inf"), "--over takes NAME=A..B"),
        (("--over", "window_s=-1..1"), "window_s must be >= 0"),
        (("--over", "window_s=0..1", "--over", "window_s=0..2"), "--over window_s is given twice"),
        (("--over", "stretch=1..2"), "--over stretch: energies under it are not compared"),
        (("--over", "max_batch=1.0..2.5"), "max_batch must be a whole number"),
        (("--over", "window_s=0..1", "--slo", "ttfb=1"), "--slo takes LATENCY=SECONDS"),
    ],
)
def test_bad_input_is_one_line_before_anything_is_simulated(
    words: tuple[str, ...], message: str, simulated: list[float]
) -> None:
    result = invoke("optimize", *POLICY, *words, "--out", "out")
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert not simulated


def test_a_range_is_of_whole_numbers_if_both_ends_are() -> None:
    assert parse_span("max-batch=1..8") == Span("max_batch", 1.0, 8.0, is_whole=True)
    assert parse_span("window_s=-0.5..8") == Span("window_s", -0.5, 8.0, is_whole=False)


def test_without_optuna_the_way_out_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    result = invoke(*SEARCH, "--out", "out")
    assert result.exit_code == 2
    line = "Error: replay optimize needs Optuna, which is not installed; pip install 'replay[optimize]'\n"
    assert result.stderr == line
    assert not Path("out").exists()
