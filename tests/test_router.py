"""Routers: in turn, to the fewest requests, packed, by length, or to who knows the prompt."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_fleet import OPTIONS, replayed, replica_of
from toy_table import toy_table
from toy_trace import toy_trace

from sim.immediate import Immediate
from sim.length_prediction import predict_lengths
from sim.length_split import LengthSplit
from sim.options import EngineOptions, FleetOptions
from sim.policy import HeldRequest
from sim.prefix_affinity import PrefixAffinity
from sim.router import LeastLoaded, Loads, Pack, RoundRobin, Router
from sim.router_registry import ROUTERS, make_router
from sim.settings import full_name, settings_of
from sim.simulate import simulate
from traces.trace import PrefixBlocks

PAGE = (Path(__file__).parents[1] / "docs" / "fleet.md").read_text()
REQUEST = HeldRequest(0, 0.0, 16)
LOADS = st.lists(st.integers(0, 20), min_size=1, max_size=8).map(lambda loads: dict(enumerate(loads)))
SOME = st.dictionaries(st.integers(0, 30), st.integers(0, 20), min_size=1).map(
    lambda d: dict(sorted(d.items()))
)


def request(
    prompt_tokens: int = 16,
    predicted: int | None = None,
    hashes: tuple[int, ...] = (),
    session: str | None = None,
) -> HeldRequest:
    return HeldRequest(0, 0.0, prompt_tokens, predicted, hashes, session)


@given(LOADS)
def test_round_robin_visits_every_replica_once_a_turn_however_busy(loads: Loads) -> None:
    router = RoundRobin()
    for _ in range(3):
        assert [router.route(REQUEST, loads) for _ in loads] == list(loads)


@given(st.lists(SOME, max_size=8))
def test_round_robin_goes_on_where_it_was_when_replicas_come_and_go(turns: list[Loads]) -> None:
    router, last = RoundRobin(), -1
    for loads in turns:
        behind = [replica for replica in loads if replica > last]
        last = router.route(REQUEST, loads)
        assert last == min(behind or loads)


@given(SOME)
def test_least_loaded_is_the_first_of_those_with_the_fewest(loads: Loads) -> None:
    chosen = LeastLoaded().route(REQUEST, loads)
    assert all(load > loads[chosen] for replica, load in loads.items() if replica < chosen)
    assert all(load >= loads[chosen] for load in loads.values())


@given(SOME, st.integers(1, 20))
def test_pack_is_the_first_with_room(loads: Loads, most: int) -> None:
    chosen = Pack(most).route(REQUEST, loads)
    if loads[chosen] < most:
        assert all(load >= most for replica, load in loads.items() if replica < chosen)
    else:
        assert min(loads.values()) >= most
        assert chosen == LeastLoaded().route(REQUEST, loads)


@pytest.mark.parametrize(("pools", "groups"), [((5,), [(0, 1), (2, 3, 4)]), ((3, 1), [(0, 1, 2), (3,)])])
def test_a_length_belongs_to_one_group_of_replicas(pools: tuple[int, ...], groups: list[tuple[int]]) -> None:
    router = make_router("length-split:edges=100", pools)
    idle = dict.fromkeys(range(sum(pools)), 0)
    for tokens, group in ((1, 0), (99, 0), (100, 1), (5000, 1)):
        assert router.route(request(tokens), idle) == groups[group][0]
        busy = {**idle, groups[group][0]: 1}
        assert router.route(request(tokens), busy) == groups[group][min(1, len(groups[group]) - 1)]


def test_one_replica_takes_every_length() -> None:
    router = make_router("length-split:edges=100/200", (1,))
    assert {router.route(request(tokens), {0: 3}) for tokens in (1, 150, 300)} == {0}


def test_lengths_may_count_the_predicted_output_and_never_the_true_one() -> None:
    router = make_router("length-split:edges=100:counts_output=true", (2,))
    assert [router.route(request(50, predicted), {0: 0, 1: 0}) for predicted in (49, 50)] == [0, 1]
    trace = toy_trace([0.0, 1.0, 2.0], 50, [10, 100, 10])
    fleet = FleetOptions(2, "length-split:edges=100:counts_output=true")
    with pytest.raises(ValueError, match="which nobody predicts; give --length-prediction"):
        simulate(trace, Immediate(), OPTIONS, toy_table(), fleet=fleet)
    told = predict_lengths(trace, "oracle", 0)
    assert replica_of(simulate(told, Immediate(), OPTIONS, toy_table(), fleet=fleet)).tolist() == [0, 1, 0]


def test_a_session_stays_where_it_is_until_that_is_too_far_ahead() -> None:
    router = PrefixAffinity(ahead=2)
    assert router.route(request(session="a"), {0: 0, 1: 0}) == 0
    assert router.route(request(session="a"), {0: 2, 1: 0}) == 0
    assert router.route(request(session="a"), {0: 3, 1: 0}) == 1
    assert router.route(request(session="a"), {0: 0, 1: 2}) == 1
    assert router.route(request(session="b"), {0: 0, 1: 2}) == 0
    assert router.route(request(session="a"), {0: 9}) == 0


def test_a_prompt_goes_to_who_served_its_longest_known_beginning() -> None:
    router, idle = PrefixAffinity(), {0: 0, 1: 0, 2: 0}
    assert router.route(request(hashes=(1, 2, 3, 4)), idle) == 0
    assert router.route(request(hashes=(1, 9, 9, 9)), {**idle, 0: 1}) == 1  # a quarter is too little
    assert router.route(request(hashes=(1, 2, 7, 7)), {**idle, 0: 1}) == 0
    assert router.route(request(hashes=(1, 9, 9, 9, 5)), {**idle, 1: 1}) == 1
    assert (
        router.route(request(hashes=(2, 3, 4)), {**idle, 0: 1, 1: 1}) == 2
    )  # equal hashes elsewhere say nothing
    assert router.route(request(), {**idle, 0: 1}) == 1


def test_affinity_finds_what_round_robin_forgets() -> None:
    conversations, turns, blocks = 3, 6, 4
    rows = [(turn, one) for turn in range(turns) for one in range(conversations)]
    hashes = [100 * one + block for turn, one in rows for block in range(blocks * (turn + 1))]
    counts = [blocks * (turn + 1) for turn, _ in rows]
    prefix = PrefixBlocks(np.array(hashes, np.int64), np.cumsum([0, *counts]).astype(np.int64), 16)
    trace = toy_trace([float(10 * place) for place in range(len(rows))], [16 * count for count in counts], 4)
    options = EngineOptions(max_num_seqs=8, num_gpu_blocks=2000, max_model_len=2000)
    prefill_j = {}
    for router in ("round-robin", "prefix-affinity"):
        told, fleet = replace(trace, prefix=prefix), FleetOptions(2, router)
        run = simulate(told, Immediate(), options, toy_table(), fleet=fleet)
        assert run.meta.energy is not None
        prefill_j[router] = run.meta.energy.prefill_j
    for one in range(conversations):
        assert len(set(replica_of(run)[one::conversations].tolist())) == 1
    assert prefill_j["prefix-affinity"] < 0.9 * prefill_j["round-robin"]


def test_packing_leaves_replicas_without_work() -> None:
    run = replayed(toy_trace([float(at) for at in range(12)], 16, 4), Immediate(), 3, "pack:most=2")
    assert [one.requests for one in run.meta.replicas] == [12, 0, 0]


def test_the_record_tells_the_options_of_the_router() -> None:
    run = replayed(toy_trace([0.0]), Immediate(), 2, "prefix-affinity:ahead=3")
    assert run.meta.engine_options["router"] == "prefix-affinity:match=0.5:ahead=3"


@pytest.mark.parametrize("name", ROUTERS)
def test_a_full_name_makes_the_same_router(name: str) -> None:
    again = full_name(name, make_router(name, (4,)))
    assert make_router(again, (4,)) == make_router(name, (4,))
    assert full_name(again, make_router(again, (4,))) == again


@pytest.mark.parametrize(
    ("router", "message"),
    [
        ("best", "no router 'best'; there are round-robin, least-loaded, pack"),
        ("pack:size=3", "router pack has no option 'size'; it has most"),
        ("pack:most", "--router pack: takes NAME=VALUE, got 'most'"),
        ("pack:most=0", "router pack: most must be >= 1, got 0"),
        ("round-robin:most=1", "router round-robin has no option 'most'; it has none"),
        ("length-split:edges=9/3", "edges must be ascending token counts above 0, like 1024/4096, got '9/3'"),
        ("length-split:edges=x", "edges must be ascending token counts"),
        ("prefix-affinity:match=2", "match must be above 0 and at most 1, got 2.0"),
        ("prefix-affinity:ahead=-1", "ahead must be >= 0, got -1"),
    ],
)
def test_what_a_router_cannot_be_told_is_refused(router: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        FleetOptions(2, router)


def test_pools_that_do_not_fit_the_edges_are_refused() -> None:
    with pytest.raises(ValueError, match="edges 10/20 make 3 groups, but there are 2 pools: give 1 edges"):
        LengthSplit("10/20").divide((1, 1))


@pytest.mark.parametrize("name", ROUTERS)
def test_every_router_and_its_options_are_on_the_page(name: str) -> None:
    (row,) = re.findall(rf"^\| `{name}` \| (.*?) \|", PAGE, re.MULTILINE)
    made: Router = make_router(name, (1,))
    for option, text in (pair.split("=") for pair in full_name(name, made).split(":")[1:]):
        assert option in settings_of(type(made))
        assert f"`{option}={text}`" in row
