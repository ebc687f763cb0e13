"""Errors of a measured run's steps: none by the numbers behind them, and the host's told from the GPU's."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from invented_calibration import COEFFICIENTS, HOST, calibration
from toy_table import TOY_TABLE

from replay.comparison_text import comparison_markdown
from replay.step_errors import logged_energy_j, replayed_logs, step_errors
from sim.compare import STEP_KINDS, Comparison, LoggedEnergy, StepErrors
from sim.host_time import HostTime
from sim.step_cost import Coefficients
from sim.table import CostTable

TABLE = replace(TOY_TABLE, coefficients=COEFFICIENTS, host=HOST)


def errors(record: Path, c: Coefficients = COEFFICIENTS, h: HostTime = HOST) -> dict[str, StepErrors]:
    """Return the errors by TABLE of a run of prompts beside a batch, measured as these numbers say."""
    (run,) = (raw for raw in calibration(c, h) if raw.point.kind == "scan" and raw.point.batch)
    pd.DataFrame(run.steps).to_parquet(record / "steps.parquet")
    return {found.kind: found for found in step_errors(replayed_logs(record, [TABLE]))}


def test_by_the_numbers_behind_them_no_step_is_off(tmp_path: Path) -> None:
    found = errors(tmp_path)
    assert set(found) == set(STEP_KINDS)
    for kind in found.values():
        assert kind.error_fraction == pytest.approx(0.0, abs=1e-9)
    assert found["prompts"].steps == 40
    assert found["launch"].steps == 40


def test_a_host_that_launches_slower_shows_in_the_launches_alone(tmp_path: Path) -> None:
    slower = HOST._replace(piecewise_s=1.25 * HOST.piecewise_s, eager_s=1.25 * HOST.eager_s)
    found = errors(tmp_path, h=slower)
    assert -0.25 < found["launch"].error_fraction < -0.1
    assert found["decode"].error_fraction == pytest.approx(0.0, abs=1e-9)


def test_a_gpu_that_decodes_quicker_shows_in_the_steps_that_only_decode(tmp_path: Path) -> None:
    quicker = COEFFICIENTS._replace(linear_s=0.9 * COEFFICIENTS.linear_s)
    found = errors(tmp_path, c=quicker)
    assert 0.05 < found["decode"].error_fraction < 0.12


def test_replicas_are_told_apart(tmp_path: Path) -> None:
    runs = [raw for raw in calibration(COEFFICIENTS, HOST) if raw.point.kind == "scan"]
    logs = [pd.DataFrame(raw.steps).assign(replica=number) for number, raw in enumerate(runs)]
    pd.concat(logs).sort_values("done_s").to_parquet(tmp_path / "steps.parquet")
    found = step_errors(replayed_logs(tmp_path, [TABLE]))
    assert {kind.kind for kind in found} == set(STEP_KINDS)
    for kind in found:
        assert kind.error_fraction == pytest.approx(0.0, abs=1e-9)


def test_each_replica_may_have_a_table_of_its_own(tmp_path: Path) -> None:
    slower = COEFFICIENTS._replace(linear_s=1.1 * COEFFICIENTS.linear_s)
    tables = [replace(TABLE, coefficients=c) for c in (COEFFICIENTS, slower)]
    each_j: list[float | None] = []
    logs = []
    for number, table in enumerate(tables):
        raw = next(raw for raw in calibration(table.coefficients, HOST) if raw.point.kind == "decode")
        logs.append(pd.DataFrame(raw.steps).assign(replica=number))
        logs[-1].assign(replica=0).to_parquet(tmp_path / "steps.parquet")
        each_j.append(logged_energy_j(replayed_logs(tmp_path, [table]), 10.0))
    pd.concat(logs).sort_values("done_s").to_parquet(tmp_path / "steps.parquet")
    (own,), (by_first,) = (step_errors(replayed_logs(tmp_path, given)) for given in (tables, tables[:1]))
    assert own.error_fraction == pytest.approx(0.0, abs=1e-9)
    assert by_first.error_fraction < -0.01
    assert logged_energy_j(replayed_logs(tmp_path, tables), 10.0, replicas=2) == pytest.approx(
        sum(filter(None, each_j))
    )


def logged(
    record: Path,
    kind: str,
    c: Coefficients = COEFFICIENTS,
    h: HostTime = HOST,
    table: CostTable = TABLE,
) -> float:
    """Return by how much the energy of a run as logged is off by `table`; the run idles before and after."""
    raw = next(raw for raw in calibration(c, h) if raw.point.kind == kind)
    (zero_s, zero_j), (end_s, end_j) = raw.counter[0], raw.counter[-1]
    steps = pd.DataFrame(raw.steps)
    steps[["scheduled_s", "done_s"]] -= zero_s
    steps.to_parquet(record / "steps.parquet")
    by_table_j = logged_energy_j(replayed_logs(record, [table]), end_s - zero_s)
    assert by_table_j is not None
    return float(by_table_j / (end_j - zero_j) - 1)


@pytest.mark.parametrize("kind", ["decode", "mixed", "scan", "trickle"])
def test_by_the_numbers_behind_it_the_energy_as_logged_is_the_measured_one(kind: str, tmp_path: Path) -> None:
    assert logged(tmp_path, kind) == pytest.approx(0.0, abs=1e-4)


@pytest.mark.parametrize("process_s", [0.007, 0.008, 0.012])
def test_a_host_at_another_pace_is_in_the_energy_as_logged(process_s: float, tmp_path: Path) -> None:
    held_up = replace(TABLE, host=HOST._replace(process_s=0.008))
    off = logged(tmp_path, "decode", h=HOST._replace(process_s=process_s), table=held_up)
    assert off == pytest.approx(0.0, abs=2e-3)


def test_a_gpu_that_draws_more_is_off_in_the_energy_as_logged(tmp_path: Path) -> None:
    more = COEFFICIENTS._replace(linear_j=1.2 * COEFFICIENTS.linear_j)
    assert logged(tmp_path, "decode", c=more) < -0.01


def test_a_record_without_steps_has_no_errors_of_steps(tmp_path: Path) -> None:
    assert step_errors(replayed_logs(tmp_path, [TABLE])) == ()
    assert logged_energy_j(replayed_logs(tmp_path, [TABLE]), 1.0) is None


def test_the_energy_as_logged_needs_the_steps_of_each_replica(tmp_path: Path) -> None:
    logged(tmp_path, "decode")
    assert logged_energy_j(replayed_logs(tmp_path, [TABLE]), 10.0, replicas=2) is None


def test_a_comparison_tells_them() -> None:
    told = Comparison(
        kind="measured",
        trace_name="toy",
        policy="immediate",
        table="toy",
        gpu=None,
        requests=1,
        measured_runs=1,
        rows=(),
        interval_j=None,
        curve=None,
        latencies=(),
        differences=(),
        invalid=(),
        steps=(StepErrors("decode", 1234, 0.0041, 0.004),),
        logged=LoggedEnergy(990.0, 1000.0),
    )
    lines = comparison_markdown(told).splitlines()
    assert "- steps that only decode: 4.100 ms by the table, 4.000 ms measured, +2.50 % (1,234)" in lines
    assert "- energy of the steps as logged: 990.0 J by the table, 1.000 kJ measured, -1.00 %" in lines
