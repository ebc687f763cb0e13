"""Traces too long for memory: the same replay, read and written stretch by stretch."""

import json
from collections.abc import Callable
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_fleet import Asked
from toy_table import toy_table
from toy_trace import toy_trace, traces

from replay.main import main
from sim import stream as stream_module
from sim.batch_window import BatchWindow
from sim.immediate import Immediate
from sim.offline import Offline
from sim.options import EngineOptions, FleetOptions
from sim.policy import Policy
from sim.replica_processes import GroupThere
from sim.serving import Setup, power_tick_s
from sim.simulate import simulate
from sim.stream import can_stream, simulate_stream
from sim.summary import summarize, summary_of
from sim.table_files import save_table
from traces import long_trace
from traces.long_trace import LongTrace, open_long
from traces.parquet import write_parts, write_trace
from traces.reading import read_trace
from traces.record import Outcomes
from traces.record_files import new_record, read_run
from traces.source_file import open_source
from traces.trace import PrefixBlocks, Trace

OPTIONS = EngineOptions(max_num_batched_tokens=256, max_num_seqs=8, num_gpu_blocks=64, max_model_len=1000)
POLICIES: dict[str, Callable[[], Policy]] = {
    "immediate": Immediate,
    "batch-window": lambda: BatchWindow(window_s=2.0, max_batch=5),
}


def setup_of(replicas: int = 1, router: str = "round-robin", **options: Any) -> Setup:
    return Setup(
        EngineOptions(**{**vars_of(OPTIONS), **options}), FleetOptions(replicas, router), toy_table()
    )


def vars_of(options: EngineOptions) -> dict[str, Any]:
    return {name: getattr(options, name) for name in EngineOptions.__slots__}


def long(trace: Trace, path: Path) -> LongTrace:
    write_trace(trace, path, overwrite=True)
    return LongTrace(open_source(path))


def assert_streamed_alike(trace: LongTrace, policy: Callable[[], Policy], setup: Setup, folder: Path) -> None:
    """Compare the record, read back, with a replay in memory."""
    whole = simulate(read_trace(trace._path), policy(), setup.options, setup.table, fleet=setup.fleet, seed=3)
    with new_record(folder, overwrite=True) as record:
        meta, power, tally = simulate_stream(trace, policy(), setup, record.add, seed=3, processes=1)
        record.finish(meta, power)
    back = read_run(folder)
    for name in Outcomes.__slots__:
        np.testing.assert_array_equal(getattr(back.outcomes, name), getattr(whole.outcomes, name), name)
    np.testing.assert_array_equal(back.power.energy_j, whole.power.energy_j)
    assert summary_of(meta, meta.energy.total_j if meta.energy else None, tally) == summarize(whole)
    differ = {"run_id", "started_at"}
    assert {
        name for name in type(meta).__slots__ if getattr(meta, name) != getattr(whole.meta, name)
    } <= differ


@pytest.mark.parametrize("policy", POLICIES)
@settings(deadline=None, max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    trace=traces(max_requests=40, longest_gap_s=2),
    replicas=st.integers(1, 3),
    stretch=st.integers(1, 12),
    by_priority=st.booleans(),
)
def test_a_streamed_replay_is_bit_for_bit_the_one_in_memory(
    policy: str, trace: Trace, replicas: int, stretch: int, by_priority: bool, tmp_path: Path
) -> None:
    setup = setup_of(replicas, scheduling_policy="priority" if by_priority else "fcfs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stream_module, "STRETCH_REQUESTS", stretch)
        assert_streamed_alike(
            long(trace, tmp_path / "trace.parquet"), POLICIES[policy], setup, tmp_path / "r"
        )


def test_the_number_of_processes_changes_no_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_module, "STRETCH_REQUESTS", 50)
    draw = np.random.default_rng(1)
    arrival_s = np.sort(draw.uniform(0, 30, 300)).tolist()
    lengths = (draw.integers(1, 300, 300).tolist() for _ in range(2))
    trace = long(toy_trace(arrival_s, *lengths), tmp_path / "trace.parquet")
    columns = []
    metas = []
    for processes in (1, 2):
        parts: list[Outcomes] = []
        meta, power, _ = simulate_stream(trace, Immediate(), setup_of(3), parts.append, processes=processes)
        names = ("first_token_s", "finished_s", "energy_j")
        columns.append([np.concatenate([getattr(part, name) for part in parts]) for name in names])
        columns[-1].append(power.energy_j)
        metas.append((meta.energy, meta.makespan_s, meta.out_of_range_fraction, meta.notes))
    for one, other in zip(*columns, strict=True):
        np.testing.assert_array_equal(one, other)
    assert metas[0] == metas[1]


def test_what_a_process_raises_is_raised_here() -> None:
    group = GroupThere(range(1), 1, OPTIONS, toy_table(), 0.1)
    group.begin("close", inf)
    with pytest.raises(ValueError, match="end_s must be finite"):
        group.answer()
    group.begin("no such method")
    with pytest.raises(AttributeError):
        group.answer()


def test_a_process_that_ends_is_told_of() -> None:
    group = GroupThere(range(1), 1, OPTIONS, None, 0.1)
    group.begin("finish")
    with pytest.raises(ChildProcessError, match="a process of the simulation has ended"):
        group.answer()


def test_only_the_stretches_with_unfinished_requests_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_module, "STRETCH_REQUESTS", 10)
    trace = long(toy_trace([5.0 * row for row in range(100)]), tmp_path / "trace.parquet")
    finished_when_read: list[int] = []
    handed_over: list[int] = []
    parts = trace.parts

    def read(requests: int) -> Any:
        for part in parts(requests):
            finished_when_read.append(sum(handed_over))
            yield part

    monkeypatch.setattr(trace, "parts", read)
    simulate_stream(trace, Immediate(), setup_of(), lambda part: handed_over.append(len(part)), processes=1)
    assert handed_over == [10] * 10
    assert all(10 * read - done <= 20 for read, done in enumerate(finished_when_read))


@pytest.mark.parametrize(
    ("policy", "setup", "hashes", "can"),
    [
        (Immediate(), setup_of(), False, True),
        (Immediate(), setup_of(2), False, True),
        (Immediate(), setup_of(2, "least-loaded"), False, False),
        (Asked(Immediate()), setup_of(), False, False),
        (Offline(), setup_of(), False, False),
        (Immediate(), setup_of(), True, False),
        (Immediate(), setup_of(enable_prefix_caching=False), True, True),
    ],
)
def test_streamed_is_what_needs_no_more_than_a_stretch(
    policy: Policy, setup: Setup, hashes: bool, can: bool, tmp_path: Path
) -> None:
    trace = toy_trace([0.0, 1.0])
    if hashes:
        prefix = PrefixBlocks(np.zeros(2, np.int64), np.arange(3), 16)
        trace = trace.take(np.arange(2), prefix=prefix)
    assert can_stream(long(trace, tmp_path / "trace.parquet"), policy, setup) == can


class Backwards:
    """Releases the last request first."""

    def decide(self, *_: Any) -> Any:
        raise AssertionError

    def release_times(self, arrival_s: Any) -> Any:
        return 100.0 - arrival_s


@pytest.mark.parametrize(
    ("trace", "policy", "message"),
    [
        (toy_trace([0.0, 1.0]), Backwards(), "policy Backwards releases request 1 before the one above"),
        (toy_trace([0.0, 1.0], [1, 2000]), Immediate(), "request 1 of toy has 2004 tokens, max_model_len is"),
        (toy_trace([1.0, 0.0]), Immediate(), "row 1: arrival_s is before that of the row above; sort the"),
        (toy_trace([0.0, 1.0], [1, 0]), Immediate(), "row 1: prompt_tokens must be a whole number from 1"),
    ],
)
def test_what_cannot_be_streamed_is_refused_with_its_row(
    trace: Trace, policy: Policy, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_module, "STRETCH_REQUESTS", 1)
    with pytest.raises(ValueError, match=message):
        simulate_stream(
            long(trace, tmp_path / "trace.parquet"), policy, setup_of(), lambda _: None, processes=1
        )


def test_a_trace_written_in_parts_is_the_whole_trace(tmp_path: Path) -> None:
    trace = toy_trace([0.0, 1.0, 2.0, 3.0, 4.0], [1, 2, 3, 4, 5])
    write_parts([trace.part(0, 2), trace.part(2, 5)], tmp_path / "parts.parquet")
    back = read_trace(tmp_path / "parts.parquet")
    assert back.arrival_s.tolist() == trace.arrival_s.tolist()
    assert back.prompt_tokens.tolist() == trace.prompt_tokens.tolist()


def test_power_is_sampled_ten_times_a_second_until_that_would_be_too_often() -> None:
    assert power_tick_s(100_000.0) == 0.1
    assert power_tick_s(7 * 86_400.0) == 1.0
    assert power_tick_s(70 * 86_400.0) == 10.0


def test_only_long_parquet_files_are_streamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "trace.parquet"
    write_trace(toy_trace([0.0, 1.0]), path)
    (tmp_path / "trace.csv").write_text("arrival_s,prompt_tokens,output_tokens\n0,1,1\n1,1,1\n")
    assert open_long(path) is None
    monkeypatch.setattr(long_trace, "LONG_REQUESTS", 2)
    assert open_long(path) is not None
    assert open_long(tmp_path / "trace.csv") is None


def test_the_command_streams_a_long_trace_to_the_same_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "table").mkdir()
    save_table(toy_table(engine={"max_model_len": 4096}), tmp_path / "table")
    write_trace(toy_trace([0.5 * row for row in range(20)], 100, 10), tmp_path / "toy.parquet")
    printed = []
    for least, out in ((100, "whole"), (20, "streamed")):
        monkeypatch.setattr(long_trace, "LONG_REQUESTS", least)
        result = CliRunner().invoke(
            main, ["toy.parquet", "--table", "table", "--replicas", "2", "--out", out, "--json"]
        )
        assert result.exit_code == 0, result.output
        printed.append({**json.loads(result.stdout), "out": ""})
    assert printed[0] == printed[1]
    whole, streamed = read_run(Path("whole")), read_run(Path("streamed"))
    np.testing.assert_array_equal(whole.outcomes.energy_j, streamed.outcomes.energy_j)
    assert whole.meta.engine_options == streamed.meta.engine_options
