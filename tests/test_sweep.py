"""Sweeps: which combinations there are, what tells them apart, what is kept of them, and which to choose."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy_run import toy_run
from toy_table import toy_table
from toy_trace import toy_trace

import sim.sweep_key
from sim.slo import Slo
from sim.summary import summarize
from sim.sweep import Case, evaluate
from sim.sweep_combinations import combinations
from sim.sweep_front import front, point
from sim.sweep_grid import Axis, parse_axis
from sim.sweep_key import inputs_of, key_of
from sim.sweep_ranking import best, rank
from sim.sweep_result import Result, path_of, read_result, write_result
from sim.sweep_slos import Slos, parse_sweep_slos
from sim.table_files import save_table
from traces.parquet import write_trace

VALID = replace(summarize(toy_run()), energy_valid=True, invalid_reasons=())
TRACE = Path("toy.parquet")


@pytest.fixture
def case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Case:
    """A case whose files exist, in the current folder."""
    monkeypatch.chdir(tmp_path)
    write_trace(toy_trace([0.0, 1.0, 2.0], 100, 10), TRACE)
    Path("table").mkdir()
    save_table(toy_table(engine={"max_num_seqs": 4}), Path("table"))
    return Case(TRACE, policy="batch-window", table="table")


def key(case: Case) -> str:
    return key_of(inputs_of(case))


def settings(*texts: str, policies: tuple[str, ...] = ("batch-window", "immediate")) -> list[tuple[Any, ...]]:
    axes = [parse_axis(text) for text in texts]
    found = combinations(Case(TRACE), [TRACE], policies, axes)
    return [(one.policy, dict(one.settings), dict(one.engine), dict(one.fleet)) for one in found]


@pytest.mark.parametrize(
    ("text", "axis"),
    [
        ("window_s=0,1.5", Axis("window_s", None, ("0", "1.5"))),
        ("window-s=3", Axis("window_s", None, ("3",))),
        ("replicas=1..4", Axis("replicas", None, ("1", "2", "3", "4"))),
        ("batch-window.max_batch=none, 8", Axis("max_batch", "batch-window", ("none", "8"))),
        ("mine.py:Mine.most=2", Axis("most", "mine.py:Mine", ("2",))),
        (
            "length_prediction=oracle,noisy:cv=0.5",
            Axis("length_prediction", None, ("oracle", "noisy:cv=0.5")),
        ),
    ],
)
def test_an_axis_is_a_name_and_values_or_a_range_of_whole_numbers(text: str, axis: Axis) -> None:
    assert parse_axis(text) == axis


@pytest.mark.parametrize(
    "text", ["window_s", "window_s=", "=1", "window_s=1,,2", "replicas=4..1", "immediate.=1"]
)
def test_what_is_no_axis_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="--grid takes"):
        parse_axis(text)


def test_every_combination_comes_once_and_an_option_goes_to_the_policies_that_have_it() -> None:
    assert settings("window_s=0,5", "replicas=1,2") == [
        ("batch-window", {"window_s": "0"}, {}, {"replicas": "1"}),
        ("batch-window", {"window_s": "0"}, {}, {"replicas": "2"}),
        ("batch-window", {"window_s": "5"}, {}, {"replicas": "1"}),
        ("batch-window", {"window_s": "5"}, {}, {"replicas": "2"}),
        ("immediate", {}, {}, {"replicas": "1"}),
        ("immediate", {}, {}, {"replicas": "2"}),
    ]


def test_an_option_may_be_of_one_policy_only() -> None:
    both = ("concurrency", "shortest-first")
    assert [one[1] for one in settings("most=1,2", policies=both)] == [{"most": "1"}, {"most": "2"}] * 2
    of_one = [one[1] for one in settings("concurrency.most=1,2", policies=both)]
    assert of_one == [{"most": "1"}, {"most": "2"}, {}]


def test_an_option_of_a_member_goes_to_the_chains_that_have_it() -> None:
    policies = ("pace+batch-window", "batch-window", "immediate")
    assert settings("batch-window.window_s=1", "interval_s=2", policies=policies) == [
        ("pace+batch-window", {"batch-window.window_s": "1", "interval_s": "2"}, {}, {}),
        ("batch-window", {"window_s": "1"}, {}, {}),
        ("immediate", {}, {}, {}),
    ]


def test_engine_options_are_varied_by_vllms_names() -> None:
    assert [one[2] for one in settings("max-num-seqs=8,16", policies=("immediate",))] == [
        {"max_num_seqs": "8"},
        {"max_num_seqs": "16"},
    ]


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (("windo_s=1",), "no input 'windo_s' to vary; there are .*replicas.*options of .*window_s"),
        (("most=1",), "no input 'most' to vary"),
        (("pace.interval_s=1",), "no --policy pace; give it, too"),
        (("immediate.window_s=1",), "no input 'window_s' to vary.*options of immediate: none"),
        (("replicas=1", "replicas=2"), "--grid replicas is given twice"),
        (("stretch=fast",), "stretch must be a number, got 'fast'"),
    ],
)
def test_what_cannot_be_varied_is_one_clear_line(texts: tuple[str, ...], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        settings(*texts)


@pytest.mark.parametrize(
    "same",
    [
        {"settings": {"window_s": "10"}},
        {"settings": {"window_s": "10.0", "max_batch": "none"}},
        {"engine": {"max_num_seqs": "4"}},
        {"fleet": {"replicas": "1", "router": "least-loaded"}},
        {"fleet": {"router": "least-loaded"}},
        {"from_s": 0.0},
    ],
)
def test_cases_are_the_same_if_their_options_come_to_the_same(case: Case, same: dict[str, Any]) -> None:
    assert key(replace(case, **same)) == key(case)


@pytest.mark.parametrize(
    "change",
    [
        {"policy": "immediate"},
        {"settings": {"window_s": "9"}},
        {"engine": {"max_num_seqs": "3"}},
        {"fleet": {"replicas": "2"}},
        {"from_s": 1.0},
        {"to_s": 2.0},
        {"limit": 2},
        {"stretch": 2.0},
        {"length_prediction": "oracle"},
        {"seed": 1},
        {"limits": (Slo("ttft", None, 2.0),)},
    ],
)
def test_every_input_changes_the_key(case: Case, change: dict[str, Any]) -> None:
    assert key(replace(case, **change)) != key(case)


def test_other_bytes_in_a_file_change_the_key(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = (
        "from sim.policy import Decision\nclass Mine:\n    def decide(self, *_):\n        return Decision()\n"
    )
    Path("mine.py").write_text(mine)
    case = replace(case, policy="mine.py:Mine")
    keys = {key(case)}
    Path("mine.py").write_text(mine + "\n")
    keys.add(key(case))
    write_trace(toy_trace([0.0, 1.0, 2.5], 100, 10), TRACE, overwrite=True)
    keys.add(key(case))
    save_table(toy_table(engine={"max_num_seqs": 4}, idle_w=121.0), Path("table"))
    keys.add(key(case))
    monkeypatch.setattr(sim.sweep_key, "_code_sha256", lambda: "of other code")
    keys.add(key(case))
    assert len(keys) == 5


def test_a_file_that_an_option_names_changes_the_key(case: Case) -> None:
    Path("mine.py").write_text(
        "from dataclasses import dataclass\nfrom sim.policy import Decision\n\n"
        "@dataclass\nclass Mine:\n    file: str = ''\n\n"
        "    def decide(self, now_s, held, running):\n        return Decision(tuple(held))\n"
    )
    case = replace(case, policy="mine.py:Mine", settings={"file": "hours.csv"})
    without = key(case)
    Path("hours.csv").write_text("1\n")
    one = key(case)
    Path("hours.csv").write_text("22\n")
    assert len({without, one, key(case)}) == 3


def test_the_files_of_policies_in_a_row_change_the_key(case: Case) -> None:
    mine = "class Mine:\n    def decide(self, *_):\n        raise NotImplementedError\n"
    Path("mine.py").write_text(mine)
    case = replace(case, policy="batch-window+mine.py:Mine", settings={"batch-window.window_s": "3"})
    before = key(case)
    assert inputs_of(case)["policy.batch-window.window_s"] == 3.0
    Path("mine.py").write_text(mine + "\n")
    assert key(case) != before


def test_a_trace_that_has_changed_is_read_again(case: Case) -> None:
    assert evaluate(case).requests == 3
    write_trace(toy_trace([0.0, 1.0], 100, 10), TRACE, overwrite=True)
    assert evaluate(case).requests == 2


def test_a_result_comes_back_as_it_was(case: Case, tmp_path: Path) -> None:
    result = Result(inputs_of(case), evaluate(case))
    assert read_result(result.inputs, tmp_path) is None
    write_result(result, tmp_path)
    assert read_result(result.inputs, tmp_path) == result


def cut(text: str) -> str:
    return text[: len(text) // 2]


def without_a_field(text: str) -> str:
    values = json.loads(text)
    del values["summary"]["served"]
    return json.dumps(values)


def of_other_inputs(text: str) -> str:
    return text.replace('"seed": 0', '"seed": 1')


@pytest.mark.parametrize("damage", [cut, without_a_field, of_other_inputs, lambda _: "[]", lambda _: ""])
def test_a_damaged_result_is_refused(case: Case, tmp_path: Path, damage: Any) -> None:
    result = Result(inputs_of(case), VALID)
    write_result(result, tmp_path)
    path = path_of(result.inputs, tmp_path)
    path.write_text(damage(path.read_text()))
    with pytest.raises(ValueError, match=r"not a whole result|not the result of its inputs"):
        read_result(result.inputs, tmp_path)


coordinates = st.integers(0, 6).map(float)
points = st.lists(st.none() | st.tuples(coordinates, coordinates), max_size=12)


def dominates(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return one != other and one[0] <= other[0] and one[1] <= other[1]


@given(points)
def test_no_point_of_the_front_is_dominated_and_every_other_is(
    candidates: list[tuple[float, float] | None],
) -> None:
    known = [one for one in candidates if one is not None]
    for one, is_on_front in zip(candidates, front(candidates), strict=True):
        is_dominated = one is None or any(dominates(other, one) for other in known)
        assert is_on_front != is_dominated


def result_of(energy_j: float, latency_s: float, policy: str = "immediate", **changes: Any) -> Result:
    inputs = {"trace": "toy", "trace_sha256": "", "from_s": 0.0, "to_s": None, "limit": None, "stretch": 1.0}
    inputs |= {name: changes.pop(name) for name in [*changes] if name in inputs or "." in name}
    summary = replace(VALID, energy_j_per_request=energy_j, e2e_p99_s=latency_s, **changes)
    return Result({**inputs, "policy": policy, "length_prediction": "none"}, summary)


def test_a_run_that_broke_a_guard_is_last_and_never_on_the_front_nor_chosen() -> None:
    results = [result_of(1.0, 1.0, energy_valid=False), result_of(3.0, 2.0), result_of(2.0, 3.0)]
    (rows,) = rank(results, "e2e_p99", Slos()).values()
    assert [one.result for one in rows] == [results[2], results[1], results[0]]
    assert [one.on_front for one in rows] == [True, True, False]
    assert best(rows) is rows[0]
    assert best(rows[2:]) is None


def test_the_best_is_the_least_energy_that_keeps_every_slo() -> None:
    results = [result_of(energy_j, 10.0 / energy_j) for energy_j in (1.0, 2.0, 4.0)]
    (rows,) = rank(results, "e2e_p99", Slos((Slo("e2e", 99, 5.0),))).values()
    assert [one.violates for one in rows] == [("e2e_p99",), (), ()]
    assert best(rows) is rows[1]


def test_workloads_have_fronts_of_their_own() -> None:
    results = [result_of(1.0, 1.0), result_of(2.0, 2.0, stretch=0.5), result_of(3.0, 3.0, trace="other")]
    ranked = rank(results, "e2e_p99", Slos())
    assert {name: [one.on_front for one in rows] for name, rows in ranked.items()} == {
        "other stretch=1": [True],
        "toy stretch=0.5": [True],
        "toy stretch=1": [True],
    }


def test_a_result_is_named_by_its_policy_and_by_what_differs() -> None:
    changes: list[dict[str, Any]] = [
        {"policy": "a", "policy.x_s": 1.0, "policy.y": None, "engine.z": 1},
        {"policy": "a", "policy.x_s": 2.5, "policy.y": None, "engine.z": 1},
        {"policy": "b", "policy.x_s": 9.0, "engine.z": 1},
    ]
    results = [result_of(1.0 + place, 1.0, **change) for place, change in enumerate(changes)]
    (rows,) = rank(results, "e2e_p99", Slos()).values()
    assert [one.name for one in rows] == ["a x_s=1", "a x_s=2.5", "b"]


def test_runs_that_differ_by_a_rounding_are_both_on_the_front() -> None:
    one, other = (replace(VALID, energy_j_per_request=value, e2e_p99_s=1.0) for value in (0.3, 0.1 + 0.2))
    assert front([point(one, "e2e_p99"), point(other, "e2e_p99")]) == [True, True]


def test_an_slo_is_a_limit_in_seconds_on_a_percentile() -> None:
    slos = parse_sweep_slos(["TTFT-p99=2"])
    assert slos == parse_sweep_slos(["ttft_p99_s=2.0"]) == Slos((Slo("ttft", 99, 2.0),))
    assert slos.violated(replace(VALID, ttft_p99_s=2.0)) == ()
    assert slos.violated(replace(VALID, ttft_p99_s=2.1)) == ("ttft_p99",)
    assert slos.violated(replace(VALID, ttft_p99_s=None)) == ("ttft_p99",)


def test_limits_of_each_request_are_kept_by_the_part_asked_for() -> None:
    run = replace(VALID, attainment_fraction=0.99)
    limits = ["ttft=2", "tpot=0.05", "e2e_p99=9"]
    assert parse_sweep_slos(limits).violated(run) == ("attainment",)
    assert parse_sweep_slos(limits, 0.99).violated(run) == ()
    assert parse_sweep_slos(limits, 0.991).excesses(run)["attainment"] == pytest.approx(0.001 / 0.991)
    assert (
        parse_sweep_slos(limits, 0.99).words == "E2E p99 ≤ 9 s, 99 % of requests TTFT ≤ 2 s and TPOT ≤ 0.05 s"
    )
    assert [slo.name for slo in parse_sweep_slos(limits).of_requests] == ["ttft", "tpot"]


def test_requests_of_one_token_keep_every_limit_on_tpot() -> None:
    assert parse_sweep_slos(["tpot_p99=0.01"]).violated(replace(VALID, tpot_p99_s=None)) == ()


@pytest.mark.parametrize("text", ["energy=1", "ttft_p99", "ttft_p99=0", "ttft_p99=nan", "ttft_p99=x", "=1"])
def test_what_is_no_slo_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=f"--slo takes LATENCY=SECONDS, such as .*, got '{text}'"):
        parse_sweep_slos([text])


@pytest.mark.parametrize(
    ("texts", "attainment", "words"),
    [
        (["ttft_p95=1"], None, "knows p50, p90 and p99; give one of them, or ttft=S with --attainment 0.95"),
        (["ttft=1", "ttft=2"], None, "--slo ttft is given twice; give the smaller limit"),
        (["ttft=1"], 0.0, "--attainment must be above 0 and at most 1, got 0.0"),
        (["ttft=1"], 99.0, "--attainment must be above 0 and at most 1, got 99.0"),
        (["ttft_p99=1"], 0.9, "--attainment is of limits of each request: give one, like --slo ttft=2, too"),
    ],
)
def test_limits_that_a_sweep_cannot_judge_are_refused(
    texts: list[str], attainment: float | None, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        parse_sweep_slos(texts, attainment)
