"""A measured run, on a clock that jumps: the record holds what engine and meter were scripted to do."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scripted_meter import BUSY_W, IDLE_W, TICK_S, ScriptedMeter, StillWatch
from standin_engine import StandInEngine
from toy_table import toy_table
from toy_trace import toy_trace
from virtual_loop import VirtualLoop

from backends.measured_record import Measured, Replay
from backends.measured_run import measure_replay
from backends.rig import Rig, warm_up
from backends.step_log import read_steps
from sim.batch_window import BatchWindow
from sim.immediate import Immediate
from sim.offline import Offline
from sim.summary import summarize
from traces.record import FAILED, SERVED, UNFINISHED
from traces.record_files import read_run, write_run

STEP_S = 0.05
TRACE = toy_trace([1.0, 7.0], prompt_tokens=100, output_tokens=4)
"""Each request is a prefill step and three decode steps of 50 ms."""


EDGE_J = 2 * (BUSY_W - IDLE_W) * TICK_S / 4
"""Most that a window's energy is off where its two edges lie within ticks, the power changing there."""


@dataclass
class Bench:
    """An engine, a meter and a clock under the test's control."""

    loop: VirtualLoop
    engine: StandInEngine
    meter: ScriptedMeter
    watch: StillWatch
    rig: Rig

    def run(self, main: Callable[[], Awaitable[Measured]]) -> Measured:
        async def started() -> Measured:
            await self.engine.start()
            try:
                return await main()
            finally:
                self.engine.stop()
                await asyncio.sleep(0)  # its loop ends

        return self.loop.run_until_complete(started())

    def measure(self, what: Replay) -> Measured:
        return self.run(lambda: measure_replay(what, self.rig))


MakeBench = Callable[..., Bench]


@pytest.fixture
def make_bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeBench]:
    loop = VirtualLoop()
    monkeypatch.setattr(time, "monotonic", loop.time)

    def make(step_s: Callable[[int, int], float] = lambda _prefill, _decode: STEP_S, **engine: Any) -> Bench:
        log = tmp_path / "steps.bin"
        standin = StandInEngine(log, step_s, **engine)
        meter_file = tmp_path / "meter.bin"
        meter, watch = ScriptedMeter(log, loop.time, meter_file), StillWatch()
        rig = Rig(standin, meter, lambda since_s: read_steps(log, since_s), watch, meter_file)
        return Bench(loop, standin, meter, watch, rig)

    yield make
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


def test_request_times_tokens_and_joules_are_what_was_scripted(make_bench: MakeBench) -> None:
    run = make_bench().measure(Replay("toy", TRACE, Immediate())).run
    np.testing.assert_allclose(run.outcomes.released_s, [1.0, 7.0], atol=1e-9)
    np.testing.assert_allclose(run.outcomes.first_token_s, [1.05, 7.05], atol=1e-9)
    np.testing.assert_allclose(run.outcomes.finished_s, [1.2, 7.2], atol=1e-9)
    assert run.outcomes.output_tokens.tolist() == [4, 4]
    assert run.outcomes.status.tolist() == [SERVED, SERVED]
    assert np.isnan(run.outcomes.energy_j).all()
    assert run.meta.energy is not None
    assert run.meta.makespan_s == pytest.approx(7.2)
    assert run.meta.energy.total_j == pytest.approx(IDLE_W * 7.2 + (BUSY_W - IDLE_W) * 8 * STEP_S)
    assert run.meta.energy.prefill_j == pytest.approx(2 * BUSY_W * STEP_S)
    assert run.meta.energy.decode_j == pytest.approx(6 * BUSY_W * STEP_S)
    assert run.meta.energy.idle_j == pytest.approx(IDLE_W * (7.2 - 8 * STEP_S))
    assert run.meta.idle_w == pytest.approx(IDLE_W)
    assert run.meta.invalid_reasons == ()
    assert run.meta.energy_valid
    assert run.meta.energy_source == "nvml"


def test_energy_over_time_is_the_counter_at_its_ticks(make_bench: MakeBench) -> None:
    power = make_bench().measure(Replay("toy", TRACE, Immediate())).run.power
    assert power.time_s[0] == 0.0
    assert power.energy_j[0] == 0.0
    assert power.time_s[-1] == pytest.approx(7.2)
    at_1_s = np.interp(1.0, power.time_s, power.energy_j)
    at_1_2_s = np.interp(1.2, power.time_s, power.energy_j)
    assert at_1_s == pytest.approx(IDLE_W)
    assert at_1_2_s - at_1_s == pytest.approx(BUSY_W * 0.2)


def test_a_record_keeps_steps_sends_and_samples_beside_it(make_bench: MakeBench, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    measured = make_bench().measure(Replay("toy", TRACE, Immediate()))
    write_run(measured.run, tmp_path / "run", attachments=measured.attachments)
    assert summarize(read_run(tmp_path / "run")) == summarize(measured.run)
    steps = pq.read_table(tmp_path / "run" / "steps.parquet").to_pydict()
    assert steps["prefill_tokens"] == [100, 0, 0, 0, 100, 0, 0, 0]
    assert steps["scheduled_s"] == pytest.approx([1.0, 1.05, 1.1, 1.15, 7.0, 7.05, 7.1, 7.15])
    sends = pq.read_table(tmp_path / "run" / "sends.parquet").to_pydict()
    assert sends["due_s"] == [1.0, 7.0]
    assert sends["sent_s"] == pytest.approx([1.0, 7.0])
    assert sends["failure"] == [None, None]
    samples = pq.read_table(tmp_path / "run" / "meter.parquet").to_pydict()
    assert samples["time_s"][0] == pytest.approx(-2.0)
    assert samples["time_s"][-1] == pytest.approx(7.2 + 1.5)


def test_a_policy_that_holds_is_obeyed_on_the_engine(make_bench: MakeBench) -> None:
    run = make_bench().measure(Replay("toy", TRACE, BatchWindow(window_s=2.0))).run
    np.testing.assert_allclose(run.outcomes.released_s, [3.0, 9.0], atol=1e-9)
    assert run.meta.policy == "batch-window"
    assert run.meta.energy_valid


def test_a_policy_that_retimes_the_trace_is_said_in_the_notes(make_bench: MakeBench) -> None:
    run = make_bench(lambda _prefill, _decode: 1.5).measure(Replay("toy", TRACE, Offline())).run
    assert run.outcomes.arrival_s.tolist() == [0.0, 0.0]
    assert any("one batch" in note for note in run.meta.notes)
    assert run.meta.energy_valid


def test_two_replays_on_one_engine_have_each_their_own_energy(make_bench: MakeBench) -> None:
    bench = make_bench()

    async def twice() -> Measured:
        await warm_up(bench.engine, 0)
        await measure_replay(Replay("first", TRACE, Immediate()), bench.rig)
        return await measure_replay(Replay("second", TRACE, Immediate()), bench.rig)

    run = bench.run(twice).run
    assert run.meta.energy is not None
    assert run.meta.energy.total_j == pytest.approx(840.0, abs=EDGE_J)
    assert run.meta.energy_valid


def test_idle_power_has_nothing_of_the_steps_just_before_and_after(make_bench: MakeBench) -> None:
    bench = make_bench()

    async def at_once() -> Measured:
        await asyncio.sleep(0.13)  # so that no tick begins with the idle, or with time 0
        await warm_up(bench.engine, 0)
        return await measure_replay(Replay("toy", toy_trace([0.0, 6.0]), Immediate()), bench.rig)

    assert bench.run(at_once).run.meta.idle_w == pytest.approx(IDLE_W)


def test_requests_that_fail_are_counted_as_failed_and_said(make_bench: MakeBench) -> None:
    run = make_bench(fail_after=4).measure(Replay("toy", TRACE, Immediate())).run
    assert run.outcomes.status.tolist() == [SERVED, FAILED]
    assert not run.meta.energy_valid
    assert any("1 requests failed, the first is 1: RuntimeError" in why for why in run.meta.invalid_reasons)
    assert run.meta.makespan_s == pytest.approx(1.2)


def test_an_engine_that_only_fails_ends_the_replay(make_bench: MakeBench) -> None:
    trace = toy_trace([0.1 * row for row in range(300)], prompt_tokens=16)
    measured = make_bench(fail_after=10).measure(Replay("toy", trace, Immediate()))
    status = measured.run.outcomes.status
    assert measured.ending.is_engine_dead
    assert np.count_nonzero(status == FAILED) == 100
    assert np.count_nonzero(status == UNFINISHED) > 100
    assert "failed 100 requests in a row" in measured.run.meta.invalid_reasons[0]


def test_a_meter_that_dies_leaves_latencies_and_what_it_had_sampled(make_bench: MakeBench) -> None:
    bench = make_bench()
    bench.meter.dies_at_s = 4.0
    measured = bench.measure(Replay("toy", TRACE, Immediate()))
    run = measured.run
    assert run.outcomes.status.tolist() == [SERVED, SERVED]
    assert run.meta.energy is None
    assert run.meta.energy_source == "none"
    assert run.meta.invalid_reasons[0] == "the meter died: it was told to"
    assert measured.attachments["meter"]["time_s"][[0, -1]].tolist() == pytest.approx([-2.0, 2.0])
    assert not run.meta.energy_valid


def test_a_counter_that_runs_backwards_is_not_believed(make_bench: MakeBench) -> None:
    bench = make_bench()
    bench.meter.falls_at_s = 6.0
    meta = bench.measure(Replay("toy", TRACE, Immediate())).run.meta
    assert not meta.energy_valid
    assert any("runs backwards" in why for why in meta.invalid_reasons)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda bench: setattr(bench.meter, "throttle_reasons", 0x20), "throttled"),
        (lambda bench: setattr(bench.meter, "power_factor", 1.05), "must agree within 3 %"),
        (lambda bench: setattr(bench.watch, "strangers", (77,)), "other processes compute on the GPU: 77"),
        (lambda bench: setattr(bench.watch, "is_lost", True), "GPU is lost"),
        (lambda bench: setattr(bench.watch, "engine_uuids", ("GPU-other",)), "the engine is on GPU-other"),
    ],
)
def test_what_spoils_a_measurement_is_said(
    make_bench: MakeBench, change: Callable[[Bench], None], reason: str
) -> None:
    bench = make_bench()
    change(bench)
    meta = bench.measure(Replay("toy", TRACE, Immediate())).run.meta
    assert not meta.energy_valid
    assert any(reason in why for why in meta.invalid_reasons)


def test_an_interrupt_keeps_what_was_measured(make_bench: MakeBench) -> None:
    bench = make_bench()

    async def interrupted() -> Measured:
        task = asyncio.ensure_future(measure_replay(Replay("toy", TRACE, Immediate()), bench.rig))
        await asyncio.sleep(8.0)
        task.cancel()
        return await task

    measured = bench.run(interrupted)
    assert measured.ending.is_interrupted
    assert measured.run.outcomes.status.tolist() == [SERVED, UNFINISHED]
    assert measured.run.meta.energy is not None
    assert measured.run.meta.energy.total_j == pytest.approx(IDLE_W * 1.2 + (BUSY_W - IDLE_W) * 4 * STEP_S)
    assert "the replay was interrupted" in measured.run.meta.invalid_reasons
    assert not measured.run.meta.energy_valid


@pytest.mark.parametrize(("source", "energy_source"), [("measured", "twin"), ("assumed", "assumed")])
def test_a_twins_run_is_never_called_measured(make_bench: MakeBench, source: Any, energy_source: str) -> None:
    bench = make_bench()
    limits = np.array([99.0, 1024.0, 4e6, 2e8])  # both prefill steps hold 100 tokens
    table = toy_table(source=source, limits=limits)
    bench.rig = replace(bench.rig, twin=table, notes=("It was a twin.",))
    meta = bench.measure(Replay("toy", TRACE, Immediate())).run.meta
    assert (meta.kind, meta.energy_source) == ("twin", energy_source)
    assert (meta.table, meta.table_source) == (table.name, table.measured_on)
    assert meta.out_of_range_fraction == 2 / 8
    assert any("guard 9: 25 % of the steps" in why for why in meta.invalid_reasons)
    assert "It was a twin." in meta.notes
    assert not any("random" in note for note in meta.notes)
    assert any("by what the cost table says of each step" in note for note in meta.notes)


def test_a_late_client_is_said(make_bench: MakeBench) -> None:
    bench = make_bench()

    async def stalled() -> Measured:
        bench.loop.call_at(2.99, bench.loop.skip, 0.03)
        return await measure_replay(Replay("toy", TRACE, Immediate()), bench.rig)

    measured = bench.run(stalled)
    assert any("sent late" in note for note in measured.run.meta.notes)
    assert measured.attachments["sends"]["lag_s"].max() == pytest.approx(0.02)


def test_a_meter_that_was_kept_from_reading_is_said(make_bench: MakeBench) -> None:
    bench = make_bench()
    notes = bench.measure(Replay("first", TRACE, Immediate())).run.meta.notes
    assert not any("kept from reading" in note for note in notes)
    begin_s = bench.loop.time() + 4.0
    bench.meter.unread_s = (begin_s, begin_s + 0.4)
    run = bench.measure(Replay("second", TRACE, Immediate())).run
    assert any("kept from reading for up to 0.4 s" in note for note in run.meta.notes)
    assert run.meta.energy is not None
    assert run.meta.energy.total_j == pytest.approx(840.0, abs=EDGE_J)


def test_an_empty_trace_is_refused(make_bench: MakeBench) -> None:
    with pytest.raises(ValueError, match="has no requests"):
        make_bench().measure(Replay("toy", toy_trace([]), Immediate()))


def test_the_hosts_energy_is_kept_apart_from_the_gpus(make_bench: MakeBench) -> None:
    bench = make_bench()
    bench.meter.cpu_w = 50.0
    measured = bench.measure(Replay("toy", TRACE, Immediate()))
    meta = measured.run.meta
    assert meta.cpu_j == pytest.approx(50.0 * 7.2)
    assert meta.dram_j is None
    assert meta.energy is not None
    assert meta.energy.total_j == pytest.approx(840.0, abs=EDGE_J)


def test_an_engine_that_tells_no_steps_has_a_total_and_no_split(make_bench: MakeBench) -> None:
    bench = make_bench()
    bench.rig = replace(bench.rig, steps_since=None)
    measured = bench.measure(Replay("toy", TRACE, Immediate()))
    assert measured.run.meta.energy is None
    assert measured.run.total_energy_j == pytest.approx(840.0, abs=EDGE_J)
    assert (measured.run.meta.energy_source, measured.run.meta.invalid_reasons) == ("nvml", ())
    assert "steps" not in measured.attachments
