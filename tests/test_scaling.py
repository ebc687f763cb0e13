"""Replicas that sleep: who is awake when, what that costs, and who waits."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_fleet import OPTIONS, POLICIES, assert_same_results, replica_of
from test_replica_use import assert_replicas_sum_to_the_run
from toy_table import toy_table
from toy_trace import toy_trace, traces

from sim.guards import check
from sim.immediate import Immediate
from sim.options import FleetOptions
from sim.policy import Policy
from sim.scaling import SCALINGS, make_scaling
from sim.settings import full_name
from sim.simulate import simulate
from sim.table import PowerState
from sim.table_files import table_from_json, table_to_json
from traces.record import Run
from traces.trace import PrefixBlocks, Trace

PAGE = (Path(__file__).parents[1] / "docs" / "fleet.md").read_text()
STATES = {
    "sleep-1": PowerState(90.0, 1.0, 150.0, 0.5, 100.0),
    "off": PowerState(70.0, 2.0, 300.0, 30.0, 9000.0),
}
TABLE = toy_table(states=STATES)
CHANGES = st.dictionaries(st.integers(1, 100), st.integers(1, 4), max_size=6).map(
    lambda changes: list(changes.items())
)
SLEEPY = "reactive:least=0:idle_s=10:up=2:state=sleep-1"


def replayed(
    trace: Trace,
    scaling: str,
    replicas: int = 2,
    router: str = "round-robin",
    policy: Policy | None = None,
) -> Run:
    fleet = FleetOptions(replicas, router, scaling)
    return simulate(trace, policy or Immediate(), OPTIONS, TABLE, fleet=fleet)


def schedule(folder: Path, *rows: tuple[float, int]) -> str:
    lines = [f"{at_s},{replicas}" for at_s, replicas in rows]
    (folder / "plan.csv").write_text("\n".join(["time_s,replicas", *lines, ""]))
    return f"schedule:file={folder / 'plan.csv'}"


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("router", ["round-robin", "pack:most=3", "length-split:edges=100"])
@settings(deadline=None, max_examples=15)
@given(trace=traces(), replicas=st.integers(1, 4), least=st.integers(0, 2), up=st.integers(1, 5))
def test_nothing_is_lost_and_nothing_counted_twice(
    name: str, router: str, trace: Trace, replicas: int, least: int, up: int
) -> None:
    scaling = f"reactive:least={least}:up={up}:idle_s=1:state=sleep-1"
    run = replayed(trace, scaling, replicas, router, POLICIES[name]())
    assert check(run) == ()
    assert_replicas_sum_to_the_run(run)
    assert run.meta.energy is not None
    away_j = sum(one.total_j - one.busy_j for one in run.meta.replicas)
    assert run.meta.energy.idle_j == pytest.approx(away_j, rel=1e-12)


@settings(deadline=None, max_examples=25)
@given(trace=traces(), changes=CHANGES)
def test_a_schedule_keeps_the_laws_too(
    tmp_path_factory: pytest.TempPathFactory, trace: Trace, changes: list[tuple[int, int]]
) -> None:
    plan = schedule(tmp_path_factory.mktemp("plan"), (0, 1), *sorted(changes))
    run = replayed(trace, plan, 4)
    assert check(run) == ()
    assert_replicas_sum_to_the_run(run)
    starts = np.array([0, *(at_s for at_s, _ in sorted(changes))])
    wanted = np.array([1, *(count for _, count in sorted(changes))])
    for replica, at_s in zip(replica_of(run), run.outcomes.released_s, strict=True):
        assert replica < wanted[np.searchsorted(starts, at_s, side="right") - 1]


@settings(deadline=None, max_examples=20)
@given(trace=traces(), replicas=st.integers(2, 4))
def test_replicas_that_never_sleep_are_a_fixed_fleet_bit_for_bit(trace: Trace, replicas: int) -> None:
    for router in ("least-loaded", "pack:most=2"):
        fixed = replayed(trace, "fixed", replicas, router)
        assert_same_results(fixed, replayed(trace, f"reactive:least={replicas}", replicas, router))


def test_a_replica_sleeps_when_its_time_has_come_and_a_request_waits_for_it() -> None:
    run = replayed(toy_trace([50.0, 200.0], 16, 1), SLEEPY, 1)
    (one,), o = run.meta.replicas, run.outcomes
    always = replayed(toy_trace([50.0, 200.0], 16, 1), "fixed", 1).outcomes
    served_s = float(always.finished_s[1]) - 200.0
    # The request reaches an engine that comes up: what the way to it takes is over by then.
    assert o.finished_s[0] - 50.0 == pytest.approx(served_s + 0.5 - TABLE.host.submit_s)
    assert one.asleep_s == pytest.approx(50.0 + 200.0 - (o.finished_s[0] + 10.0) - 1.0)
    assert one.asleep_j == pytest.approx(90.0 * one.asleep_s)
    assert one.switching_s == pytest.approx(1.0 + 2 * 0.5)
    assert one.switching_j == pytest.approx(150.0 + 2 * 100.0)
    assert one.off_s == one.off_j == 0.0
    assert one.total_s == pytest.approx(run.meta.makespan_s, rel=1e-12)


def test_one_woken_on_its_way_down_comes_up_once_it_is_down() -> None:
    scaling = "reactive:least=0:idle_s=10:state=off"
    first = float(replayed(toy_trace([0.0], 16, 1), scaling, 1).outcomes.finished_s[0])
    run = replayed(toy_trace([0.0, first + 10.25], 16, 1), scaling, 1)
    (one,) = run.meta.replicas
    assert first > 30.0
    assert one.off_s == pytest.approx(0.0, abs=1e-9)
    assert one.switching_s == pytest.approx(30.0 + 2.0 + 30.0)
    assert run.outcomes.first_token_s[1] > first + 10.0 + 2.0 + 30.0


def test_a_schedule_counts_each_transition_once(tmp_path: Path) -> None:
    run = replayed(toy_trace([0.0, 100.0], 16, 1), schedule(tmp_path, (0, 1), (20, 3), (60, 1)), 3)
    first, *others = run.meta.replicas
    assert (first.off_s, first.switching_s) == (0.0, 0.0)
    for one in others:
        assert one.requests == 0
        assert one.switching_s == pytest.approx(30.0 + 2.0)
        assert one.switching_j == pytest.approx(9000.0 + 300.0)
        assert one.idle_s == pytest.approx(10.0)
        assert one.idle_j == pytest.approx(1200.0)
        assert one.off_s == pytest.approx(20.0 + run.meta.makespan_s - 62.0)
        assert one.off_j == pytest.approx(70.0 * one.off_s)
    watts = np.diff(run.power.energy_j) / np.diff(run.power.time_s)
    at_s = run.power.time_s[1:]
    assert watts[(at_s > 1) & (at_s < 20)] == pytest.approx(120 + 2 * 70)
    assert watts[(at_s > 20.2) & (at_s < 50)] == pytest.approx(120 + 2 * 300)
    assert watts[(at_s > 50.2) & (at_s < 60)] == pytest.approx(3 * 120)


def test_a_transition_that_the_end_cuts_counts_as_far_as_it_went(tmp_path: Path) -> None:
    run = replayed(toy_trace([0.0, 30.0], 16, 1), schedule(tmp_path, (0, 1), (20, 2)), 2)
    _, one = run.meta.replicas
    assert one.switching_s == pytest.approx(run.meta.makespan_s - 20.0)
    assert one.switching_j == pytest.approx(9000.0 / 30.0 * one.switching_s)
    assert check(run) == ()


def test_a_burst_wakes_as_many_as_it_needs_and_no_more_than_allowed() -> None:
    def woken(scaling: str) -> int:
        run = replayed(toy_trace([0.0] * 12, 16, 20), scaling, 8, "least-loaded")
        return sum(one.switching_s > 0 for one in run.meta.replicas)

    assert woken("reactive:least=0:up=3:state=sleep-1") == 4
    assert woken("reactive:least=0:up=3:most=2:state=sleep-1") == 2
    assert woken("reactive:least=8:up=3:state=sleep-1") == 0


def test_requests_go_to_who_is_up_and_wait_only_if_nobody_is() -> None:
    trace = toy_trace([0.0, 0.0, 0.0, 0.0, 60.0], 16, [2000, 2, 2, 2, 2])
    trace = replace(trace, output_tokens=np.array([900, 2, 2, 2, 2], np.int32))
    run = replayed(trace, "reactive:least=1:up=1:state=off:idle_s=500", 2, "least-loaded")
    assert replica_of(run).tolist() == [0, 0, 0, 0, 1 if run.outcomes.finished_s[0] > 60 else 0]


def test_a_sleep_empties_the_prefix_cache() -> None:
    blocks = PrefixBlocks(np.tile(np.arange(4), 2), np.array([0, 4, 8]), 16)
    trace = replace(toy_trace([0.0, 100.0], 70, 2), prefix=blocks)
    slept = replayed(trace, SLEEPY, 1).outcomes.energy_j
    awake = replayed(trace, "fixed", 1).outcomes.energy_j
    assert awake[1] < awake[0]
    assert slept[1] == pytest.approx(slept[0])


def test_a_table_without_the_state_is_refused_in_one_line() -> None:
    fleet = FleetOptions(2, scaling="reactive:state=sleep-2")
    with pytest.raises(
        ValueError, match=r"table toy has no power state sleep-2 \(it has sleep-1, off\)"
    ) as error:
        simulate(toy_trace([0.0]), Immediate(), OPTIONS, TABLE, fleet=fleet)
    assert "\n" not in str(error.value)


def test_the_record_tells_the_options_of_the_scaling() -> None:
    options = replayed(toy_trace([0.0]), SLEEPY, 1).meta.engine_options
    assert options["scaling"] == "reactive:least=0:most=none:up=2:idle_s=10:state=sleep-1"
    assert full_name(options["scaling"], make_scaling(options["scaling"])) == options["scaling"]


def test_the_full_name_of_a_scaling_keeps_all_digits() -> None:
    scaling = make_scaling("reactive:idle_s=1234.56789:state=off")
    assert make_scaling(full_name("reactive", scaling)) == scaling


def test_a_table_keeps_its_states_on_disk() -> None:
    assert table_from_json(table_to_json(TABLE)).states == STATES
    values = table_to_json(TABLE)
    values["states"]["off"]["leave_s"] = -1.0
    with pytest.raises(ValueError, match="state off: leave_s must be a finite number >= 0"):
        table_from_json(values)
    values["states"] = {"hibernation": values["states"]["off"]}
    with pytest.raises(ValueError, match="unknown state hibernation"):
        table_from_json(values)


@pytest.mark.parametrize(
    ("scaling", "message"),
    [
        ("elastic", "no scaling 'elastic'; there are fixed, reactive, schedule"),
        ("reactive:least=-1", "scaling reactive: least must be >= 0, got -1"),
        ("reactive:up=0", "scaling reactive: up must be > 0, got 0.0"),
        ("reactive:most=0:least=0", "scaling reactive: most must be >= 1, got 0"),
        ("reactive:state=nap", "scaling reactive: state must be one of sleep-1, sleep-2, off, got 'nap'"),
        ("schedule", "scaling schedule lacks an option among file"),
    ],
)
def test_what_a_scaling_cannot_be_told_is_refused(scaling: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        FleetOptions(2, scaling=scaling)


NO_SCHEDULES = {
    "": "no column 'time_s'; it has none",
    "a,b\n0,1\n": "no column 'time_s'; it has a, b",
    "time_s,replicas\n": "no rows",
    "time_s,replicas\n1,2\n1,3\n": "times must ascend, got 1 s after 1 s",
    "time_s,replicas\n0,0\n": "replicas must be whole numbers of at least 1, got 0",
    "time_s,replicas\n0,1\n5,1.5\n": "replicas must be whole numbers of at least 1, got 1.5",
    "time_s,replicas\n0,many\n": "line 2: replicas must be a finite number, got 'many'",
}


@pytest.mark.parametrize(("text", "message"), NO_SCHEDULES.items())
def test_a_file_that_is_no_schedule_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "plan.csv").write_text(text)
    with pytest.raises(ValueError, match=rf"plan\.csv: {re.escape(message)}"):
        make_scaling(f"schedule:file={tmp_path / 'plan.csv'}")


def test_the_first_number_of_a_schedule_holds_before_its_time(tmp_path: Path) -> None:
    trace = toy_trace([0.0, 5.0, 30.0], 16, 1)
    late, at_once = (replayed(trace, schedule(tmp_path, *rows), 3) for rows in (((10, 2),), ((0, 2),)))
    assert late.meta.replicas == at_once.meta.replicas


@pytest.mark.parametrize("name", SCALINGS)
def test_every_scaling_and_its_options_are_on_the_page(name: str, tmp_path: Path) -> None:
    (row,) = re.findall(rf"^\| `{name}` \| (.*?) \|", PAGE, re.MULTILINE)
    text = name if name == "reactive" else schedule(tmp_path, (0, 1))
    for pair in full_name(text, make_scaling(text)).split(":")[1:]:
        assert f"`{pair}`" in row or f"`{pair.split('=')[0]}=FILE`" in row
