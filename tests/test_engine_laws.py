"""Laws that every simulated replay obeys, whatever the workload."""

import os
import subprocess
import sys
from itertools import pairwise
from math import inf
from pathlib import Path

import numba
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from serving import count_sampled, serve, small_options, steps_of, trace_of
from toy_table import toy_table

from sim.engine import SimulatedEngine
from sim.engine_state import RUNS_ALLOWED, STEP_COLUMNS
from sim.options import EngineOptions
from sim.step_cost import Coefficients, new_state, step_cost
from traces.trace import Floats, Trace

few = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def workloads(draw: st.DrawFn) -> tuple[Trace, EngineOptions]:
    """Draw requests and options under which they can be served, though often only just."""
    block_size = draw(st.sampled_from([1, 4, 16]))
    requests = draw(
        st.lists(
            st.tuples(
                st.integers(1, 60),
                st.integers(1, 25),
                st.sampled_from([0.0, 0.0, 0.003, 0.02, 0.3]),
                st.booleans(),
            ),
            min_size=1,
            max_size=14,
        )
    )
    prompts, outputs, gaps_s, is_offline = zip(*requests, strict=True)
    longest = max(p + o for p, o, *_ in requests)
    least_blocks = -(-(longest - 1) // block_size) + 1
    chunked = draw(st.booleans())
    max_num_seqs = draw(st.integers(1, 6))
    budget = draw(st.integers(max_num_seqs, 40))
    options = small_options(
        max_num_batched_tokens=budget if chunked else max(budget, longest),
        max_num_seqs=max_num_seqs,
        max_model_len=longest,
        num_gpu_blocks=least_blocks + draw(st.integers(0, 30)),
        block_size=block_size,
        enable_chunked_prefill=chunked,
        long_prefill_token_threshold=draw(st.sampled_from([0, 0, 3, 17])),
        scheduling_policy=draw(st.sampled_from(["fcfs", "priority"])),
        enable_prefix_caching=draw(st.booleans()),
        async_scheduling=draw(st.booleans()),
    )
    return trace_of(prompts, outputs, np.cumsum(gaps_s).tolist(), is_offline), options


@few
@given(workloads())
def test_every_request_finishes_once_with_the_tokens_it_asked_for(
    workload: tuple[Trace, EngineOptions],
) -> None:
    trace, options = workload
    engine = serve(trace, options)
    assert engine.running == 0
    sampled = np.zeros(len(trace), np.int64)
    for step in steps_of(engine):
        count_sampled(sampled, trace, step)
    assert sampled.tolist() == trace.output_tokens.tolist()


@few
@given(workloads())
def test_a_step_tells_how_much_kv_its_decodes_read_and_the_longest_of_them(
    workload: tuple[Trace, EngineOptions],
) -> None:
    trace, options = workload
    engine = serve(trace, options)
    sampled = np.zeros(len(trace), np.int64)
    prefilled_until: dict[int, int] = {}
    told = engine.log.steps[:, [STEP_COLUMNS.index(name) for name in ("kv_tokens", "longest_tokens")]]
    for step, kv_tokens in zip(steps_of(engine), told.tolist(), strict=True):
        for row in step.preempted:
            del prefilled_until[row]
        read = [0]
        for row, _ in step.batch:
            has = int(trace.prompt_tokens[row] + sampled[row])
            if step.context[row] >= prefilled_until.setdefault(row, has):
                read.append(step.context[row] + 1)
        count_sampled(sampled, trace, step)
        assert kv_tokens == [sum(read), max(read)]


@few
@given(workloads())
def test_causes_come_before_effects(workload: tuple[Trace, EngineOptions]) -> None:
    engine = serve(*workload)
    trace = workload[0]
    assert np.all(trace.arrival_s < engine.first_token_s)
    assert np.all(engine.first_token_s <= engine.finished_s)
    assert np.all((engine.first_token_s == engine.finished_s) == (trace.output_tokens == 1))
    for earlier, later in pairwise(engine.log.steps.tolist()):
        assert earlier[0] <= later[0]
        if later[2] > later[1]:
            assert later[1] >= earlier[2]


@few
@given(workloads())
def test_no_step_is_above_the_budget_or_the_seats(workload: tuple[Trace, EngineOptions]) -> None:
    trace, options = workload
    for step in steps_of(serve(trace, options)):
        assert sum(tokens for _, tokens in step.batch) <= options.max_num_batched_tokens
        assert len({row for row, _ in step.batch}) == len(step.batch) <= step.running <= options.max_num_seqs
        assert all(tokens >= 1 for _, tokens in step.batch)


@few
@given(workloads())
def test_no_block_is_given_twice_and_all_are_free_at_the_end(workload: tuple[Trace, EngineOptions]) -> None:
    trace, options = workload
    engine = serve(trace, options)
    for step in steps_of(engine):
        assert step.free_blocks >= 0
        held = sum(step.blocks.values())
        assert held <= options.num_gpu_blocks - 1 - step.free_blocks
        for row, tokens in step.batch:
            assert step.blocks[row] == -(-(step.context[row] + tokens) // options.block_size)
    assert engine.free_blocks == options.num_gpu_blocks - 1


@few
@given(workloads())
def test_shares_and_idle_energy_sum_to_the_total(workload: tuple[Trace, EngineOptions]) -> None:
    engine = serve(*workload)
    shares_j = float(engine.energy_j.sum())
    assert shares_j + engine.split.idle_j == pytest.approx(engine.split.total_j, rel=1e-9)
    assert np.all(engine.energy_j > 0)


@few
@given(workloads())
def test_power_samples_follow_the_tick_to_the_end(workload: tuple[Trace, EngineOptions]) -> None:
    engine = serve(*workload)
    power, end_s = engine.power, float(engine.finished_s.max())
    assert power.time_s[0] == power.energy_j[0] == 0.0
    assert power.time_s[-1] == end_s
    assert power.energy_j[-1] == engine.split.total_j
    assert np.all(np.diff(power.energy_j) >= 0)
    ticks = np.arange(len(power.time_s) - 1)
    np.testing.assert_allclose(power.time_s[:-1], 0.1 * ticks, rtol=1e-12)
    assert end_s - power.time_s[-2] <= 0.1 + 1e-9


@few
@given(workloads(), st.floats(0.001, 0.05))
def test_looking_in_more_often_changes_no_time(workload: tuple[Trace, EngineOptions], every_s: float) -> None:
    trace, options = workload
    once = serve(trace, options)
    often = SimulatedEngine(trace, options, toy_table())
    for row, at_s in enumerate(trace.arrival_s.tolist()):
        while len(often.advance(at_s).finished):
            pass
        often.submit([row], at_s)
    now_s = float(trace.arrival_s[-1])
    while not often.idle:
        now_s = often.advance(now_s + every_s).time_s
    np.testing.assert_array_equal(often.finished_s, once.finished_s)
    np.testing.assert_array_equal(often.first_token_s, once.first_token_s)
    np.testing.assert_allclose(often.energy_j, once.energy_j, rtol=1e-9)


@few
@given(workloads())
def test_summed_decode_runs_equal_single_steps(workload: tuple[Trace, EngineOptions]) -> None:
    trace, options = workload
    summed = serve(trace, options)
    engine = SimulatedEngine(trace, options, toy_table(), keeps_steps=True)
    engine._core.number[RUNS_ALLOWED] = 0
    for row, at_s in enumerate(trace.arrival_s.tolist()):
        while len(engine.advance(at_s).finished):
            pass
        engine.submit([row], at_s)
    while not engine.idle:
        engine.advance(inf)
    np.testing.assert_array_equal(engine.log.steps, summed.log.steps)
    np.testing.assert_array_equal(engine.log.events, summed.log.events)
    np.testing.assert_array_equal(engine.finished_s, summed.finished_s)
    np.testing.assert_allclose(engine.energy_j, summed.energy_j, rtol=1e-9)


@few
@given(workloads())
def test_a_replay_repeats_bit_by_bit(workload: tuple[Trace, EngineOptions]) -> None:
    one, other = serve(*workload), serve(*workload)
    np.testing.assert_array_equal(one.finished_s, other.finished_s)
    np.testing.assert_array_equal(one.energy_j, other.energy_j)
    np.testing.assert_array_equal(one.power.energy_j, other.power.energy_j)


@few
@given(workloads())
def test_what_is_submitted_at_the_time_reached_is_seen(workload: tuple[Trace, EngineOptions]) -> None:
    """A request released at the moment that `advance` returned is in the first decision it can reach."""
    trace, options = workload
    engine = SimulatedEngine(trace, options, toy_table(), keeps_steps=True)
    engine.submit([0], 0.0)
    submit_s = toy_table().host.submit_s
    released_s = {0: 0.0}
    for row in range(1, len(trace)):
        released_s[row] = engine.advance(0.01 * row).time_s
        engine.submit([row], released_s[row])
    while not engine.idle:
        engine.advance(inf)
    decided_s = engine.log.steps[:, 0]
    for number, step in enumerate(steps_of(engine)):
        for row in step.arrived:
            assert decided_s[number] >= released_s[row] + submit_s
            if number > 0:
                assert decided_s[number - 1] < released_s[row] + submit_s or (
                    decided_s[number - 1] == decided_s[number]
                )


@numba.njit  # type: ignore[untyped-decorator]
def price(
    c: Coefficients, gpu: Floats, chunks: int, prefill: int, pairs: float, decodes: int, context: int
) -> tuple[float, float, float]:
    """Return seconds, prefill joules and decode joules of a step that is not held up by its launch."""
    kv_tokens = decodes * context
    seconds, prefill_j, decode_j, _, _ = step_cost(
        c, gpu, chunks, prefill, pairs, decodes, kv_tokens, context, 0.0
    )
    return seconds, prefill_j, decode_j


@pytest.mark.parametrize("is_async", [True, False])
def test_steps_that_wait_for_the_host_take_what_it_takes(is_async: bool) -> None:
    """Launch, wait for the output, process it: as `calibrate.timeline`, from which the times are fitted."""
    output = 40
    table = toy_table(lead_s=0.5, graph_s=0.5, per_seq_s=0.0, output_s=0.3, process_s=0.2, process_seq_s=0.0)
    engine = serve(trace_of([8], [output]), small_options(async_scheduling=is_async), table)
    each_s = (engine.finished_s[0] - engine.first_token_s[0]) / (output - 1)
    assert each_s == pytest.approx(0.5 + 0.3 + 0.2, rel=0.02)


def test_a_request_alone_takes_and_costs_the_sum_of_its_steps() -> None:
    prompt, output = 100, 50
    table = toy_table(lead_s=0.002, graph_s=0.002, piecewise_s=0.002, per_token_s=0.0, per_seq_s=0.0)
    host, options = table.host, small_options(max_num_batched_tokens=128)
    engine = serve(trace_of([prompt], [output]), options, table)

    gpu, gap_s = new_state(), host.lead_s + host.output_s + host.process_s + host.process_seq_s
    pairs = prompt * (prompt + 1) / 2
    costs = [price(table.coefficients, gpu, 1, prompt, pairs, 0, 0)]
    costs += [price(table.coefficients, gpu, 0, 0, 0.0, 1, prompt + i) for i in range(1, output)]
    seconds = sum(cost[0] for cost in costs)
    busy_j = sum(cost[1] + cost[2] for cost in costs)
    makespan_s = host.submit_s + seconds + output * gap_s + host.deliver_s
    assert engine.steps == output
    assert engine.first_token_s[0] == pytest.approx(host.submit_s + costs[0][0] + gap_s + host.deliver_s)
    assert engine.finished_s[0] == pytest.approx(makespan_s)
    assert engine.energy_j[0] == pytest.approx(busy_j)
    assert engine.split.prefill_j == pytest.approx(costs[0][1])
    assert engine.split.idle_j == pytest.approx(table.coefficients.idle_w * (makespan_s - seconds))


def test_nothing_to_do_costs_idle_power() -> None:
    engine = SimulatedEngine(trace_of([1], [1]), small_options(), toy_table())
    assert engine.advance(50.0).time_s == 50.0
    engine.close(100.0)
    assert engine.split.total_j == engine.split.idle_j == pytest.approx(100.0 * 120.0)
    assert len(engine.power.time_s) == 1001


def test_the_compiled_engine_and_its_plain_twin_agree_bit_by_bit() -> None:
    here = Path(__file__).parent
    path = f"{here.parent}{os.pathsep}{here}"
    outputs = [
        subprocess.run(
            [sys.executable, str(here / "twin.py")],
            env={**os.environ, "NUMBA_DISABLE_JIT": disabled, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for disabled in ("0", "1")
    ]
    assert outputs[0].startswith("compiled\n")
    assert outputs[1].startswith("plain\n")
    assert outputs[0].split()[1:] == outputs[1].split()[1:]
    assert len(outputs[0].split()) > 1000


def test_requests_released_together_are_served_in_the_order_of_their_release() -> None:
    count = 3000
    engine = SimulatedEngine(
        trace_of([1] * count, [1] * count), small_options(), toy_table(), keeps_steps=True
    )
    engine.submit(range(count - 1, -1, -1), 0.5)
    while not engine.idle:
        engine.advance(inf)
    steps = steps_of(engine)
    assert [row for step in steps for row in step.arrived] == list(range(count - 1, -1, -1))
    assert [row for step in steps for row, _ in step.batch] == list(range(count - 1, -1, -1))


def test_no_step_and_no_sample_of_a_long_replay_is_lost() -> None:
    tokens = 20_000
    engine = serve(trace_of([1], [tokens]), small_options(max_model_len=30_000, num_gpu_blocks=10_000))
    assert [step.batch for step in steps_of(engine)] == [[(0, 1)]] * tokens
    assert len(engine.power.time_s) == int(engine.finished_s[0] / 0.1) + 2
    assert np.all(np.diff(engine.power.energy_j) > 0)


def test_a_close_before_the_end_of_work_is_refused() -> None:
    engine = SimulatedEngine(trace_of([1], [9]), small_options(), toy_table())
    engine.submit([0], 0.0)
    with pytest.raises(ValueError, match="1 requests are unfinished"):
        engine.close(1.0)
    engine.advance(inf)
    with pytest.raises(ValueError, match="end_s must be finite and >= the last step's end"):
        engine.close(0.001)
