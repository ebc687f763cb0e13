"""`replay sweep`: each combination is simulated once, kept at once and shown; jobs change nothing."""

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from terminal import PLAIN_TERMINAL
from toy_table import toy_table
from toy_trace import toy_trace

import replay.sweep_text
import sim.sweep
from replay.api import read_run
from replay.errors import Exit
from replay.main import main
from replay.sweep_jobs import attempt_there
from sim.simulate import simulate_fleet
from sim.summary import Summary
from sim.sweep_key import inputs_of, key_of
from sim.table import PowerState
from sim.table_files import save_table
from traces.parquet import write_trace
from traces.record import Run

GRID = ("toy.parquet", "--policy", "immediate", "--policy", "batch-window", "--table", "table")
WINDOWS = (*GRID, "--grid", "window_s=0,2,4", "--grid", "replicas=1,2")
COMBINATIONS = 8

FLEET = """
pools:
  - {name: few, table: table, count: 2, engine: {max_num_seqs: 2}}
  - {name: many, table: table}
router: length-split:edges=150
"""


def write_fleet(name: str, text: str = FLEET) -> str:
    Path(name).write_text(text)
    return name


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a trace of 20 requests and a table."""
    monkeypatch.chdir(tmp_path)
    write_trace(toy_trace([0.5 * row for row in range(20)], 100, 10), Path("toy.parquet"))
    Path("table").mkdir()
    save_table(
        toy_table(engine={"max_num_seqs": 4, "num_gpu_blocks": 64, "max_model_len": 4096}), Path("table")
    )
    return tmp_path


@pytest.fixture
def simulated(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The policies of the replays simulated so far, in this process."""
    names: list[str] = []

    def counted(trace: Any, policy: Any, *rest: Any, **named: Any) -> Run:
        names.append(type(policy).__name__)
        return simulate_fleet(trace, policy, *rest, **named)

    monkeypatch.setattr(sim.sweep, "simulate_fleet", counted)
    return names


def sweep(*arguments: object, jobs: int = 1, env: dict[str, str] | None = None) -> Result:
    words = ["sweep", *map(str, arguments), "--jobs", str(jobs)]
    return CliRunner().invoke(main, words, prog_name="replay", env=env)


def swept(*arguments: object, jobs: int = 1, env: dict[str, str] | None = None) -> Result:
    result = sweep(*arguments, jobs=jobs, env=env)
    assert result.exit_code == 0, result.output
    return result


def kept(out: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(Path(out, "results").iterdir())}


def test_each_combination_is_simulated_once_and_never_again(simulated: list[str]) -> None:
    swept(*WINDOWS, "--out", "out")
    assert sorted(simulated) == ["BatchWindow"] * 6 + ["Immediate"] * 2
    assert len(kept("out")) == COMBINATIONS
    first = Path("out/sweep.parquet").read_bytes()
    again = swept(*WINDOWS, "--out", "out")
    assert "8 of 8 results are in out already" in again.stderr
    assert len(simulated) == COMBINATIONS
    assert Path("out/sweep.parquet").read_bytes() == first


def test_a_wider_grid_simulates_what_is_new(simulated: list[str]) -> None:
    swept(*GRID, "--grid", "window_s=2", "--out", "out")
    swept(*GRID, "--grid", "window_s=2,3", "--out", "out")
    assert simulated == ["Immediate", "BatchWindow", "BatchWindow"]


def test_combinations_that_come_to_the_same_are_simulated_once(simulated: list[str]) -> None:
    swept(*GRID, "--grid", "window_s=10,10.0", "--grid", "router=round-robin,least-loaded", "--out", "out")
    assert sorted(simulated) == ["BatchWindow", "Immediate"]


def test_the_results_do_not_depend_on_jobs() -> None:
    for jobs in (1, 2):
        swept(*WINDOWS, "--out", f"out{jobs}", jobs=jobs)
    assert kept("out1") == kept("out2")
    for name in ("sweep.parquet", "sweep.md"):
        assert Path("out1", name).read_bytes() == Path("out2", name).read_bytes()


def test_a_result_is_that_of_replay_run() -> None:
    swept(*GRID, "--grid", "window_s=2", "--engine", "max-num-seqs=2", "--limit", 10, "--out", "out")
    words = ["toy.parquet", "--policy", "batch-window", "--set", "window_s=2", "--table", "table", "--json"]
    words += ["--engine", "max-num-seqs=2", "--limit", "10", "--out", "run"]
    run = json.loads(CliRunner().invoke(main, words).stdout)
    results = [json.loads(text) for text in kept("out").values()]
    (same,) = [one["summary"] for one in results if one["inputs"]["policy"] == "batch-window"]
    assert {**same, "out": "run"} == run


def test_fleets_from_files_are_combined_with_the_rest() -> None:
    one = write_fleet("one.yaml", "pools: [{name: all, table: table, count: 2}]\nrouter: least-loaded\n")
    fleets = ("--fleet", write_fleet("mixed.yaml"), "--fleet", one, "--out", "out")
    policies = ("toy.parquet", "--policy", "immediate", "--policy", "concurrency")
    swept(*policies, "--grid", "most=2,3", *fleets)
    rows = pq.read_table("out/sweep.parquet").to_pylist()
    found = sorted(
        (row["policy"], row["policy.most"] or 0, row["fleet"], row["fleet.replicas"]) for row in rows
    )
    assert found == [
        *(("concurrency", most, *fleet) for most in (2, 3) for fleet in (("mixed", 3), ("one", 2))),
        *(("immediate", 0, *fleet) for fleet in (("mixed", 3), ("one", 2))),
    ]
    names = {row["name"] for row in json.loads(swept(*policies, "--json", *fleets).stdout)["results"]}
    assert {"immediate fleet=mixed", "immediate fleet=one"} < names


@pytest.mark.parametrize(
    "text", [FLEET, "pools: [{name: all, table: table, count: 2}]\nrouter: pack:most=2\n"]
)
def test_a_fleet_from_a_file_is_that_of_replay_run(text: str) -> None:
    fleet = ("--fleet", write_fleet("fleet.yaml", text))
    swept("toy.parquet", *fleet, "--out", "out")
    run = CliRunner().invoke(main, ["toy.parquet", *fleet, "--json", "--out", "run"])
    (result,) = [json.loads(text) for text in kept("out").values()]
    told = json.loads(run.stdout)
    assert result["summary"] == {name: told[name] for name in result["summary"]}


@pytest.mark.parametrize("price", ["0.25", "day.csv", "day.csv:period_s=4"])
def test_carbon_and_price_are_those_of_replay_run(price: str) -> None:
    Path("day.csv").write_text("time_s,price_per_kwh\n0,0.1\n3,0.4\n")
    rates = ("--grid-intensity", "350", "--price", price, "--currency", "EUR", "--pue", "1.2")
    result = swept(*GRID, "--grid", "window_s=2", *rates, "--out", "out")
    row = next(row for row in pq.read_table("out/sweep.parquet").to_pylist() if row["policy"] == "immediate")
    words = ["toy.parquet", "--table", "table", *rates, "--json", "--out", "run"]
    run = json.loads(CliRunner().invoke(main, words).stdout)
    for name in ("carbon_g", "price", "currency"):
        assert row[name] == run[name] is not None
    assert "E2E p99 carbon price, EUR *" in " ".join(result.stdout.split())


def test_without_rates_there_is_no_carbon_and_other_rates_are_other_results(simulated: list[str]) -> None:
    result = swept("toy.parquet", "--table", "table", "--out", "out")
    assert "carbon" not in result.stdout
    row = pq.read_table("out/sweep.parquet").to_pylist()[0]
    assert (row["carbon_g"], row["price"], row["currency"]) == (None, None, None)
    rates = Path("rates.csv")
    for number, rate in enumerate((100, 200), 2):
        rates.write_text(f"time_s,g_per_kwh\n0,{rate}\n")
        swept("toy.parquet", "--table", "table", "--grid-intensity", rates, "--out", "out")
        assert len(simulated) == number
    swept("toy.parquet", "--table", "table", "--out", "out")
    assert len(simulated) == 3


def test_a_fleet_is_simulated_again_when_its_file_or_a_table_in_it_changes(simulated: list[str]) -> None:
    fleet = ("toy.parquet", "--fleet", "fleet.yaml", "--out", "out")
    write_fleet("fleet.yaml")
    swept(*fleet)
    write_fleet("fleet.yaml", "# The same.\n" + FLEET.replace("count: 2", "count:   2"))
    swept(*fleet)
    assert len(simulated) == 1
    write_fleet("fleet.yaml", FLEET.replace("max_num_seqs: 2", "max_num_seqs: 3"))
    swept(*fleet)
    save_table(toy_table(engine={"max_num_seqs": 4}, idle_w=121.0), Path("table"))
    swept(*fleet)
    assert len(simulated) == 3


def test_a_schedule_that_has_changed_is_simulated_again(simulated: list[str]) -> None:
    off = PowerState(power_w=10.0, enter_s=1.0, enter_j=50.0, leave_s=1.0, leave_j=50.0)
    save_table(replace(toy_table(engine={"max_num_seqs": 4}), states={"off": off}), Path("table"))
    words = (*GRID, "--replicas", 2, "--grid", "scaling=schedule:file=day.csv", "--out", "out")
    for change_s in (2, 3):
        Path("day.csv").write_text(f"time_s,replicas\n0,1\n{change_s},2\n")
        swept(*words)
    assert len(simulated) == 4


def test_a_damaged_result_is_simulated_again_and_said(simulated: list[str]) -> None:
    swept(*WINDOWS, "--out", "out")
    whole = kept("out")
    name, content = next(iter(whole.items()))
    Path("out/results", name).write_bytes(content[:100])
    again = swept(*WINDOWS, "--out", "out")
    assert f"out/results/{name}: not a whole result" in again.stderr
    assert "simulated again" in again.stderr
    assert len(simulated) == COMBINATIONS + 1
    assert kept("out") == whole


def test_an_interrupted_sweep_keeps_what_is_done_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    left = [3]

    def interrupted(*arguments: Any, **named: Any) -> Run:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return simulate_fleet(*arguments, **named)

    monkeypatch.setattr(sim.sweep, "simulate_fleet", interrupted)
    cut = sweep(*WINDOWS, "--out", "out")
    assert cut.exit_code == 130
    assert "3 of 8 results are kept in out; the same command goes on from there" in cut.stderr
    left[0] = 5
    assert "3 of 8 results are in out already" in swept(*WINDOWS, "--out", "out").stderr


WAITS = """
import time
from dataclasses import dataclass
from pathlib import Path
from sim.policy import Decision

@dataclass
class Waits:
    most: int = 0

    def decide(self, now_s, held, running):
        if self.most:
            Path("waiting").touch()
            time.sleep(600)
        return Decision(tuple(held))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="sends a POSIX signal to a process group")
def test_ctrl_c_ends_all_processes_and_says_what_is_kept() -> None:
    Path("waits.py").write_text(WAITS)
    words = ["toy.parquet", "--policy", "waits.py:Waits", "--grid", "most=0,1", "--table", "table"]
    running = subprocess.Popen(
        [sys.executable, "-m", "replay", "sweep", *words, "--jobs", "2", "--out", "out"],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while not (Path("waiting").exists() and list(Path("out/results").glob("*.json"))):
        assert running.poll() is None
        time.sleep(0.05)
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate()
    assert running.returncode == 130
    assert "1 of 2 results are kept in out" in errors
    assert "Traceback" not in errors


def test_a_process_that_dies_is_one_line() -> None:
    Path("dies.py").write_text(
        "import os\nclass Dies:\n    def decide(self, now_s, held, running):\n        os._exit(1)\n"
    )
    policies = ("--policy", "dies.py:Dies", "--policy", "immediate")
    result = sweep("toy.parquet", *policies, "--table", "table", "--out", "out", jobs=2)
    assert result.exit_code == 2
    assert "a process of the sweep has ended, perhaps for want of memory" in result.stderr


def test_what_cannot_be_simulated_is_told_and_the_rest_is_kept() -> None:
    result = sweep(*GRID, "--grid", "num_gpu_blocks=2,64", "--out", "out")
    assert result.exit_code == Exit.FLAWED
    assert "2 combinations could not be simulated, the first: request 0 of toy needs KV" in result.stderr
    assert len(kept("out")) == 2
    assert "engine.num_gpu_blocks=2" in Path("out/sweep.md").read_text().partition("Could not")[2]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--grid", "replicas=1,2"), "replicas goes into the file that --fleet names; leave it out"),
        (("--engine", "max_num_seqs=3"), "max_num_seqs goes into the file that --fleet names; leave it out"),
        (("--router", "pack"), "router goes into the file that --fleet names; leave it out"),
        (("--fleet", "missing.yaml"), "missing.yaml: No such file"),
        (("--fleet", "toy.parquet"), "toy.parquet: no YAML"),
        (("--fleet", "sub/fleet.yaml"), "fleet.yaml: another file is named fleet, too"),
    ],
)
def test_what_does_not_go_with_a_fleet_is_one_line(
    words: tuple[str, ...], message: str, simulated: list[str]
) -> None:
    write_fleet("fleet.yaml")
    result = sweep("toy.parquet", "--fleet", "fleet.yaml", *words, "--out", "out")
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert not simulated


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--grid", "windows=1"), "no input 'windows' to vary"),
        (("--grid", "window_s=soon"), "window_s must be a number, got 'soon'"),
        (("--grid", "router=nearest"), "no router 'nearest'"),
        (("--slo", "ttfb=1"), "--slo takes LATENCY=SECONDS, such as ttft=2 or tpot_p99=0.05, got 'ttfb=1'"),
        (("--attainment", "0.9"), "--attainment is of limits of each request: give one"),
        (("--latency", "energy"), "no latency 'energy'"),
        (("--table", "h300"), "no table 'h300'"),
        (("--policy", "best"), "no policy 'best'"),
        (("missing.parquet",), "missing.parquet: No such file"),
        (("sub/toy.parquet",), "toy.parquet: another file is named toy, too; rename one"),
        (("--pue", "1.2"), "pue acts on carbon and price"),
        (("--price", "cheap"), "price_per_kwh: 'cheap' is neither a number nor a file"),
        (("--fleet", "fleet.yaml"), "--table goes into the file that --fleet names; leave it out"),
    ],
)
def test_bad_input_is_one_line_before_anything_is_simulated(
    words: tuple[str, ...], message: str, simulated: list[str]
) -> None:
    result = sweep(*GRID, *words, "--out", "out")
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert not simulated


def test_the_terminal_shows_the_front_the_violations_and_the_choice_in_80_columns() -> None:
    limits = ("--slo", "e2e_p99=3", "--slo", "ttft_p99=9", "--slo", "tpot_p99=9")
    shown = swept(*WINDOWS, *limits, "--out", "out", env=PLAIN_TERMINAL).stdout
    assert all(len(line) <= 80 for line in shown.splitlines())
    lines = swept(*WINDOWS, *limits, "--out", "out").stdout.splitlines()
    (choice,) = [line for line in lines if line.startswith("Least energy within the SLOs: ")]
    rows = json.loads(swept(*WINDOWS, "--slo", "e2e_p99=3", "--json", "--out", "out").stdout)["results"]
    good = [row for row in rows if row["summary"]["e2e_p99_s"] <= 3]
    cheapest = min(good, key=lambda row: row["summary"]["energy_j_per_request"])
    assert 0 < len(good) < len(rows) == COMBINATIONS
    assert choice.startswith(f"Least energy within the SLOs: {cheapest['name']}, ")
    assert [row["violates"] for row in rows] == [[] if row in good else ["e2e_p99"] for row in rows]
    marked = [line for line in lines if line.startswith(("!", "*!")) and " J " in line]
    assert len(marked) == len(rows) - len(good)


def test_a_share_of_requests_that_keep_their_limits_is_told_and_marked() -> None:
    limits = ("--slo", "ttft=2.5", "--slo", "e2e=3", "--out", "out")
    for attainment in (0.7, 1.0):
        result = swept(*WINDOWS, *limits, "--attainment", attainment)
        rows = pq.read_table("out/sweep.parquet").to_pylist()
        for row in rows:
            good = round(20 * row["attainment_fraction"])
            assert row["goodput_rps"] == pytest.approx(good / row["makespan_s"])
            assert row["violates"] == (["attainment"] if good < 20 * attainment else [])
        kept = [row for row in rows if not row["violates"]]
        assert 0 < len(kept) < len(rows)
        assert f"({100 * attainment:g} % of requests TTFT ≤ 2.5 s and E2E ≤ 3 s)" in result.stdout
        least = min(kept, key=lambda row: row["energy_j_per_request"])
        assert f"{100 * least['attainment_fraction']:.2f} %" in result.stdout
    assert "results are in out already" in result.stderr


def test_the_share_is_that_of_the_record() -> None:
    words = ["toy.parquet", "--policy", "batch-window", "--set", "window_s=2", "--table", "table"]
    CliRunner().invoke(main, [*words, "--out", "run"])
    requests = read_run(Path("run")).requests
    limits = {latency: float(requests[f"{latency}_s"].quantile(0.8)) for latency in ("ttft", "tpot")}
    slos = [word for latency, limit_s in limits.items() for word in ("--slo", f"{latency}={limit_s!r}")]
    told = json.loads(CliRunner().invoke(main, [*words, *slos, "--json", "--out", "again"]).stdout)
    swept(*GRID, "--grid", "window_s=2", *slos, "--out", "out")
    rows = pq.read_table("out/sweep.parquet").to_pylist()
    (attained,) = [row["attainment_fraction"] for row in rows if row["policy"] == "batch-window"]
    within = [requests[f"{latency}_s"] <= limit_s for latency, limit_s in limits.items()]
    assert attained == told["attainment_fraction"] == (within[0] & within[1]).mean()
    assert 0 < attained < 0.8
    text = CliRunner().invoke(main, [*words, *slos, "--out", "as-text"]).stdout
    assert f"/s  {100 * attained:.2f} % of the requests keep their limits" in text


def test_a_long_table_shows_its_front_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay.sweep_text, "MOST_ROWS", 4)
    result = swept(*WINDOWS, "--out", "out")
    rows = json.loads(swept(*WINDOWS, "--json", "--out", "out").stdout)["results"]
    on_front = [row["on_front"] for row in rows].count(True)
    assert f"{COMBINATIONS - min(4, on_front)} more are in sweep.md" in result.stdout


def test_the_parquet_table_has_inputs_and_summary_as_columns() -> None:
    swept(*WINDOWS, "--out", "out")
    table = pq.read_table("out/sweep.parquet")
    assert set(Summary.__dataclass_fields__) < set(table.column_names)
    rows = table.to_pylist()
    found = {(row["policy"], row["policy.window_s"], row["fleet.replicas"]) for row in rows}
    windows = {("batch-window", window_s, replicas) for window_s in (0.0, 2.0, 4.0) for replicas in (1, 2)}
    assert found == windows | {("immediate", None, 1), ("immediate", None, 2)}
    energies = [row["energy_j_per_request"] for row in rows]
    assert energies == sorted(energies)


def test_several_traces_are_several_tables() -> None:
    write_trace(toy_trace([0.0, 1.0], 100, 10), Path("other.parquet"))
    result = swept("other.parquet", *GRID, "--out", "out")
    assert result.stdout.startswith("other\n")
    assert "\n\ntoy\n" in result.stdout
    assert Path("out/sweep.md").read_text().count("\n## ") == 2


def test_a_picture_is_drawn_where_there_is_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    swept(*WINDOWS, "--slo", "e2e_p99=3", "--out", "out")
    assert Path("out/sweep.png").read_bytes().startswith(b"\x89PNG")

    def without(name: str) -> Any:
        return None if name == "matplotlib" else find_spec(name)

    monkeypatch.setattr(replay.sweep_text, "find_spec", without)
    swept(*WINDOWS, "--out", "elsewhere")
    assert not Path("elsewhere/sweep.png").exists()


def test_a_ray_cluster_gives_the_same_bytes() -> None:
    pytest.importorskip("ray", reason="needs Ray: pip install 'replay[ray]'")
    swept(*WINDOWS, "--out", "here")
    words = [sys.executable, "-m", "replay", "sweep", *WINDOWS, "--on", "ray", "--out", "there"]
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    assert kept("there") == kept("here")
    assert Path("there/sweep.parquet").read_bytes() == Path("here/sweep.parquet").read_bytes()


def test_without_ray_the_way_out_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    result = sweep(*WINDOWS, "--on", "ray", "--out", "out")
    assert result.exit_code == 2
    assert result.stderr == "Error: --on ray needs Ray, which is not installed; pip install 'replay[ray]'\n"


def test_a_ray_that_does_not_start_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**_: Any) -> None:
        raise Exception("The current node timed out during startup.")

    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(init=init))
    result = sweep(*WINDOWS, "--on", "ray", "--out", "out")
    assert result.exit_code == 2
    assert "Error: Ray does not start: The current node timed out during startup.\n" in result.stderr


def test_a_node_of_a_cluster_with_other_files_simulates_nothing(simulated: list[str]) -> None:
    case = sim.sweep.Case(Path("toy.parquet"), table="table")
    key = key_of(inputs_of(case))
    assert isinstance(attempt_there(case, key, "."), Summary)
    write_trace(toy_trace([0.0, 1.0], 100, 10), case.trace, overwrite=True)
    assert attempt_there(case, key, ".") == (
        "a node of the Ray cluster has another trace, table, policy or version of replay"
    )
    assert "nowhere: No such file" in str(attempt_there(case, key, "nowhere"))
    assert len(simulated) == 1
