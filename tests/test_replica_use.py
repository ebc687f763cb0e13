"""What each replica did: seconds and joules by state, in the record and in what is printed."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from test_fleet import OPTIONS, POLICIES, replayed
from toy_run import toy_run
from toy_table import toy_table
from toy_trace import toy_trace, traces

from replay.main import main
from replay.screen import plain
from replay.summary_text import summary_view
from sim.guards import check
from sim.immediate import Immediate
from sim.replica_group import ReplicaGroup, sum_of
from sim.router_registry import ROUTERS
from sim.summary import summarize
from sim.table_files import save_table
from traces.parquet import write_trace
from traces.record import Run
from traces.record_files import read_run, write_run
from traces.trace import Trace


def assert_replicas_sum_to_the_run(run: Run) -> None:
    assert run.meta.energy is not None
    assert sum(one.total_j for one in run.meta.replicas) == pytest.approx(run.total_energy_j, rel=1e-12)
    assert sum(one.requests for one in run.meta.replicas) == len(run.outcomes)
    for one in run.meta.replicas:
        assert one.total_s == pytest.approx(run.meta.makespan_s, rel=1e-12)


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("router", ROUTERS)
@settings(deadline=None, max_examples=10)
@given(trace=traces(), replicas=st.integers(1, 4))
def test_replicas_sum_to_the_totals(name: str, router: str, trace: Trace, replicas: int) -> None:
    run = replayed(trace, POLICIES[name](), replicas, router)
    assert len(run.meta.replicas) == replicas
    assert_replicas_sum_to_the_run(run)
    assert run.meta.energy is not None
    busy_j = run.meta.energy.prefill_j + run.meta.energy.decode_j
    assert sum(one.busy_j for one in run.meta.replicas) == pytest.approx(busy_j, rel=1e-12)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_idle_replicas_are_idle_throughout_and_cost_exactly_the_same(count: int) -> None:
    group = ReplicaGroup(range(count), count, OPTIONS, toy_table(), 0.1)
    total = sum_of(group.close(12.34))
    (use,) = set(total.uses)
    assert (use.busy_s, use.busy_j, use.idle_s) == (0.0, 0.0, 12.34)
    assert total.split.total_j == count * use.total_j


def test_a_request_alone_keeps_the_gpu_busy_for_its_steps() -> None:
    table = toy_table(idle_w=100.0)
    run = replayed(toy_trace([5.0], 100, 50), Immediate(), 2)
    served, unused = run.meta.replicas
    assert unused.busy_s == 0.0
    assert unused.idle_s == run.meta.makespan_s
    assert served.idle_s > 5.0
    assert served.busy_s >= 49 * table.coefficients.linear_s[0]
    assert served.busy_s + served.idle_s == pytest.approx(run.meta.makespan_s, rel=1e-15)


def test_the_record_keeps_what_each_replica_did(tmp_path: Path) -> None:
    run = replayed(toy_trace([0.0, 1.0, 2.0]), Immediate(), 2)
    write_run(run, tmp_path / "run")
    assert read_run(tmp_path / "run").meta.replicas == run.meta.replicas


def test_a_guard_sees_replicas_that_do_not_sum_to_the_counter() -> None:
    run = replayed(toy_trace([0.0, 1.0, 2.0]), Immediate(), 2)
    first, second = run.meta.replicas
    wrong = (first, replace(second, idle_j=second.idle_j + 1))
    (reason,) = check(replace(run, meta=replace(run.meta, replicas=wrong)))
    assert reason.startswith("guard 7: the replicas took")


def test_several_replicas_are_printed_one_a_line_and_one_is_not(tmp_path: Path) -> None:
    save_table(toy_table(), tmp_path)
    write_trace(toy_trace([0.0, 1.0, 2.0]), tmp_path / "toy.parquet")
    given = [str(tmp_path / "toy.parquet"), "--table", str(tmp_path / "table.json")]

    def printed(*more: str) -> str:
        result = CliRunner().invoke(main, [*given, *more])
        assert result.exit_code == 0, result.output
        return result.stdout

    several = printed("--replicas", "3", "--out", str(tmp_path / "several"))
    heads = [line.split()[:4] for line in several.splitlines()]
    start = heads.index(["replica", "requests", "energy", "busy"])
    assert [line[:2] for line in heads[start + 1 : start + 4]] == [["0", "1"], ["1", "1"], ["2", "1"]]
    assert "replica  " not in printed("--out", str(tmp_path / "one"))
    found = json.loads(printed("--replicas", "3", "--json", "--out", str(tmp_path / "json")))
    kept = read_run(tmp_path / "json").meta.replicas
    assert [one["busy_j"] + one["idle_j"] for one in found["replicas"]] == [one.total_j for one in kept]


def test_many_replicas_are_told_in_short() -> None:
    (use,) = replayed(toy_trace([0.0]), Immediate(), 1).meta.replicas
    run = toy_run(replicas=(use,) * 20)
    text = plain(summary_view(run.meta, summarize(run), run.power, Path("here")))
    assert "\n15 " in text
    assert "\n16 " not in text
    assert "4 more are in run.json" in text
