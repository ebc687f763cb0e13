"""Prefill and decode on engines of their own: what each does, when, and what it costs."""

import json
from dataclasses import replace
from itertools import pairwise
from math import inf
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from serving import count_sampled, receiver, sender, serve_by, small_options, steps_of, trace_of
from test_engine_laws import few, workloads
from test_fleet import OPTIONS, POLICIES, assert_same_results, replica_of
from test_pools import FAST, SLOW
from toy_table import toy_table
from toy_trace import toy_trace, traces

from sim.engine import SimulatedEngine
from sim.guards import check
from sim.immediate import Immediate
from sim.kv_blocks import blocks_for
from sim.kv_transfer import KV_BYTES_PER_TOKEN, KvTransfer
from sim.options import EngineOptions
from sim.pools import Pool, Pools, prompts_of
from sim.router_registry import ROUTERS
from sim.simulate import simulate, simulate_fleet
from traces.record import Run
from traces.record_files import read_run, write_run
from traces.trace import Floats, Ints, PrefixBlocks, Trace

LINK = KvTransfer(bytes_per_s=1e9, latency_s=0.002, bytes_per_token=100_000)
"""A tenth of a millisecond a token."""
AT_ONCE = KvTransfer(bytes_per_s=1e30, latency_s=0.0, bytes_per_token=1)
TOGETHER = getattr(blocks_for, "py_func", blocks_for)
fewer = settings(deadline=None, max_examples=15)
links = st.sampled_from([LINK, AT_ONCE, replace(LINK, bytes_per_s=2e7), replace(LINK, latency_s=0.5)])


def split(
    prefill: int = 1,
    decode: int = 1,
    transfer: KvTransfer = LINK,
    router: str = "round-robin",
    decode_router: str = "least-loaded",
    options: EngineOptions = OPTIONS,
) -> Pools:
    pools = (
        Pool("p", prefill, options, SLOW, "prefill"),
        Pool("d", decode, options, FAST, "decode"),
    )
    return Pools(pools, router, kv_transfer=transfer, decode_router=decode_router)


def told_beforehand(engine: SimulatedEngine, rows: Ints, at_s: Floats) -> SimulatedEngine:
    engine.submit(rows, at_s[rows])
    engine.advance_past_finishes(inf)
    return engine


def prefill_replica_of(run: Run) -> Ints:
    assert run.outcomes.prefill_replica is not None
    return run.outcomes.prefill_replica.astype(np.int64)


# The engine that sends


@few
@given(workloads(), links)
def test_kv_travels_one_prompt_after_the_other(
    workload: tuple[Trace, EngineOptions], transfer: KvTransfer
) -> None:
    trace, options = workload
    engine = serve_by(sender(trace, options, transfer, toy_table()), trace)
    link, free_s = transfer.link, 0.0
    for row in np.lexsort((engine.finished_s, engine.first_token_s)).tolist():
        free_s = max(engine.first_token_s[row], free_s) + link.token_s * trace.prompt_tokens[row]
        assert engine.finished_s[row] == pytest.approx(free_s + link.latency_s, rel=1e-12)
    assert engine.split.decode_j == 0.0


@few
@given(workloads(), links)
def test_blocks_are_held_until_their_kv_has_arrived(
    workload: tuple[Trace, EngineOptions], transfer: KvTransfer
) -> None:
    trace, options = workload
    options = replace(options, enable_prefix_caching=False)
    engine = serve_by(sender(trace, options, transfer, toy_table()), trace)
    processed_s = engine.first_token_s - toy_table().host.deliver_s
    blocks = np.array([TOGETHER(int(tokens), options.block_size) for tokens in trace.prompt_tokens])
    for step, decided_s in zip(steps_of(engine), engine.log.steps[:, 0].tolist(), strict=True):
        is_held = (processed_s < decided_s - 1e-9) & (engine.finished_s > decided_s + 1e-9)
        used = int(blocks[is_held].sum()) + sum(step.blocks.values())
        assert used + step.free_blocks <= options.num_gpu_blocks - 1
    assert engine.free_blocks == options.num_gpu_blocks - 1


@pytest.mark.parametrize("caches", [False, True])
def test_a_prompt_waits_for_blocks_that_are_held(caches: bool) -> None:
    # Three blocks of 4 tokens: row 0 takes two, row 1 wants two.
    options = small_options(num_gpu_blocks=4, enable_prefix_caching=caches)
    transfer = replace(LINK, latency_s=1.0)
    engine = serve_by(
        sender(trace_of([8, 8], [5, 5]), options, transfer, toy_table()), trace_of([8, 8], [1, 1])
    )
    batched = [
        (step.batch, decided_s)
        for step, decided_s in zip(steps_of(engine), engine.log.steps[:, 0], strict=True)
    ]
    (first, _), (second, decided_s) = [one for one in batched if one[0]]
    assert (first, second) == ([(0, 8)], [(1, 8)])
    assert decided_s == engine.finished_s[0] > 1.0
    assert len(batched) < 10
    assert engine.free_blocks == 3


def test_blocks_of_a_common_prefix_are_held_by_each_who_sends_them() -> None:
    # Rows 0 and 1 share two blocks of 4 tokens; both are sending when row 2 wants all five blocks.
    prefix = PrefixBlocks(np.array([7, 8, 7, 8]), np.array([0, 2, 4, 4]), 4)
    trace = trace_of([9, 9, 20], [1, 1, 1], [0.0, 0.5, 0.6], prefix=prefix)
    options = small_options(num_gpu_blocks=6, enable_prefix_caching=True, max_num_batched_tokens=32)
    transfer = replace(LINK, latency_s=2.0)
    engine = serve_by(sender(trace, options, transfer, toy_table()), trace)
    assert [step.batch for step in steps_of(engine) if step.batch] == [[(0, 9)], [(1, 1)], [(2, 20)]]
    assert engine.first_token_s[2] > engine.finished_s[1] > engine.finished_s[0] > 2.0


# The engine that receives


@few
@given(workloads())
def test_only_the_last_prompt_token_is_computed_where_the_kv_is_brought(
    workload: tuple[Trace, EngineOptions],
) -> None:
    trace, options = workload
    engine = serve_by(receiver(trace, options, toy_table()), trace)
    sampled = np.zeros(len(trace), np.int64)
    was_preempted: set[int] = set()
    recomputed: set[int] = set()  # not one whose last token was already being sampled when it was preempted
    for step in steps_of(engine):
        was_preempted.update(step.preempted)
        recomputed.update(row for row, _ in step.batch if row in was_preempted)
        for row, tokens in step.batch:
            assert tokens == 1 or row in was_preempted
            assert step.blocks[row] == -(-(step.context[row] + tokens) // options.block_size)
        count_sampled(sampled, trace, step)
    assert sampled.tolist() == trace.output_tokens.tolist()
    assert engine.free_blocks == options.num_gpu_blocks - 1
    assert np.all(engine.first_token_s <= engine.finished_s)
    assert np.all((engine.first_token_s == engine.finished_s) == (trace.output_tokens == 1))
    assert (engine.split.prefill_j > 0) == bool(recomputed)


def test_who_is_preempted_recomputes_its_prompt() -> None:
    # Four blocks of 4 tokens, two for each prompt; row 0 wants a third one for its ninth token.
    trace = trace_of([8, 8], [4, 2])
    engine = serve_by(receiver(trace, small_options(num_gpu_blocks=5), toy_table()), trace)
    assert [step.batch for step in steps_of(engine) if step.batch] == [
        [(0, 1), (1, 1)],
        [(0, 1)],  # row 1 is preempted
        [(0, 1)],
        [(0, 1)],
        [(1, 9)],
    ]
    assert engine.preemptions == 1


def test_brought_kv_needs_blocks_for_the_whole_prompt_and_shares_what_is_known() -> None:
    prefix = PrefixBlocks(np.array([7, 8, 7, 8]), np.array([0, 2, 4]), 4)
    trace = trace_of([9, 9], [3, 3], prefix=prefix)
    caching = serve_by(receiver(trace, small_options(enable_prefix_caching=True), toy_table()), trace)
    without = serve_by(receiver(trace, small_options(), toy_table()), trace)
    assert steps_of(without)[0].free_blocks == 64 - 6
    assert steps_of(caching)[0].free_blocks == 64 - 4


def test_the_first_token_of_brought_kv_is_a_decode_of_the_whole_prompt() -> None:
    trace = trace_of([100], [3])
    engine = serve_by(receiver(trace, small_options(), toy_table()), trace)
    chunks, _, decode_seqs, kv_tokens, longest_tokens = engine.log.steps[:, 3:8].T
    assert not chunks.any()
    assert decode_seqs[:3].tolist() == [1, 1, 1]
    assert kv_tokens[:3].tolist() == longest_tokens[:3].tolist() == [100, 101, 102]


# Both


def test_a_request_alone_takes_its_prefill_its_transfer_and_its_decode() -> None:
    trace = toy_trace([0.25], 100, 50)
    run = simulate_fleet(trace, Immediate(), split())
    prefill = simulate(prompts_of(trace), Immediate(), OPTIONS, SLOW)
    arrived_s = prefill.outcomes.finished_s + (LINK.latency_s + 100 * 1e-4)
    decode = told_beforehand(receiver(trace, OPTIONS, FAST), np.array([0]), arrived_s)
    np.testing.assert_allclose(run.outcomes.first_token_s, decode.first_token_s, rtol=1e-12)
    np.testing.assert_allclose(run.outcomes.finished_s, decode.finished_s, rtol=1e-12)
    assert run.outcomes.energy_j == pytest.approx(prefill.outcomes.energy_j + decode.energy_j)


@fewer
@given(trace=traces(max_requests=12, longest_gap_s=1))
def test_without_a_way_the_first_token_is_one_step_behind_a_fleet_that_only_prefills(trace: Trace) -> None:
    roomy = replace(
        OPTIONS, num_gpu_blocks=2000
    )  # blocks are held a little longer than where nothing is sent
    fleet = split(decode=len(trace), transfer=AT_ONCE, decode_router="round-robin", options=roomy)
    run = simulate_fleet(trace, Immediate(), fleet)
    prefill_only = simulate(prompts_of(trace), Immediate(), roomy, SLOW)
    for row, at_s in enumerate(prefill_only.outcomes.finished_s):
        alone = receiver(trace, roomy, FAST)
        alone.submit([row], float(at_s))
        alone.advance(inf)
        assert run.outcomes.first_token_s[row] == alone.first_token_s[row]
        assert run.outcomes.finished_s[row] == alone.finished_s[row]


@pytest.mark.parametrize("name", ["immediate", "batch-window"])
@fewer
@given(trace=traces(max_requests=40, longest_gap_s=1), transfer=links, count=st.integers(1, 3))
def test_no_engine_acts_on_what_it_cannot_know_yet(
    name: str, trace: Trace, transfer: KvTransfer, count: int
) -> None:
    """Each does just what it does alone, told of all that comes beforehand."""
    options = replace(OPTIONS, max_num_seqs=4, num_gpu_blocks=100)
    run = simulate_fleet(
        trace, POLICIES[name](), split(count, 4 - count, transfer, "least-loaded", options=options)
    )
    assert check(run) == ()
    released_s, prefill_replica, replica = run.outcomes.released_s, prefill_replica_of(run), replica_of(run)
    arrived_s = np.full(len(trace), np.nan)
    for number in range(count):
        rows = np.flatnonzero(prefill_replica == number)
        rows = rows[np.argsort(released_s[rows], kind="stable")]
        engine = told_beforehand(sender(trace, options, transfer, SLOW), rows, released_s)
        arrived_s[rows] = engine.finished_s[rows]
    for number in range(count, 4):
        rows = np.flatnonzero(replica == number)
        rows = rows[np.lexsort((rows, prefill_replica[rows], arrived_s[rows]))]
        engine = told_beforehand(receiver(trace, options, FAST), rows, arrived_s)
        np.testing.assert_array_equal(engine.first_token_s[rows], run.outcomes.first_token_s[rows])
        np.testing.assert_array_equal(engine.finished_s[rows], run.outcomes.finished_s[rows])


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("router", ROUTERS)
@settings(deadline=None, max_examples=4)
@given(trace=traces(), transfer=links, prefill=st.integers(1, 3), decode=st.integers(1, 3))
def test_every_guard_holds_and_no_joule_is_counted_twice(
    name: str, router: str, trace: Trace, transfer: KvTransfer, prefill: int, decode: int
) -> None:
    roomy = replace(OPTIONS, num_gpu_blocks=2000)
    run = simulate_fleet(trace, POLICIES[name](), split(prefill, decode, transfer, router, router, roomy))
    assert check(run) == ()
    uses, energy = run.meta.replicas, run.meta.energy
    assert energy is not None
    assert sum(use.total_j for use in uses) == pytest.approx(energy.total_j, rel=1e-12)
    assert sum(use.busy_j for use in uses[:prefill]) == pytest.approx(energy.prefill_j, rel=1e-12)
    assert sum(use.busy_j for use in uses[prefill:]) == pytest.approx(energy.decode_j, rel=1e-12)
    assert [use.pool for use in uses] == ["p"] * prefill + ["d"] * decode
    served = np.bincount(prefill_replica_of(run), minlength=prefill), np.bincount(replica_of(run))[prefill:]
    assert [use.requests for use in uses[:prefill]] == served[0].tolist()
    assert sum(served[1]) == sum(use.requests for use in uses[prefill:]) == len(trace)


@fewer
@given(prompts=st.lists(st.integers(1, 300), min_size=1, max_size=5), output=st.integers(1, 9))
def test_a_slower_link_makes_nobody_earlier_in_a_lone_stream(prompts: list[int], output: int) -> None:
    trace = toy_trace([100.0 * row for row in range(len(prompts))], prompts, output)
    finished_s = [
        simulate_fleet(
            trace, Immediate(), split(transfer=replace(LINK, bytes_per_s=speed))
        ).outcomes.finished_s
        for speed in (1e30, 1e10, 1e9, 1e8, 1e7)
    ]
    for faster_s, slower_s in pairwise(finished_s):
        assert np.all(faster_s < slower_s)


def test_pools_that_prefill_and_pools_that_decode_have_routers_of_their_own() -> None:
    pools = tuple(
        Pool(f"{role}{number}", 1, OPTIONS, SLOW, role)
        for role in ("prefill", "decode")
        for number in range(2)
    )
    router = "length-split:edges=100"
    fleet = Pools(pools, router, kv_transfer=LINK, decode_router=router)
    run = simulate_fleet(toy_trace([0.0, 1.0, 2.0], [50, 100, 99]), Immediate(), fleet)
    assert prefill_replica_of(run).tolist() == [0, 1, 0]
    assert replica_of(run).tolist() == [2, 3, 2]


def test_lengths_are_checked_in_each_pool() -> None:
    short = replace(OPTIONS, max_model_len=120)
    trace = toy_trace([0.0], 110, 30)
    pools = split().pools
    prefills_short = replace(split(), pools=(replace(pools[0], options=short), pools[1]))
    assert check(simulate_fleet(trace, Immediate(), prefills_short)) == ()
    decodes_short = replace(split(), pools=(pools[0], replace(pools[1], options=short)))
    with pytest.raises(ValueError, match="pool d: request 0 of toy has 140 tokens, max_model_len is 120"):
        simulate_fleet(trace, Immediate(), decodes_short)


def test_the_record_tells_who_did_what(tmp_path: Path) -> None:
    run = simulate_fleet(toy_trace([0.0, 0.0, 1.0], 50), Immediate(), split(2, 1))
    write_run(run, tmp_path / "run")
    back = read_run(tmp_path / "run")
    assert_same_results(run, back)
    assert prefill_replica_of(back).tolist() == [0, 1, 0]
    assert replica_of(back).tolist() == [2, 2, 2]
    facts = back.meta.engine_options
    assert (facts["router"], facts["decode_router"]) == ("round-robin", "least-loaded")
    assert facts["kv_transfer"] == {"bytes_per_s": 1e9, "latency_s": 0.002, "bytes_per_token": 100_000}
    assert [pool["role"] for pool in facts["pools"]] == ["prefill", "decode"]
    assert back.meta.notes[-1].startswith("0.015 GB of KV went from prefill to decode engines")


def test_the_kv_of_shipped_models_is_what_their_sizes_say() -> None:
    folder = Path(__file__).parents[1] / "calibrate" / "models"
    configs = {path.parent.name: json.loads(path.read_text()) for path in folder.glob("*/config.json")}
    sizes = ("num_hidden_layers", "num_key_value_heads", "head_dim")
    assert {name: 2 * 2 * int(np.prod([c[size] for size in sizes])) for name, c in configs.items()} == dict(
        KV_BYTES_PER_TOKEN
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kv_transfer": None}, "pools with roles need kv_transfer"),
        ({"pools": split().pools[::-1]}, "first those of role prefill, .* got decode, prefill"),
        ({"pools": split().pools[:1]}, "got prefill$"),
        ({"pools": (replace(split().pools[0], role=None), split().pools[1])}, "got None, decode"),
        ({"scaling": "reactive"}, "pools with roles never sleep: leave scaling reactive out"),
        ({"decode_router": "best"}, "no router 'best'"),
        (
            {
                "pools": (
                    split().pools[0],
                    replace(split().pools[1], table=replace(FAST, engine={"model": "m"})),
                )
            },
            "pools with roles must serve one model, got None, m",
        ),
    ],
)
def test_roles_that_do_not_fit_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(split(), **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bytes_per_s": 0.0}, "gigabytes_per_s must be > 0 and finite, got 0.0"),
        ({"bytes_per_s": inf}, "gigabytes_per_s must be > 0 and finite, got inf"),
        ({"latency_s": -0.001}, "latency_ms must be >= 0 and finite, got -1.0"),
        ({"latency_s": inf}, "latency_ms must be >= 0 and finite, got inf"),
        ({"bytes_per_token": 0}, "bytes_per_token must be >= 1, got 0"),
    ],
)
def test_impossible_links_are_refused(changes: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(LINK, **changes)  # type: ignore[arg-type]
