"""Measuring power states: what comes out is what was scripted, and what goes wrong loses nothing else."""

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
import pytest
import sleepy_vllm
from calibration_bench import GPU, Company
from click.testing import CliRunner
from numpy.typing import NDArray
from scripted_meter import TICK_S, ScriptedMeter
from scripted_nvml import ScriptedNvml
from sleepy_vllm import make_package
from toy_table import toy_table
from virtual_loop import VirtualLoop

from calibrate.measure import Unfinished
from calibrate.states import HOLD_S, LEAD_S, StatesPlan, StatesTools, describe, measure_states
from calibrate.states_file import Phase, Round, read_readings
from calibrate.states_fit import power_states, read_round
from replay.main import main
from sim.table_files import load_table, save_table

FACTS = {"model": "toy", "dtype": "bfloat16", "quantization": None, "tensor_parallel_size": 1}
TABLE = toy_table(gpu=GPU["name"], engine={**FACTS, "max_num_seqs": 32})
OFF_W, IDLE_W = 80.0, 124.0
SWITCH_W = {"off leave": 150.0, "sleep-1 enter": 126.0, "sleep-1 leave": 170.0, "sleep-2 enter": 124.5}
SWITCH_W |= {"sleep-2 leave": 160.0, "off enter": 110.0}
SECONDS = {"off leave": 80.0, "sleep-1 enter": 17.0, "sleep-1 leave": 2.0, "sleep-2 enter": 0.5}
SECONDS |= {"sleep-2 leave": 5.0, "off enter": 4.0}
TAIL_S, TAIL_W = 1.2, 100.0
"""After the engine's process has gone, its GPU takes a while to come to rest."""
ASLEEP_W = {1: 122.0, 2: 121.0}
IDLE_OF_TABLE_W = 2 * sleepy_vllm.ON_W
SHIPPED = "h200-llama-3.2-1b-bf16"
QUICKLY = """
from calibrate import states, states_fit
states.HOLD_S, states.LEAD_S = 0.8, 0.2
states_fit.SETTLE_S.update(dict.fromkeys(states_fit.SETTLE_S, 0.1))
from replay.main import main
main()
"""
NO_RELOAD = "vLLM does not wake from level 2: Model reloading with `dummy` format"


class DrawnMeter(ScriptedMeter):
    """A scripted meter of a GPU that draws what it is told to."""

    def __init__(self, clock: Callable[[], float], folder: Path) -> None:
        super().__init__(folder / "steps.bin", clock, folder / "meter.bin")
        self.drawn: list[tuple[float, float]] = [(0.0, OFF_W)]

    def energy_j(self, at_s: NDArray[np.float64]) -> NDArray[np.float64]:
        ends_s = [end_s for end_s, _ in self.drawn[1:]] + [np.inf]
        total_j = np.zeros(len(at_s))
        for (begin_s, watts), end_s in zip(self.drawn, ends_s, strict=True):
            total_j += watts * np.clip(at_s - begin_s, 0.0, end_s - begin_s)
        return total_j


@dataclass
class ScriptedEngine:
    """An engine of which each act takes the seconds and watts above; `fails` says what goes wrong when."""

    draw: Callable[[float], None]
    facts: dict[str, Any] = field(default_factory=lambda: dict(FACTS))
    fails: dict[str, BaseException] = field(default_factory=dict)
    slower: float = 1.0
    starts: int = 0
    ended: int = 0
    is_up: bool = False

    async def start(self) -> dict[str, Any]:
        self.starts += 1
        await self._act("off leave", IDLE_W)
        self.is_up = True
        return self.facts

    async def answer(self) -> None:
        if not self.is_up:
            raise ConnectionError("the engine's process has ended; its log says more")

    async def ensure_awake(self) -> None:
        await self.answer()

    async def sleep(self, level: int) -> None:
        await self._act(f"sleep-{level} enter", ASLEEP_W[level])

    async def wake(self, level: int) -> None:
        await self._act(f"sleep-{level} leave", IDLE_W)

    async def stop(self) -> None:
        self.is_up = False
        await self._act("off enter", TAIL_W)
        asyncio.get_running_loop().call_later(TAIL_S, self.draw, OFF_W)

    async def end(self) -> None:
        self.ended += 1

    async def _act(self, name: str, then_w: float) -> None:
        self.draw(SWITCH_W[name])
        await asyncio.sleep(SECONDS[name] * (self.slower if name == "off leave" else 1.0))
        self.draw(then_w)
        failure = self.fails.get(name)
        if failure is not None:
            self.is_up = self.is_up and not isinstance(failure, ConnectionError)
            raise failure


@dataclass
class StatesBench:
    """Everything that `measure_states` needs, on a clock that jumps."""

    path: Path
    meter: DrawnMeter
    engine: ScriptedEngine
    said: list[str] = field(default_factory=list)
    company: Company = field(default_factory=Company)
    gpu: dict[str, Any] = field(default_factory=lambda: dict(GPU))

    def measure(self, rounds: int = 1, stop_after_s: float | None = None) -> list[Round]:
        tools = StatesTools(self.engine, nullcontext(self.meter), self.company, self.gpu, {"a": 1})
        return measure_states(self.path, StatesPlan(rounds, stop_after_s), tools, TABLE, self.said.append)


@pytest.fixture
def states_bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StatesBench]:
    loop = VirtualLoop()
    monkeypatch.setattr(time, "monotonic", loop.time)
    monkeypatch.setattr(asyncio, "run", loop.run_until_complete)
    meter = DrawnMeter(loop.time, tmp_path)
    engine = ScriptedEngine(lambda watts: meter.drawn.append((loop.time(), watts)))
    yield StatesBench(tmp_path / "out" / "states.json", meter, engine)
    loop.close()


def test_seconds_and_joules_of_each_way_are_what_was_scripted(states_bench: StatesBench) -> None:
    (one,) = states_bench.measure()
    found = read_round(one)
    for name, seconds in SECONDS.items():
        state, kind = name.split()
        stretch = found[state, kind]  # type: ignore[index]
        tail_j = TAIL_S * (TAIL_W - OFF_W) if name == "off enter" else 0.0
        assert stretch.seconds == pytest.approx(seconds, abs=1e-6), name
        assert stretch.joules == pytest.approx(seconds * SWITCH_W[name] + tail_j, abs=0.01), name
    power_w = {state: found[state, "hold"].mean_w for state in ("idle", "sleep-1", "sleep-2", "off")}
    expected_w = {"idle": IDLE_W, "sleep-1": ASLEEP_W[1], "sleep-2": ASLEEP_W[2], "off": OFF_W}
    assert power_w == pytest.approx(expected_w, abs=0.001)
    assert found["idle", "hold"].seconds == pytest.approx(3 * HOLD_S, abs=3 * 2 * TICK_S)
    assert one.is_whole


def test_a_round_on_a_warm_h200_takes_less_than_150_s(states_bench: StatesBench) -> None:
    (one,) = states_bench.measure()
    metered_there = {"off leave": 83.0, "sleep-1 enter": 16.8, "sleep-1 leave": 2.1, "off enter": 4.0}
    slower_there_s = sum(seconds - SECONDS[name] for name, seconds in metered_there.items())
    assert LEAD_S + one.phases[-1].end_s + slower_there_s < 150.0


def test_the_phases_of_a_round_follow_one_another(states_bench: StatesBench) -> None:
    (one,) = states_bench.measure()
    names = [f"{phase.state} {phase.kind}" for phase in one.phases]
    sleeps = [
        [f"{sleep} enter", f"{sleep} hold", f"{sleep} leave", "idle hold"] for sleep in ("sleep-1", "sleep-2")
    ]
    assert names == ["off leave", "idle hold", *sleeps[0], *sleeps[1], "off enter", "off hold"]
    assert all(after.begin_s == pytest.approx(before.end_s) for before, after in pairwise(one.phases))


def test_what_was_measured_is_read_again(states_bench: StatesBench) -> None:
    (one,) = states_bench.measure()
    readings = read_readings(states_bench.path)
    (again,) = readings.rounds
    assert (again.phases, again.failures, again.session) == (one.phases, {}, 0)
    assert read_round(again)["off", "enter"].joules == pytest.approx(
        read_round(one)["off", "enter"].joules, abs=1e-2
    )
    (session,) = readings.sessions
    assert (session["engine"], session["options"], session["gpu"]["hashes"]) == (FACTS, {"a": 1}, ["aa"])
    for line in ("  from off: 80.00 s, 12000 J", "  off: 80.0 W", "  to sleep-1: 17.00 s, 2142 J"):
        assert line in describe(again)


def test_a_table_gets_the_mean_over_rounds_scaled_to_its_idle_power(states_bench: StatesBench) -> None:
    states_bench.engine.slower = 1.5
    with pytest.raises(Unfinished, match=r"^1 of 3 rounds are done$"):
        states_bench.measure(3, stop_after_s=1.0)
    states_bench.engine.slower = 1.0
    states_bench.measure(2)
    states_bench.engine.slower = 1.1
    rounds = states_bench.measure(3)
    assert [one.session for one in rounds] == [0, 1, 2]
    told, notes = power_states(rounds, 62.0)
    assert told["off"].leave_s == pytest.approx(80.0 * fmean([1.5, 1.0, 1.1]))
    assert notes["spread"]["off"]["leave_s"] == pytest.approx(80.0 * stdev([1.5, 1.0, 1.1]))
    assert told["off"].power_w == pytest.approx(OFF_W / 2, abs=0.01)
    assert told["sleep-2"].power_w == pytest.approx(ASLEEP_W[2] / 2, abs=0.01)
    assert told["sleep-1"].leave_j == pytest.approx(2.0 * SWITCH_W["sleep-1 leave"] / 2, abs=50 * TICK_S)
    assert told["sleep-1"].enter_s == pytest.approx(17.0)
    assert (notes["rounds"], notes["failures"]) == (3, [])
    assert notes["idle_w"] == pytest.approx(IDLE_W, abs=0.01)


def test_a_session_s_first_start_counts_only_where_there_is_no_other(states_bench: StatesBench) -> None:
    states_bench.engine.slower = 2.0
    states_bench.measure(1)
    (first,) = read_readings(states_bench.path).rounds
    assert power_states([first], IDLE_W)[0]["off"].leave_s == pytest.approx(160.0)
    second = replace(first, phases=tuple(later(phase, 30.0) for phase in first.phases))
    told, notes = power_states([first, second], IDLE_W)
    assert told["off"].leave_s == pytest.approx(130.0)
    assert notes["spread"]["off"]["leave_s"] is None
    assert notes["spread"]["off"]["enter_s"] == pytest.approx(0.0)


def later(phase: Phase, seconds: float) -> Phase:
    """Return the phase, begun later if it is a start."""
    is_start = (phase.state, phase.kind) == ("off", "leave")
    return replace(phase, begin_s=phase.begin_s + seconds * is_start)


def test_a_wake_that_fails_is_told_and_keeps_the_rest(states_bench: StatesBench) -> None:
    states_bench.engine.fails["sleep-2 leave"] = ValueError(NO_RELOAD)
    (one,) = states_bench.measure()
    assert one.is_whole
    found = read_round(one)
    assert found["sleep-2", "hold"].mean_w == pytest.approx(ASLEEP_W[2], abs=0.01)
    assert ("sleep-2", "leave") not in found
    told, notes = power_states([one], IDLE_W)
    assert set(told) == {"sleep-1", "off"}
    assert told["off"].enter_s == pytest.approx(4.0)
    assert notes["failures"] == [f"sleep-2: {NO_RELOAD}"]
    assert states_bench.said[-1] == f"  sleep-2 failed: {NO_RELOAD}"


@pytest.mark.parametrize(
    ("when", "kept"),
    [("off leave", set()), ("sleep-1 enter", {"off"}), ("sleep-2 leave", {"off", "sleep-1", "sleep-2"})],
)
def test_an_engine_that_dies_keeps_what_came_to_its_end(
    states_bench: StatesBench, when: str, kept: set[str]
) -> None:
    states_bench.engine.fails[when] = ConnectionError("the engine's process ended")
    with pytest.raises(ConnectionError, match="the engine's process ended"):
        states_bench.measure()
    assert states_bench.engine.ended == 1
    rounds = read_readings(states_bench.path).rounds
    assert {phase.state for one in rounds for phase in one.phases} - {"idle"} == kept
    assert not any(one.is_whole for one in rounds)

    states_bench.engine.fails.clear()
    rounds = states_bench.measure()
    told, notes = power_states(rounds, IDLE_W)
    assert set(told) == {"sleep-1", "sleep-2", "off"}
    assert notes["rounds"] == 1


def test_an_engine_that_has_gone_after_a_failed_wake_ends_the_round(
    states_bench: StatesBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def gone() -> None:
        raise ValueError("vLLM failed: EngineCore encountered an issue")

    states_bench.engine.fails["sleep-1 leave"] = ValueError("out of memory")
    monkeypatch.setattr(states_bench.engine, "ensure_awake", gone)
    with pytest.raises(ValueError, match="EngineCore encountered an issue"):
        states_bench.measure()
    (one,) = read_readings(states_bench.path).rounds
    assert one.failures == {"sleep-1": "out of memory"}
    assert one.phases[-1].state == "sleep-1"


def test_an_interrupted_round_keeps_what_came_to_its_end(states_bench: StatesBench) -> None:
    states_bench.engine.fails["sleep-1 leave"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        states_bench.measure()
    (one,) = read_readings(states_bench.path).rounds
    assert [f"{phase.state} {phase.kind}" for phase in one.phases][-1] == "sleep-1 hold"
    assert states_bench.engine.ended == 1
    found = read_round(one)
    assert found["sleep-1", "enter"].joules == pytest.approx(17.0 * SWITCH_W["sleep-1 enter"], abs=0.01)


def test_no_round_begins_that_may_end_too_late(states_bench: StatesBench) -> None:
    states_bench.measure(1)
    took_s = time.monotonic()
    with pytest.raises(Unfinished, match=r"^3 of 5 rounds are done$"):
        states_bench.measure(5, stop_after_s=2.5 * took_s)
    assert [one.session for one in read_readings(states_bench.path).rounds] == [0, 1, 1]
    states_bench.measure(3)
    assert states_bench.engine.starts == 3


def change_facts(bench: StatesBench) -> None:
    bench.engine.facts["dtype"] = "float16"


def change_gpu(bench: StatesBench) -> None:
    bench.gpu["power_limit_w"] = 500.0


def bring_a_stranger(bench: StatesBench) -> None:
    bench.company.strangers = (4711,)


def set_the_counter_back(bench: StatesBench) -> None:
    bench.meter.falls_at_s = 50.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            change_facts,
            "the engine has dtype = float16, but the table or the rounds before have bfloat16; use ",
        ),
        (change_gpu, r"the GPU has power_limit_w = 500\.0, but .* have 700\.0"),
        (bring_a_stranger, "process 4711 has come to the GPU"),
        (set_the_counter_back, "the energy counter went back during a round"),
    ],
)
def test_what_would_spoil_a_table_is_refused_and_not_kept(
    states_bench: StatesBench, change: Callable[[StatesBench], None], message: str
) -> None:
    change(states_bench)
    with pytest.raises(ValueError, match=message):
        states_bench.measure()
    assert not states_bench.path.exists()


def test_rounds_go_on_only_with_the_same_engine_options(states_bench: StatesBench) -> None:
    states_bench.engine.facts |= {"max_num_seqs": 32, "num_gpu_blocks": 9}
    states_bench.measure()
    states_bench.engine.facts["num_gpu_blocks"] = 10
    states_bench.gpu["hashes"] = ["bb"]
    states_bench.measure(2)
    states_bench.engine.facts["max_num_seqs"] = 7
    with pytest.raises(ValueError, match="max_num_seqs = 7, but the table or the rounds before have 32"):
        states_bench.measure(3)
    readings = read_readings(states_bench.path)
    assert [session["gpu"]["hashes"] for session in readings.sessions] == [["aa"], ["bb"]]
    assert len(readings.rounds) == 2


@pytest.mark.parametrize(
    "text", ["{", '{"events":[]}', '{"format":2}', '{"format":1,"sessions":[],"rounds":[{}]}']
)
def test_a_file_of_something_else_is_refused_and_left(states_bench: StatesBench, text: str) -> None:
    states_bench.path.parent.mkdir()
    states_bench.path.write_text(text)
    with pytest.raises(ValueError, match=r"states\.json: no readings of power states \(.*use another --out"):
        states_bench.measure()
    assert states_bench.path.read_text() == text


def test_a_counter_that_stops_gives_no_states(states_bench: StatesBench) -> None:
    (one,) = states_bench.measure()
    silent = replace(one, counter=one.counter[: len(one.counter) // 2])
    with pytest.raises(ValueError, match="the energy counter did not tick t"):
        power_states([silent], IDLE_W)


def test_rounds_without_an_idle_engine_tell_nothing() -> None:
    one = Round(0, "2026-01-01T00:00:00+00:00", (), {}, np.zeros((0, 2)))
    assert power_states([one], IDLE_W) == ({}, {"rounds": 0, "idle_w": None, "spread": {}, "failures": []})


@pytest.fixture
def sleepy(nvml: ScriptedNvml, tmp_path: Path) -> ScriptedNvml:
    """Return a scripted GPU that a vLLM of child processes draws on, with a model and a table of it."""
    nvml.environment["PYTHONPATH"] += f":{make_package(tmp_path / 'packages')}"
    nvml.add_gpu(0, sleepy_vllm.OFF_W)
    nvml.say(-1.0, 0, tick_s=0.05)
    for folder in ("toy", "table"):
        (tmp_path / folder).mkdir()
    (tmp_path / "toy" / "config.json").write_text("{}")
    table = toy_table(gpu="NVIDIA Invented 0", engine=FACTS, meta={"date": "then"}, idle_w=IDLE_OF_TABLE_W)
    save_table(table, tmp_path / "table")
    return nvml


def command_of(folder: Path, *options: str) -> list[str]:
    given = ["--model", str(folder / "toy"), "--table", str(folder / "table"), "--repeats", "1"]
    return ["-c", QUICKLY, "calibrate", "--states", *given, *options]


def test_the_command_adds_the_states_that_the_meter_saw_to_a_table(
    sleepy: ScriptedNvml, tmp_path: Path
) -> None:
    done = sleepy.run(*command_of(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    table = load_table(str(tmp_path / "table"))
    seconds, watts = sleepy_vllm.SECONDS, sleepy_vllm.WATTS
    for state, enter, leave in (("sleep-1", "sleep 1", "wake 1"), ("sleep-2", "sleep 2", "reload")):
        told = table.states[state]
        assert told.power_w == pytest.approx(2 * sleepy_vllm.ASLEEP_W[int(state[-1])], rel=0.03)
        assert told.enter_s == pytest.approx(seconds[enter], abs=0.1)
        assert told.leave_s == pytest.approx(seconds[leave], abs=0.1)
        assert told.enter_j == pytest.approx(2 * seconds[enter] * watts[enter], rel=0.1)
        assert told.leave_j == pytest.approx(2 * seconds[leave] * watts[leave], rel=0.1)
    off = table.states["off"]
    assert off.power_w == pytest.approx(2 * sleepy_vllm.OFF_W, rel=0.03)
    importing_s = off.leave_s - seconds["start"]
    started_j = seconds["start"] * watts["start"] + importing_s * sleepy_vllm.OFF_W
    assert importing_s > 0
    assert off.leave_j == pytest.approx(2 * started_j, rel=0.15)
    assert table.meta["date"] == "then"
    assert table.meta["states_notes"]["rounds"] == 1
    assert f"is in {tmp_path / 'table'}" in done.stderr
    (session,) = read_readings(tmp_path / "table" / "states.json").sessions
    assert session["options"] == {"enable_sleep_mode": True}
    assert len(session["gpu"]["hashes"]) == 1


def test_a_level_that_cannot_be_woken_from_is_told_and_the_others_are_there(
    sleepy: ScriptedNvml, tmp_path: Path
) -> None:
    sleepy.environment["SLEEPY_VLLM_CANNOT_RELOAD"] = "1"
    done = sleepy.run(*command_of(tmp_path, "--out", str(tmp_path / "elsewhere")))
    assert done.returncode == 0, done.stderr
    why = "sleep-2: vLLM does not wake from level 2: Model reloading with `dummy` format"
    assert f"not measured: {why}" in done.stderr
    table = load_table(str(tmp_path / "elsewhere"))
    assert set(table.states) == {"sleep-1", "off"}
    assert table.meta["states_notes"]["failures"] == [why]
    assert load_table(str(tmp_path / "table")).states == {}


def test_an_interrupted_command_ends_its_engine_and_keeps_what_it_measured(
    sleepy: ScriptedNvml, tmp_path: Path
) -> None:
    told, table = tmp_path / "toy" / "told.txt", tmp_path / "table"
    command = subprocess.Popen(
        [sys.executable, *command_of(tmp_path)], env=sleepy.environment, stderr=subprocess.PIPE, text=True
    )
    with command:
        for _ in range(3000):
            if told.exists() and "sleep 2" in told.read_text():
                break
            time.sleep(0.01)
        command.send_signal(signal.SIGINT)
        _, talk = command.communicate(timeout=30)
    assert command.returncode != 0
    assert f"interrupted; what was measured is in {table / 'states.json'}: give the same" in talk
    assert "Traceback" not in talk
    (one,) = read_readings(table / "states.json").rounds
    assert not one.is_whole
    assert "shutdown" not in told.read_text()

    again = sleepy.run(*command_of(tmp_path, "--fit-only"))
    assert again.returncode == 0, again.stderr
    assert set(load_table(str(table)).states) == {"sleep-1"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--out", "nowhere"], "--model is missing: name the table's model, or give --fit-only"),
        (["--model", "m"], "--table is missing: name the table that gets the states, or its folder by --out"),
        (["--model", "m", "--out", "nowhere"], "no table 'nowhere'; there are "),
        (["--table", "toy", "--model", "m"], "no table 'toy'; there are "),
        (["--grid", "quick"], "--grid is for grids, not for --states; leave one out"),
        (["--hold-s", "2"], "--hold-s is for grids, not for --states; leave one out"),
        (["--measure-only"], "--measure-only is for grids, not for --states; leave one out"),
        (
            ["--table", SHIPPED, "--fit-only", "--out", "nowhere"],
            "no readings of power states",
        ),
        (
            ["--table", SHIPPED, "--model", "m", "--engine", "enable_sleep_mode=false"],
            "enable_sleep_mode is False, but only sleep mode can sleep; leave it out",
        ),
    ],
)
def test_wrong_usage_of_states_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(main, ["calibrate", "--states", *options])
    assert list(tmp_path.iterdir()) == []
    assert done.exit_code == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_table_without_states_belongs_to_states_alone() -> None:
    done = CliRunner().invoke(main, ["calibrate", "--table", "toy", "--out", "nowhere"])
    assert done.exit_code == 2
    assert "--table names the table of --states; give both, or --out alone" in done.stderr
