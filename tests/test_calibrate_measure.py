"""Measuring a grid: what is on disk is what was scripted, and whatever stops a calibration loses no point."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import scripted_meter
from calibration_bench import FEW, GPU, PLAN, TICK_S, Bench, JumpingBench, MeteredBench, ReadMeter, step_s
from scripted_nvml import GPU_IS_LOST
from standin_engine import DECODE_W, IDLE_W, PREFILL_W, StandInEngine

from backends.nvml import MeterError
from calibrate import grid, loads
from calibrate.grid import Kind, Point
from calibrate.measure import Unfinished, measure
from calibrate.raw import RawPoint, read_lines

ALL_KINDS = (
    Point("idle"),
    Point("decode", batch=16, context_tokens=128),
    Point("ragged", batch=12, context_tokens=128),
    Point("prefill", chunk_tokens=256, context_tokens=256, streams=2),
    Point("mixed", batch=8, context_tokens=512, chunk_tokens=512, streams=2),
    Point("trickle", chunk_tokens=256, output_tokens=16, gap_s=0.05),
    Point("burst", chunk_tokens=1024, streams=8, gap_s=0.1),
    Point("open", chunk_tokens=100, output_tokens=8, gap_s=0.02),
    Point("scan", batch=4, context_tokens=128, chunk_tokens=400, gap_s=0.002),
)


def test_the_energy_of_every_point_is_what_was_scripted(
    metered_bench: MeteredBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grid, "QUICK", ALL_KINDS)
    bench, nvml = metered_bench, metered_bench.nvml
    points = bench.measure(tools=bench.tools(draw=bench.draw))
    assert isinstance(bench.meter, ReadMeter)
    zeros_s = bench.meter.zeros_s[-len(points) :]
    swing_w = PREFILL_W - IDLE_W
    for raw, zero_s in zip(points, zeros_s, strict=True):
        from_s, to_s = (zero_s - nvml.zero_s + edge_s for edge_s in raw.window_s)
        scripted_j = nvml.energy_j(0, from_s, to_s)
        # A tick is seen up to a sampling gap late; a change of power within a tick is spread over it.
        bound_j = 2 * PREFILL_W * bench.meter.gap_s
        if raw.point.kind not in ("idle", "decode", "ragged"):
            bound_j += 2 * swing_w * TICK_S / 4
        assert raw.energy_j(*raw.window_s) == pytest.approx(scripted_j, abs=bound_j), raw.point.key
    power_w = {raw.point.kind: raw.energy_j(*raw.window_s) / np.diff(raw.window_s)[0] for raw in points}
    assert power_w["idle"] == pytest.approx(IDLE_W, rel=0.1)
    assert power_w["decode"] == pytest.approx(DECODE_W, rel=0.1)
    check_loads(points)


def check_loads(points: list[RawPoint]) -> None:
    """Check that each load was what its point says."""
    assert {raw.point.kind for raw in points} == set(get_args(Kind))
    for raw in points:
        done_s, point = raw.steps["done_s"], raw.point
        inside = (raw.steps["scheduled_s"] > raw.window_s[0]) & (done_s <= raw.window_s[1])
        assert raw.clock_mhz == 1980
        if point.kind == "idle":
            assert not inside.any()
        if point.kind in ("decode", "ragged"):
            assert set(raw.steps["decode_seqs"][inside]) == {point.batch}
            assert not raw.steps["prefill_tokens"][inside].any()
        if point.kind == "prefill":
            assert not raw.steps["decode_seqs"].any()
            assert raw.steps["prefill_tokens"][inside].max() > 0
        if point.kind == "mixed":
            assert set(raw.steps["decode_seqs"][inside]) == {point.batch}
            assert (raw.steps["prefill_tokens"][inside] > 0).mean() > 0.5
        if point.kind == "scan":
            assert set(raw.steps["decode_seqs"][inside]) == {point.batch}
            prompts = raw.steps["prefill_tokens"][raw.steps["scheduled_s"] > raw.window_s[0]]
            assert sorted(prompts[prompts > 0]) == grid.scanned_lengths(point)
        if point.kind == "trickle":
            assert len(raw.requests) > 2
            assert (np.diff(raw.requests, axis=1) >= 0).all()
            assert (raw.requests[1:, 0] - raw.requests[:-1, 2] >= 0.9 * point.gap_s).all()


def test_the_energy_of_several_gpus_is_their_sum(
    metered_bench: MeteredBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grid, "QUICK", FEW[:1])
    bench, nvml = metered_bench, metered_bench.nvml
    nvml.add_gpu(1, 300)
    nvml.say(-0.5, 1, tick_s=TICK_S, phase_s=0.4 * TICK_S, clock_mhz=1000)
    bench.meter = ReadMeter(bench.folder.with_name("meters.bin"), (0, 1))
    (raw,) = bench.measure(tools=bench.tools(draw=bench.draw))
    from_s, to_s = raw.window_s
    assert raw.energy_j(from_s, to_s) == pytest.approx((DECODE_W + 300) * (to_s - from_s), rel=0.05)
    assert raw.integrated_j(from_s, to_s) == pytest.approx((DECODE_W + 300) * (to_s - from_s), rel=0.05)
    assert raw.clock_mhz == pytest.approx((1980 + 1000) / 2, rel=0.01)


def test_prompts_with_a_mean_gap_come_while_the_batch_decodes(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    mixed = Point("mixed", batch=3, context_tokens=64, chunk_tokens=48, gap_s=0.02)
    monkeypatch.setattr(grid, "QUICK", (mixed,))
    (raw,) = bench.measure(replace(PLAN, hold_s=1.0))
    inside = (raw.steps["scheduled_s"] > raw.window_s[0]) & (raw.steps["done_s"] <= raw.window_s[1])
    assert set(raw.steps["decode_seqs"][inside]) == {3}
    assert raw.steps["kv_tokens"][0] != 3 * 65
    prompts = raw.steps["prefill_tokens"][inside].sum() / 48
    assert prompts == pytest.approx(1.0 / 0.02, abs=4 * (1.0 / 0.02) ** 0.5)
    between_s = np.diff(raw.requests[:, 0])
    assert between_s.std() > 0.3 * between_s.mean()


def test_a_stopped_calibration_goes_on_where_it_was(bench: Bench) -> None:
    with pytest.raises(Unfinished, match=r"^1 points are done, 2 are left$"):
        bench.measure(replace(PLAN, stop_after_s=0.0))
    first = read_lines(bench.folder / "points.jsonl")
    assert bench.said[0] == "bare idle, 0.25 s"
    bench.said.clear()

    points = bench.measure(tools=bench.tools(gpu={**GPU, "hashes": ["bb"]}))
    assert "bare idle, 0.25 s" not in bench.said
    assert [raw.point.key for raw in points[: len(first)]] == [raw.point.key for raw in first]
    assert sorted(raw.point.kind for raw in points) == ["decode", "mixed", "prefill"]
    assert [raw.session for raw in points] == [0, 1, 1]
    on_disk = read_lines(bench.folder / "points.jsonl")
    assert [raw.point.key for raw in on_disk] == [raw.point.key for raw in points]
    facts = json.loads((bench.folder / "facts.json").read_text())
    assert facts["bare_idle_w"] == pytest.approx(scripted_meter.IDLE_W, rel=1e-6)
    assert facts["engine"]["max_num_seqs"] == 32
    assert facts["gpu"]["hashes"] == ["aa", "bb"]
    assert facts["session_cards"] == {"0": "aa", "1": "bb"}


def test_more_repeats_add_to_what_was_measured(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grid, "QUICK", FEW[:1])
    bench.measure()
    points = bench.measure(replace(PLAN, repeats=2))
    assert [(raw.point.repeat, raw.session) for raw in points] == [(0, 0), (1, 1)]


Change = Callable[[Bench], list[RawPoint]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda bench: bench.measure(replace(PLAN, seed=1)), "with seed = 0, now 1"),
        (lambda bench: bench.measure(replace(PLAN, hold_s=0.5)), "with hold_s = 0.25, now 0.5"),
        (lambda bench: bench.measure(tools=bench.tools(budget=256)), "max_num_batched_tokens = 512, now 256"),
        (
            lambda bench: bench.measure(tools=bench.tools({**GPU, "name": "Other"})),
            "name = NVIDIA .*, now Other",
        ),
        (lambda bench: bench.measure(tools=bench.tools({**GPU, "power_limit_w": 500.0})), "now 500.0"),
    ],
    ids=["seed", "hold", "engine", "gpu", "power limit"],
)
def test_another_calibration_in_the_same_folder_is_refused(
    bench: Bench, change: Change, message: str
) -> None:
    bench.folder.mkdir()
    tools = bench.tools()
    facts = {"engine": tools.engine.facts(), "gpu": GPU, "seed": 0, "hold_s": 0.25, "bare_idle_w": 80.0}
    (bench.folder / "facts.json").write_text(json.dumps(facts))
    with pytest.raises(ValueError, match=rf"calibration was begun .*{message}; use another --out"):
        change(bench)
    assert json.loads((bench.folder / "facts.json").read_text()) == facts


def test_an_engine_that_fails_keeps_the_points_before(bench: Bench) -> None:
    tools = bench.tools()
    assert isinstance(tools.engine, StandInEngine)
    engine = tools.engine

    def break_the_engine(text: str) -> None:
        if text.startswith("1/"):
            engine.fail_after = 0

    with pytest.raises(RuntimeError, match="told to fail"):
        measure(bench.folder, PLAN, tools, break_the_engine)
    kept = [raw.point.kind for raw in read_lines(bench.folder / "points.jsonl")]
    assert 1 <= len(kept) < len(FEW)
    assert engine.is_stopped


def test_a_lost_gpu_ends_the_calibration_and_keeps_the_points_before(metered_bench: MeteredBench) -> None:
    nvml = metered_bench.nvml

    def lose_the_gpu(text: str) -> None:
        if text.startswith("1/"):
            nvml.say(time.monotonic() - nvml.zero_s, 0, fails=GPU_IS_LOST)

    with pytest.raises(MeterError, match=r"the meter died: .*GPU is lost"):
        measure(metered_bench.folder, PLAN, metered_bench.tools(), lose_the_gpu)
    assert len(read_lines(metered_bench.folder / "points.jsonl")) == 1


def test_a_window_without_a_reading_has_the_context_around_it(bench: JumpingBench) -> None:
    bench.jumping.keeps_every = 44  # 0.22 s, longer than a window; the counter has ticked at each
    points = bench.measure(replace(PLAN, bare_idle_s=1.0, hold_s=0.1))
    ticks_s = [raw.counter[:, 0] for raw in points]
    edges_s = [raw.window_s for raw in points]
    read = [((at_s >= a) & (at_s <= b)).any() for at_s, (a, b) in zip(ticks_s, edges_s, strict=True)]
    assert not all(read)
    assert {(raw.clock_mhz, raw.temperature_c, raw.throttle_reasons) for raw in points} == {(1500.0, 50.0, 4)}


def test_a_counter_that_goes_back_refuses_the_point(bench: JumpingBench) -> None:
    def set_back(text: str) -> None:
        if text.startswith("1/"):
            bench.jumping.falls_at_s = time.monotonic() + 0.3

    with pytest.raises(ValueError, match="the energy counter went back during "):
        measure(bench.folder, PLAN, bench.tools(), set_back)
    assert len(read_lines(bench.folder / "points.jsonl")) == 1


def test_a_counter_that_stands_still_is_refused(bench: JumpingBench) -> None:
    bench.jumping.stops_at_s = 0.0
    with pytest.raises(ValueError, match=r"the energy counter did not tick within 0\.25 s"):
        bench.measure()


def test_a_counter_that_stops_refuses_the_point(bench: JumpingBench) -> None:
    def stop_ticking(text: str) -> None:
        if text.startswith("1/"):
            bench.jumping.stops_at_s = time.monotonic()

    with pytest.raises(ValueError, match=r"prefill.*: the energy counter ticked from -0\.\d+ to -?0\.\d+ s"):
        measure(bench.folder, PLAN, bench.tools(), stop_ticking)
    assert len(read_lines(bench.folder / "points.jsonl")) == 1


def test_a_stranger_on_the_gpu_refuses_the_point(bench: Bench) -> None:
    bench.company.strangers = (4711,)
    with pytest.raises(ValueError, match="process 4711 has come to the GPU"):
        bench.measure()
    assert read_lines(bench.folder / "points.jsonl") == []


def test_an_engine_on_another_gpu_is_refused_before_any_point(bench: Bench) -> None:
    bench.company.refusal = "GPU 0 is metered, but the engine computes on GPU 1"
    with pytest.raises(ValueError, match="GPU 0 is metered, but the engine computes on GPU 1"):
        bench.measure()
    assert not (bench.folder / "facts.json").exists()


def test_contexts_come_back_and_fresh_prompts_do_not(bench: Bench) -> None:
    async def prompts_of_two_loads() -> list[list[int]]:
        engine = Recorder()
        loader = loads.Loader(engine, seed=3, hold_s=0.05)
        for _ in range(2):
            await loader.run(Point("mixed", batch=2, context_tokens=20, chunk_tokens=30, streams=1))
        return engine.prompts

    prompts = asyncio.run(prompts_of_two_loads())
    contexts = [tuple(prompt) for prompt in prompts if len(prompt) == 20]
    fresh = [tuple(prompt) for prompt in prompts if len(prompt) == 30]
    assert len(contexts) == 4
    assert contexts[:2] == contexts[2:]
    assert len(set(contexts)) == 2
    assert len(set(fresh)) == len(fresh) > 1
    assert bench.said == []


@pytest.mark.usefixtures("bench")
def test_unequal_contexts_are_sent_in_a_random_order_that_is_the_repeats_own() -> None:
    async def sent(repeat: int) -> list[tuple[int, ...]]:
        engine = Recorder()
        await loads.Loader(engine, seed=3, hold_s=0.05).run(replace(ragged, repeat=repeat))
        return [tuple(prompt) for prompt in engine.prompts]

    ragged = Point("ragged", batch=12, context_tokens=100)
    first, again, other = (asyncio.run(sent(repeat)) for repeat in (0, 0, 1))
    assert sorted(map(len, first)) == grid.contexts(ragged)
    assert list(map(len, first)) not in (grid.contexts(ragged), grid.contexts(ragged)[::-1])
    assert first == again
    assert first != other
    assert sorted(first) == sorted(other)


@pytest.mark.usefixtures("bench")
def test_what_warms_an_engine_up_fits_its_longest_request() -> None:
    engine = Recorder()
    facts = {**engine.facts(), "max_model_len": 1024}
    engine.facts = lambda: facts  # type: ignore[method-assign]
    asyncio.run(loads.Loader(engine, seed=3, hold_s=0.05).warm_up())
    assert {len(prompt) for prompt in engine.prompts} == {500, 512}


class Recorder(StandInEngine):
    """An engine that answers at once and remembers the prompts."""

    def __init__(self) -> None:
        super().__init__(Path("unused"), step_s)
        self.prompts: list[list[int]] = []

    async def generate(self, request_id: str, prompt: list[int], output_tokens: int) -> AsyncIterator[int]:
        assert request_id
        self.prompts.append(prompt)
        for _ in range(output_tokens):
            await asyncio.sleep(0.002)
            yield 1
