"""Validation: plans are measured case by case, each on disk at once, and compared afterwards."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
from click.testing import CliRunner, Result
from scripted_meter import IDLE_W, ScriptedMeter, StillWatch
from standin_engine import StandInEngine
from toy_table import toy_table
from toy_trace import toy_trace
from virtual_loop import VirtualLoop

import backends.rig
from backends.rig import Rig, warm_up
from backends.step_log import read_steps
from calibrate import grid
from calibrate.grid import Point
from calibrate.raw import RawPoint, read_lines
from calibrate.windows import windows
from replay.cases import Case, read_plan
from replay.main import main
from sim.table_files import load_table, save_table
from traces.parquet import write_trace
from traces.record_files import read_run


@dataclass
class Lab:
    """A folder with a trace, a table and a clock that jumps; the engine is a stand-in."""

    folder: Path
    loop: VirtualLoop
    starts: int = 0
    engine_options: dict[str, Any] = field(default_factory=dict)
    interrupt_at_s: float | None = None
    step_s: Callable[[int, int], float] = lambda _prefill, _decode: 0.05
    watch: StillWatch = field(default_factory=StillWatch)

    def run(self, main: Coroutine[Any, Any, Any]) -> Any:
        task = self.loop.create_task(main)
        if self.interrupt_at_s is not None:
            self.loop.call_at(self.interrupt_at_s, task.cancel)
            self.interrupt_at_s = None
        return self.loop.run_until_complete(task)

    @asynccontextmanager
    async def rig(
        self, _model: str, _options: object, _gpus: object, folder: Path, seed: int
    ) -> AsyncIterator[Rig]:
        self.starts += 1
        log = folder / "steps.bin"
        engine = StandInEngine(log, self.step_s, **self.engine_options)
        meter_file = folder / "meter.bin"
        meter = ScriptedMeter(log, self.loop.time, meter_file)
        await engine.start()
        try:
            await warm_up(engine, seed)
            yield Rig(engine, meter, lambda since_s: read_steps(log, since_s), self.watch, meter_file)
        finally:
            engine.stop()
            await asyncio.sleep(0)

    def plan(self, *cases: dict[str, Any]) -> str:
        path = self.folder / "plan.json"
        path.write_text(json.dumps([{"trace": "toy.parquet", **case} for case in cases]))
        return str(path)

    def validate(self, *arguments: str) -> Result:
        common = ["validate", "--model", "toy", "--table", "table", "--out", "out"]
        return CliRunner().invoke(main, [*common, *arguments])

    def is_valid(self, record: str) -> bool:
        return read_run(self.folder / "out" / record).meta.energy_valid


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    made = Lab(tmp_path, VirtualLoop())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(time, "monotonic", made.loop.time)
    monkeypatch.setattr(asyncio, "run", made.run)
    monkeypatch.setattr(backends.rig, "vllm_rig", made.rig)
    monkeypatch.setattr(backends.rig, "WARM_UPS", ((16, 2),))  # two steps
    write_trace(toy_trace([0.0, 2.0, 7.0], 100, 4), tmp_path / "toy.parquet")
    (tmp_path / "table").mkdir()
    save_table(toy_table(), tmp_path / "table")
    yield made
    made.loop.run_until_complete(made.loop.shutdown_asyncgens())
    made.loop.close()


def test_one_command_measures_simulates_and_compares(lab: Lab) -> None:
    result = lab.validate("toy.parquet", "--policy", "batch-window", "--set", "window_s=1")
    assert result.exit_code == 0, result.output
    folder = lab.folder / "out" / "toy-batch-window"
    measured, simulated = read_run(folder / "measured-1"), read_run(folder / "simulated")
    assert measured.meta.energy_valid
    assert (
        simulated.meta.policy_options == measured.meta.policy_options == {"window_s": 1.0, "max_batch": None}
    )
    assert simulated.meta.engine_options["max_num_seqs"] == 32  # the stand-in's, not the default
    assert simulated.meta.table == "toy"
    assert json.loads((folder / "comparison.json").read_text())["measured_runs"] == 1
    for comparison in (lab.folder / "out").glob("*/comparison.json"):
        told = json.loads(comparison.read_text())
        assert told["steps"], comparison
        assert told["logged"]["measured_j"] == pytest.approx(told["rows"][0]["measured"]), comparison
    assert "toy-batch-window" in (lab.folder / "out" / "overview.md").read_text()
    assert "energy over time" in result.stdout


def test_json_has_the_comparison_of_each_case_and_quiet_is_the_folder(lab: Lab) -> None:
    plan = lab.plan({"name": "a"})
    out = "out"
    answer = json.loads(lab.validate("--plan", plan, "--json").stdout)
    assert (answer["left"], answer["out"], list(answer["cases"])) == (0, out, ["a"])
    assert answer["cases"]["a"] == json.loads((lab.folder / "out" / "a" / "comparison.json").read_text())
    again = lab.validate("--plan", plan, "--quiet")
    assert (again.stdout, again.stderr) == (f"{out}\n", "")


def test_a_plan_runs_on_one_engine_and_repeats_give_the_noise(lab: Lab) -> None:
    plan = lab.plan({"name": "a", "repeats": 2}, {"name": "b", "stretch": 1.5})
    assert lab.validate("--plan", plan).exit_code == 0
    assert lab.starts == 1
    assert all(lab.is_valid(name) for name in ("a/measured-1", "a/measured-2", "b/measured-1"))
    comparison = json.loads((lab.folder / "out" / "a" / "comparison.json").read_text())
    assert comparison["measured_runs"] == 2
    assert comparison["rows"][0]["noise_fraction"] == pytest.approx(0.0, abs=0.02)


def test_what_is_on_disk_is_not_measured_again_and_what_is_invalid_is(lab: Lab) -> None:
    plan = lab.plan({"name": "a"}, {"name": "b"})
    lab.engine_options = {"fail_after": 16}
    assert lab.validate("--plan", plan, "--measure-only").exit_code == 0
    first = read_run(lab.folder / "out" / "a" / "measured-1")
    assert first.meta.energy_valid
    assert not lab.is_valid("b/measured-1")
    lab.engine_options = {}
    assert lab.validate("--plan", plan, "--measure-only").exit_code == 0
    assert lab.is_valid("b/measured-1")
    assert read_run(lab.folder / "out" / "a" / "measured-1").meta.run_id == first.meta.run_id
    assert lab.starts == 2
    assert "nothing to measure" in lab.validate("--plan", plan, "--measure-only").output
    assert lab.starts == 2


def test_time_that_is_up_begins_no_further_replay(lab: Lab) -> None:
    plan = lab.plan({"name": "a"}, {"name": "b"})
    result = lab.validate("--plan", plan, "--measure-only", "--stop-after", "20")
    assert result.exit_code == 0
    assert "1 replays are left" in result.output
    assert lab.is_valid("a/measured-1")
    assert not (lab.folder / "out" / "b" / "measured-1").exists()


def test_an_interrupt_leaves_the_record_of_the_replay_under_way(lab: Lab) -> None:
    lab.interrupt_at_s = 8.0
    result = lab.validate("--plan", lab.plan({"name": "a"}, {"name": "b"}), "--measure-only")
    assert result.exit_code == 130
    meta = read_run(lab.folder / "out" / "a" / "measured-1").meta
    assert "the replay was interrupted" in meta.invalid_reasons
    assert not (lab.folder / "out" / "b" / "measured-1").exists()


def test_comparing_later_needs_neither_engine_nor_the_trace(lab: Lab) -> None:
    assert lab.validate("--plan", lab.plan({"name": "a"}), "--measure-only").exit_code == 0
    assert not (lab.folder / "out" / "a" / "simulated").exists()
    (lab.folder / "toy.parquet").unlink()
    result = lab.validate("--compare-only")
    assert result.exit_code == 0, result.output
    assert lab.starts == 1
    assert (lab.folder / "out" / "a" / "simulated" / "run.json").is_file()


def test_only_valid_runs_are_compared(lab: Lab) -> None:
    assert lab.validate("--plan", lab.plan({"name": "a", "repeats": 2}), "--measure-only").exit_code == 0
    record = lab.folder / "out" / "a" / "measured-2" / "run.json"
    record.write_text(
        json.dumps({**json.loads(record.read_text()), "energy_valid": False, "invalid_reasons": ["invented"]})
    )
    result = lab.validate("--compare-only")
    assert "a: left out: invented" in result.output
    assert json.loads((lab.folder / "out" / "a" / "comparison.json").read_text())["measured_runs"] == 1


def test_a_dead_engine_ends_the_plan_and_is_said(lab: Lab) -> None:
    write_trace(toy_trace([0.01 * row for row in range(400)], 16, 2), lab.folder / "many.parquet")
    lab.engine_options = {"fail_after": 30}
    plan = lab.plan({"name": "a", "trace": "many.parquet"}, {"name": "b"})
    result = lab.validate("--plan", plan, "--measure-only")
    assert result.exit_code == 2
    assert "the engine died" in result.output
    assert not lab.is_valid("a/measured-1")
    assert not (lab.folder / "out" / "b" / "measured-1").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give a TRACE or a --plan"),
        (["toy.parquet", "--plan", "plan.json"], "give a TRACE or a --plan"),
        (["toy.parquet", "--measure-only", "--compare-only"], "leave nothing to do"),
        (["nowhere.parquet"], "no such file"),
        (["--compare-only"], "measure first"),
        (["toy.parquet", "--policy", "none"], "no policy 'none'"),
    ],
)
def test_bad_input_is_one_line_and_starts_no_engine(lab: Lab, arguments: list[str], message: str) -> None:
    result = lab.validate(*arguments)
    assert result.exit_code == 2
    assert message in result.output
    assert lab.starts == 0


def test_a_case_of_the_same_name_that_is_another_is_refused(lab: Lab) -> None:
    assert lab.validate("--plan", lab.plan({"name": "a"}), "--measure-only").exit_code == 0
    result = lab.validate("--plan", lab.plan({"name": "a", "stretch": 2.0}), "--measure-only")
    assert result.exit_code == 2
    assert "holds another case of that name" in result.output


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[]", "at least one case"),
        ('[{"name": "a"}]', "a case has name, trace"),
        ('[{"name": "a", "trace": "t", "strech": 2}]', "strech"),
        ('[{"name": "../a", "trace": "t"}]', "letters, digits"),
        ('[{"name": "a", "trace": "t", "repeats": 0}]', "repeats must be >= 1"),
        ('[{"name": "a", "trace": "t"}, {"name": "a", "trace": "u"}]', "two cases are named 'a'"),
        ('[{"name": "a", "trace": "t", "settings": [1]}]', "settings must be an object"),
    ],
)
def test_a_plan_that_is_none_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "plan.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_plan(tmp_path / "plan.json")


def test_settings_of_a_plan_may_be_numbers(tmp_path: Path) -> None:
    entry = {
        "name": "a",
        "trace": "t",
        "policy": "batch-window",
        "settings": {"window_s": 2, "max_batch": None},
    }
    (tmp_path / "plan.json").write_text(json.dumps([entry]))
    (case,) = read_plan(tmp_path / "plan.json")
    expected = Case("a", "t", "batch-window", {"window_s": "2", "max_batch": "null"})
    assert case == expected
    policy = case.make_policy(seed=0)
    assert getattr(policy, "window_s") == 2.0  # noqa: B009


CARD = (
    Point("idle"),
    Point("decode", batch=4, context_tokens=64),
    Point("prefill", chunk_tokens=400, streams=2),
)


def test_a_table_is_adapted_on_the_engine_that_replays(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grid, "CARD_LOADS", CARD)
    save_table(toy_table(engine=StandInEngine(Path(), lambda *_: 0.0).facts()), lab.folder / "table")
    result = lab.validate("--plan", lab.plan({"name": "a"}), "--adapt")
    assert result.exit_code == 0, result.output
    assert lab.starts == 1
    adapted, base = load_table(str(lab.folder / "out" / "adapted")), load_table(str(lab.folder / "table"))
    assert adapted.meta["adapted_from"] == "toy"
    assert adapted.bare_idle_w == base.bare_idle_w
    assert adapted.coefficients.idle_w == pytest.approx(IDLE_W, abs=1.0)
    assert read_run(lab.folder / "out" / "a" / "simulated").meta.table == "adapted"
    assert lab.validate("--compare-only", "--adapt").exit_code == 0
    assert lab.starts == 1


def test_a_case_needs_as_many_replicas_as_cards_were_measured(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grid, "CARD_LOADS", CARD)
    save_table(toy_table(engine=StandInEngine(Path(), lambda *_: 0.0).facts()), lab.folder / "table")
    assert lab.validate("--plan", lab.plan({"name": "a"}), "--adapt", "--measure-only").exit_code == 0
    for replica in range(2):
        copytree(lab.folder / "out" / "adapted", lab.folder / "out" / f"adapted-{replica}")
    refused = lab.validate("--compare-only", "--adapt")
    assert refused.exit_code == 2
    told = "case a ran on 1 replica, but 2 cards were measured; compare it without --adapt"
    assert refused.stderr.endswith(f"Error: {told}\n")


def test_each_engine_start_adds_a_round_of_card_loads(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grid, "CARD_LOADS", CARD)
    plan = lab.plan({"name": "a"}, {"name": "b"})
    assert lab.validate("--plan", plan, "--adapt", "--measure-only", "--stop-after", "25").exit_code == 0
    assert not (lab.folder / "out" / "b" / "measured-1").exists()
    assert lab.validate("--plan", plan, "--adapt", "--measure-only").exit_code == 0
    points = read_lines(lab.folder / "out" / "adapted" / "points.jsonl")
    assert [(raw.session, raw.point.repeat) for raw in points] == [(0, 0)] * 3 + [(1, 1)] * 3


ADAPT = ("--adapt", "--measure-only")


@pytest.fixture
def paced_lab(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """Return a lab whose card has the load that tells the pace."""
    monkeypatch.setattr(grid, "CARD_LOADS", (Point("idle"), grid.ONE_SEQUENCE))
    return lab


def card_points(lab: Lab, file: str) -> list[RawPoint]:
    """Return the points of a file in the card's folder."""
    return read_lines(lab.folder / "out" / "adapted" / file)


def after_replay(lab: Lab, record: str, before_s: float, after_s: float) -> Callable[[int, int], float]:
    """Return the time of a step: another one as soon as a record is on disk."""
    return lambda *_: after_s if (lab.folder / "out" / record / "run.json").exists() else before_s


@pytest.mark.parametrize(("after_s", "change"), [(0.05, "+0.0 %"), (0.0496, "-0.8 %"), (0.0504, "+0.8 %")])
def test_a_pace_that_held_is_said_once_and_is_no_warning(paced_lab: Lab, after_s: float, change: str) -> None:
    paced_lab.step_s = after_replay(paced_lab, "b/measured-1", 0.05, after_s)
    result = paced_lab.validate("--plan", paced_lab.plan({"name": "a"}, {"name": "b"}), *ADAPT)
    assert result.exit_code == 0, result.output
    took = f"50.00 ms before the replays and {1000 * after_s:.2f} ms after them ({change})"
    line = f"a step of one sequence took {took}\n"
    assert result.stderr.count(line) == 1
    assert "warning" not in result.stderr
    assert result.stderr.index("b #1") < result.stderr.index(line)


@pytest.mark.parametrize(("after_s", "change"), [(0.0494, "-1.2 %"), (0.0506, "+1.2 %")])
def test_a_pace_that_changed_is_warned_of_and_adapts_nothing(
    paced_lab: Lab, after_s: float, change: str
) -> None:
    paced_lab.step_s = after_replay(paced_lab, "a/measured-1", 0.05, after_s)
    result = paced_lab.validate("--plan", paced_lab.plan({"name": "a"}), *ADAPT, "--quiet")
    assert result.exit_code == 0, result.output
    took = f"50.00 ms before the replays and {1000 * after_s:.2f} ms after them ({change})"
    assert f"warning: a step of one sequence took {took}; the engine's pace changed: " in result.stderr
    assert [raw.point.kind for raw in card_points(paced_lab, "points.jsonl")] == ["idle", "decode"]
    (after,) = card_points(paced_lab, "after.jsonl")
    assert windows([after])[0].step_s == pytest.approx(after_s)


def test_the_pace_is_compared_with_that_of_the_same_engine_start(paced_lab: Lab) -> None:
    plan = paced_lab.plan({"name": "a"}, {"name": "b"})
    first = paced_lab.validate("--plan", plan, *ADAPT, "--stop-after", "25")
    assert not (paced_lab.folder / "out" / "b" / "measured-1").exists()
    paced_lab.step_s = lambda *_: 0.04
    second = paced_lab.validate("--plan", plan, *ADAPT)
    assert "took 50.00 ms before the replays and 50.00 ms after" in first.stderr
    assert "took 40.00 ms before the replays and 40.00 ms after" in second.stderr
    assert [(raw.session, raw.point.repeat) for raw in card_points(paced_lab, "after.jsonl")] == [
        (0, 0),
        (1, 1),
    ]


@pytest.mark.parametrize(
    ("how", "exit_code", "ending"),
    [
        ({"interrupt_at_s": 40.0}, 130, "interrupted"),
        ({"engine_options": {"fail_after": 250}}, 2, "the engine died"),
    ],
)
def test_no_pace_is_measured_after_an_interrupt_or_a_death(
    paced_lab: Lab, how: dict[str, Any], exit_code: int, ending: str
) -> None:
    write_trace(toy_trace([0.05 * row for row in range(400)], 16, 2), paced_lab.folder / "many.parquet")
    for name, value in how.items():
        setattr(paced_lab, name, value)
    plan = paced_lab.plan({"name": "a"}, {"name": "b", "trace": "many.parquet"})
    result = paced_lab.validate("--plan", plan, *ADAPT)
    assert (result.exit_code, ending in result.stderr) == (exit_code, True), result.stderr
    assert paced_lab.is_valid("a/measured-1")
    assert not paced_lab.is_valid("b/measured-1")
    assert len(card_points(paced_lab, "points.jsonl")) == 2
    assert card_points(paced_lab, "after.jsonl") == []
    assert "pace" not in result.stderr


def test_no_pace_is_measured_where_no_replay_was(paced_lab: Lab) -> None:
    result = paced_lab.validate("--plan", paced_lab.plan({"name": "a"}), *ADAPT, "--stop-after", "1")
    assert "1 replays are left" in result.stderr
    assert len(card_points(paced_lab, "points.jsonl")) == 2
    assert card_points(paced_lab, "after.jsonl") == []


def test_a_pace_that_cannot_be_measured_loses_no_replay(
    paced_lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = paced_lab.folder / "out" / "a" / "measured-1" / "run.json"
    monkeypatch.setattr(paced_lab.watch, "foreign_process_ids", lambda: (7,) if record.exists() else ())
    result = paced_lab.validate("--plan", paced_lab.plan({"name": "a"}), *ADAPT)
    assert result.exit_code == 0, result.output
    assert "warning: the engine's pace after the replays is unknown: process 7 has come" in result.stderr
    assert paced_lab.is_valid("a/measured-1")


def test_a_card_without_that_load_says_nothing_of_the_pace(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grid, "CARD_LOADS", CARD)
    result = lab.validate("--plan", lab.plan({"name": "a"}), *ADAPT)
    assert result.exit_code == 0, result.output
    assert "one sequence" not in result.stderr
    assert card_points(lab, "after.jsonl") == []


def test_a_case_says_what_its_policy_is_told_of_output_lengths(lab: Lab) -> None:
    plan = lab.plan({"name": "a", "policy": "shortest-first", "length_prediction": "oracle"})
    assert lab.validate("--plan", plan).exit_code == 0
    for record in ("measured-1", "simulated"):
        notes = read_run(lab.folder / "out" / "a" / record).meta.notes
        assert any("predicted as oracle" in note for note in notes), record
    bad = lab.plan({"name": "b", "length_prediction": "psychic"})
    result = lab.validate("--plan", bad)
    assert result.exit_code == 2
    assert "length prediction must be none, oracle or noisy:cv=F, F >= 0, got 'psychic'" in result.output


def test_a_policy_that_asks_for_costs_is_told_those_of_the_table(lab: Lab) -> None:
    plan = lab.plan({"name": "a", "policy": "deadline", "settings": {"ttft_s": 1.5}})
    assert lab.validate("--plan", plan, "--measure-only").exit_code == 0
    assert lab.validate("--compare-only").exit_code == 0
    measured, simulated = (
        read_run(lab.folder / "out" / "a" / record).outcomes for record in ("measured-1", "simulated")
    )
    assert (measured.released_s > measured.arrival_s + 1.3).all()
    assert measured.released_s == pytest.approx(simulated.released_s, abs=0.001)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--device", "twin", "--adapt"], "a twin has none: leave it out"),
        (["--replicas", "2", "--gpu", "1"], "--gpu would meter other GPUs"),
        (["--replicas", "2", "--router", "x"], "no router 'x'"),
    ],
)
def test_options_that_contradict_each_other_are_refused(lab: Lab, arguments: list[str], message: str) -> None:
    result = lab.validate("toy.parquet", *arguments)
    assert result.exit_code == 2
    assert message in result.output
    assert lab.starts == 0
