"""Fleets of pools that differ: the file that tells of them, who serves what, and what it costs."""

import json
import re
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from test_fleet import OPTIONS, POLICIES, Asked, assert_same_results, replica_of
from test_replica_use import assert_replicas_sum_to_the_run
from test_scaling import STATES
from toy_table import toy_table
from toy_trace import toy_trace, traces

from replay.main import main
from sim.deadline import Deadline
from sim.fleet_file import read_fleet
from sim.guards import check
from sim.immediate import Immediate
from sim.kv_transfer import KvTransfer
from sim.options import EngineOptions, FleetOptions
from sim.pools import Pool, Pools
from sim.router_registry import ROUTERS
from sim.serving import Setup
from sim.simulate import simulate, simulate_fleet
from sim.table import CostTable
from sim.table_files import DEFAULT, save_table
from traces.parquet import write_trace
from traces.record import Run
from traces.record_files import read_run
from traces.trace import PrefixBlocks, Trace

SLOW = toy_table()
FAST = replace(
    toy_table(
        linear_s=SLOW.coefficients.linear_s / 4,
        linear_j=SLOW.coefficients.linear_j / 5,
        prompt_s=SLOW.coefficients.prompt_s / 4,
        prompt_j=SLOW.coefficients.prompt_j / 5,
        idle_w=50.0,
    ),
    name="fast",
    gpu="Small GPU",
    gpus=2,
    power_limit_w=300.0,
)
FILE = """
pools:
  - {name: small, table: FAST, count: 2, engine: {max_num_seqs: 4, no-async-scheduling: }}
  - {name: big, table: SLOW}
router: length-split:edges=100
"""
SPLIT = """
pools:
  - {name: in, role: prefill, table: FAST, count: 2}
  - {name: out, role: decode, table: SLOW}
kv_transfer: {gigabytes_per_s: 50, latency_ms: 2, bytes_per_token: 1000}
decode_router: pack:most=2
"""


def pools_of(*pools: tuple[int, EngineOptions, CostTable], router: str, scaling: str = "fixed") -> Pools:
    named = (Pool(f"p{number}", *pool) for number, pool in enumerate(pools))
    return Pools(tuple(named), router, scaling)


def mixed(router: str, scaling: str = "fixed") -> Pools:
    few_seqs = replace(OPTIONS, max_num_seqs=2, async_scheduling=False)
    return pools_of((2, few_seqs, FAST), (1, OPTIONS, SLOW), router=router, scaling=scaling)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two tables, a trace, and a fleet file of both."""
    monkeypatch.chdir(tmp_path)
    for name, table in {"FAST": FAST, "SLOW": SLOW}.items():
        (tmp_path / name).mkdir()
        save_table(table, tmp_path / name)
    write_trace(toy_trace([0.0, 0.0, 0.0, 9.0], [50, 150, 60, 99], 20), tmp_path / "toy.parquet")
    (tmp_path / "fleet.yaml").write_text(FILE)
    return tmp_path


def printed(*arguments: str) -> str:
    result = CliRunner().invoke(main, ["toy.parquet", *arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def refused(*arguments: str) -> str:
    result = CliRunner().invoke(main, ["toy.parquet", *arguments])
    assert result.exit_code == 2, result.output
    return result.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("router", ROUTERS)
@settings(deadline=None, max_examples=8)
@given(trace=traces(), first=st.integers(1, 2))
def test_pools_that_do_not_differ_are_equal_replicas_bit_for_bit(
    name: str, router: str, trace: Trace, first: int
) -> None:
    one, other = Asked(POLICIES[name]()), Asked(POLICIES[name]())
    equal = simulate(trace, one, OPTIONS, SLOW, fleet=FleetOptions(4, router))
    pools = (first, OPTIONS, SLOW), (4 - first, OPTIONS, SLOW)
    if router == "length-split":  # four equal replicas make two groups of two
        pools = (2, OPTIONS, SLOW), (2, OPTIONS, SLOW)
    pooled = simulate_fleet(trace, other, pools_of(*pools, router=router))
    assert_same_results(equal, pooled)
    assert [replace(use, pool=None) for use in pooled.meta.replicas] == list(equal.meta.replicas)
    for fact in ("table", "table_source", "gpu", "gpus", "power_limit_w", "idle_w", "notes"):
        assert getattr(pooled.meta, fact) == getattr(equal.meta, fact), fact


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("router", ROUTERS)
@settings(deadline=None, max_examples=8)
@given(trace=traces())
def test_every_guard_holds_of_a_mixed_fleet(name: str, router: str, trace: Trace) -> None:
    run = simulate_fleet(trace, POLICIES[name](), mixed(router))
    assert check(run) == ()
    assert [use.pool for use in run.meta.replicas] == ["p0", "p0", "p1"]
    assert [use.idle_w for use in run.meta.replicas] == [50.0, 50.0, 120.0]
    assert_replicas_sum_to_the_run(run)


@settings(deadline=None, max_examples=15)
@given(trace=traces(max_requests=40, longest_gap_s=1))
def test_each_pool_does_what_it_does_alone(trace: Trace) -> None:
    run = simulate_fleet(trace, Immediate(), mixed("length-split:edges=100"))
    is_long = trace.prompt_tokens >= 100
    np.testing.assert_array_equal(replica_of(run) == 2, is_long)
    for pool, rows in zip(mixed("pack").pools, (~is_long, is_long), strict=True):
        if not rows.any():
            continue
        fleet = FleetOptions(pool.count, "least-loaded")
        alone = simulate(trace.take(np.flatnonzero(rows)), Immediate(), pool.options, pool.table, fleet=fleet)
        np.testing.assert_array_equal(alone.outcomes.finished_s, run.outcomes.finished_s[rows])
        np.testing.assert_allclose(alone.outcomes.energy_j, run.outcomes.energy_j[rows], rtol=1e-9)


def test_an_idle_mixed_fleet_takes_the_idle_power_of_each() -> None:
    run = simulate_fleet(toy_trace([0.0]), Immediate(), mixed("pack"))
    for unused in run.meta.replicas[1:]:
        assert unused.total_j == pytest.approx(unused.idle_w * run.meta.makespan_s)
    assert (run.meta.idle_w, run.meta.gpus) == (220.0, 5)
    assert run.meta.power_limit_w == pytest.approx((4 * 300.0 + 700.0) / 5)
    assert (run.meta.table, run.meta.gpu) == ("fast + toy", "Small GPU + Toy GPU")


@settings(deadline=None, max_examples=15)
@given(trace=traces())
def test_pools_sleep_by_what_their_own_tables_say(trace: Trace) -> None:
    deeper = {"sleep-1": replace(STATES["sleep-1"], power_w=7.0)}
    few = pools_of(
        (1, OPTIONS, replace(SLOW, states=STATES)),
        (1, OPTIONS, replace(FAST, states=deeper)),
        router="pack:most=2",
        scaling="reactive:least=0:idle_s=10:up=2:state=sleep-1",
    )
    run = simulate_fleet(trace, Immediate(), few)
    assert check(run) == ()
    for use, power_w in zip(run.meta.replicas, (90.0, 7.0), strict=True):
        assert use.asleep_j == pytest.approx(power_w * use.asleep_s)


def test_a_pool_without_the_power_state_is_refused() -> None:
    fleet = pools_of(
        (1, OPTIONS, replace(SLOW, states=STATES)), (1, OPTIONS, FAST), router="pack", scaling="reactive"
    )
    with pytest.raises(ValueError, match="table fast has no power state off"):
        simulate_fleet(toy_trace([0.0]), Immediate(), fleet)


def test_the_interval_of_a_mixed_fleet_is_the_sum_of_its_tables() -> None:
    spread = {"spread": {"prefill": 0.1, "decode": 0.1, "idle": 0.1, "repeat": 0.0}}
    slow, fast = (replace(table, meta=spread) for table in (SLOW, FAST))
    trace = toy_trace([0.0, 0.5], [50, 150], 20)

    def run_of(*pools: tuple[int, EngineOptions, CostTable]) -> Run:
        return simulate_fleet(trace, Immediate(), pools_of(*pools, router="length-split:edges=100"))

    run = run_of((1, OPTIONS, fast), (1, OPTIONS, slow))
    margins_j = []
    for use in run.meta.replicas:
        margins_j.append(1.96 * ((0.1 * use.busy_j) ** 2 + (0.1 * use.idle_j) ** 2) ** 0.5)
    low_j, high_j = run.meta.energy_interval_j or (0.0, 0.0)
    assert high_j - low_j == pytest.approx(2 * sum(margins_j))
    assert run_of((1, OPTIONS, FAST), (1, OPTIONS, slow)).meta.energy_interval_j is None


def test_lengths_are_checked_against_the_pools_that_a_request_may_go_to() -> None:
    short = replace(OPTIONS, max_model_len=120)
    trace = toy_trace([0.0, 0.0, 0.0], [50, 300, 200], 30)

    def pools(router: str, scaling: str = "fixed") -> Pools:
        table = replace(SLOW, states=STATES)
        return pools_of((1, short, table), (1, OPTIONS, table), router=router, scaling=scaling)

    run = simulate_fleet(trace, Immediate(), pools("length-split:edges=100"))
    assert replica_of(run).tolist() == [0, 1, 1]
    message = "pool p0: request 1 of toy has 330 tokens, max_model_len is 120: raise it or leave out the 2"
    for fleet in (pools("pack"), pools("length-split:edges=100", "reactive")):
        with pytest.raises(ValueError, match=message):
            simulate_fleet(trace, Immediate(), fleet)
    counting = pools("length-split:edges=100:counts_output=true")
    with pytest.raises(ValueError, match="counts the output, which nobody predicts"):
        simulate_fleet(trace, Immediate(), counting)
    predicted = replace(trace, predicted_output_tokens=np.array([60, 1, 1], np.int32))
    assert replica_of(simulate_fleet(predicted, Immediate(), counting)).tolist() == [1, 1, 1]


def test_pools_with_and_without_a_prefix_cache_share_a_trace() -> None:
    blocks = PrefixBlocks(np.tile(np.arange(10), 4), 10 * np.arange(5), 16)
    trace = replace(toy_trace([0.0, 0.0, 5.0, 5.0], 160, 4), prefix=blocks)
    without = replace(OPTIONS, enable_prefix_caching=False)
    run = simulate_fleet(
        trace, Immediate(), pools_of((1, without, SLOW), (1, OPTIONS, SLOW), router="pack:most=1")
    )
    assert replica_of(run).tolist() == [0, 1, 0, 1]
    ttft_s = run.outcomes.first_token_s - run.outcomes.arrival_s
    assert ttft_s[0] == pytest.approx(ttft_s[2])
    assert ttft_s[3] < ttft_s[1]


def test_a_policy_that_asks_is_told_of_the_slowest_pool() -> None:
    fleet = mixed("pack")
    assert (fleet.costs.table, fleet.costs.options, fleet.costs.replicas) == (SLOW, OPTIONS, 3)
    assert replace(fleet, pools=fleet.pools[::-1]).costs.table is SLOW
    assert check(simulate_fleet(toy_trace([0.0, 1.0]), Deadline(), fleet)) == ()


def test_a_file_of_one_pool_is_so_many_equal_replicas(folder: Path) -> None:
    (folder / "one.yaml").write_text("pools: [{name: a, table: SLOW, count: 3, engine: {max_num_seqs: 7}}]")
    assert isinstance(read_fleet(folder / "one.yaml"), Setup)
    printed("--fleet", "one.yaml", "--out", "filed")
    printed("--replicas", "3", "--table", "SLOW", "--engine", "max_num_seqs=7", "--out", "given")
    filed, given = read_run(folder / "filed"), read_run(folder / "given")
    assert_same_results(filed, given)
    assert replace(filed.meta, run_id="", started_at="") == replace(given.meta, run_id="", started_at="")


def test_a_mixed_fleet_is_printed_and_recorded_by_pool(folder: Path) -> None:
    text = printed("--fleet", "fleet.yaml", "--out", "run")
    assert [line.split()[:3] for line in text.splitlines() if re.match(r"\d (small|big) ", line)] == [
        ["0", "small", "2"],
        ["1", "small", "1"],
        ["2", "big", "1"],
    ]
    run = read_run(folder / "run")
    assert replica_of(run).tolist() == [0, 2, 1, 0]
    facts = run.meta.engine_options
    assert (facts["replicas"], facts["router"]) == (3, "length-split:edges=100:counts_output=false")
    assert facts["pools"] == [
        {"name": "small", "count": 2, "table": "fast"}
        | asdict(EngineOptions(max_num_seqs=4, async_scheduling=False)),
        {"name": "big", "count": 1, "table": "toy"} | asdict(EngineOptions()),
    ]
    found = json.loads(printed("--fleet", "fleet.yaml", "--json", "--out", "json"))
    assert [one["pool"] for one in found["replicas"]] == ["small", "small", "big"]


def test_a_file_may_divide_prefill_and_decode(folder: Path) -> None:
    (folder / "split.yaml").write_text(SPLIT)
    fleet = read_fleet(folder / "split.yaml")
    assert isinstance(fleet, Pools)
    assert fleet.kv_transfer == KvTransfer(50e9, 0.002, 1000)
    text = printed("--fleet", "split.yaml", "--out", "run")
    assert [line.split()[:3] for line in text.splitlines() if re.match(r"\d (in|out) ", line)] == [
        ["0", "in", "2"],
        ["1", "in", "2"],
        ["2", "out", "4"],
    ]
    shipped = SPLIT.replace("FAST", DEFAULT).replace("SLOW", DEFAULT).replace(", bytes_per_token: 1000", "")
    (folder / "shipped.yaml").write_text(shipped)
    known = read_fleet(folder / "shipped.yaml")
    assert isinstance(known, Pools)
    assert known.kv_transfer == KvTransfer(50e9, 0.002, 131072)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pools: [", "no YAML: while parsing a flow node"),
        ("", "a fleet has the keys pools, router, scaling, kv_transfer, decode_router, got None"),
        ("router: pack", "a fleet lacks the key 'pools', got {'router': 'pack'}"),
        ("pools: []", "pools must be a list of at least one pool, got []"),
        ("pools: [big]", "a pool has the keys name, table, count, engine, role, got 'big'"),
        ("pools: [{name: big}]", "a pool lacks the key 'table', got {'name': 'big'}"),
        (
            "pools: [{name: big, table: SLOW, gpus: 2}]",
            "a pool has no key 'gpus'; there are name, table, count",
        ),
        ("pools: [{name: 3, table: SLOW}]", "name must be text, got 3"),
        ("pools: [{name: big, table: nowhere}]", "pool big: no table 'nowhere'"),
        ("pools: [{name: big, table: SLOW, count: 0}]", "pool big: count must be >= 1, got 0"),
        (
            "pools: [{name: big, table: SLOW, count: true}]",
            "pool big: count must be a whole number, got True",
        ),
        (
            "pools: [{name: big, table: SLOW, engine: {seqs: 2}}]",
            "pool big: no engine option 'seqs'; there are",
        ),
        (
            "pools: [{name: big, table: SLOW, engine: 3}]",
            "pool big: engine must be options with their values",
        ),
        (FILE.replace("big", "small"), "two pools are named small; give each a name of its own"),
        (FILE.replace("=100", "=1/2"), "make 3 groups, but there are 2 pools: give 1 edges"),
        (FILE + "scaling: best", "no scaling 'best'"),
        (FILE + "routers: pack", "a fleet has no key 'routers'; there are pools, router, scaling"),
        (FILE + "decode_router: pack", "decode_router is of pools that decode only; give the pools roles"),
        (SPLIT.replace("role: decode", "role: both"), "pool out: role must be prefill or decode, got 'both'"),
        (SPLIT.replace("role: decode", "role: []"), "pool out: role must be prefill or decode, got []"),
        (SPLIT.replace("role: decode, ", ""), "pools must all have a role, first those of role prefill"),
        (SPLIT.replace(", bytes_per_token: 1000", ""), "kv_transfer needs bytes_per_token: what KV takes is"),
        (SPLIT.replace("latency_ms: 2, ", ""), "kv_transfer lacks the key 'latency_ms'"),
        (SPLIT.replace("50", "fast"), "kv_transfer: gigabytes_per_s must be a number, got 'fast'"),
        (SPLIT.replace("50", "0"), "kv_transfer: gigabytes_per_s must be > 0 and finite, got 0.0"),
    ],
)
def test_a_file_that_is_no_fleet_is_refused_in_one_line(folder: Path, text: str, message: str) -> None:
    (folder / "fleet.yaml").write_text(text)
    line = refused("--fleet", "fleet.yaml", "--out", "run")
    assert line.startswith("Error: fleet.yaml: ")
    assert message in line
    assert not (folder / "run").exists()


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    "option", ["--table SLOW", "--engine max_num_seqs=3", "--replicas 2", "--router pack", "--scaling fixed"]
)
def test_what_the_file_tells_is_not_given_again(option: str) -> None:
    expected = f"Error: {option.split()[0]} goes into the file that --fleet names; leave it out"
    assert refused("--fleet", "fleet.yaml", *option.split()).startswith(expected)


@pytest.mark.usefixtures("folder")
def test_a_fleet_file_is_of_simulations_only() -> None:
    line = refused("--fleet", "fleet.yaml", "--backend", "vllm")
    assert line.startswith("Error: --fleet is simulated only: leave --backend vllm out")
    assert "nowhere.yaml" in refused("--fleet", "nowhere.yaml")
