"""Carbon and price of a run's energy, at constants and over time."""

import json
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from toy_run import toy_run
from toy_table import toy_table
from toy_trace import toy_trace

from replay.main import main
from replay.report_table import summary_lines
from sim.footprint import INTENSITY, PRICE, Rates, footprint_of, read_rate
from sim.report_runs import read_reported
from sim.series import Series
from sim.summary import summarize
from sim.table_files import save_table
from traces.parquet import write_trace
from traces.record import Footprint, Power
from traces.record_files import read_run, write_run


def power(*points: tuple[float, float]) -> Power:
    time_s, energy_j = np.array(points).T
    return Power(time_s, energy_j)


def test_a_value_counts_for_the_energy_drawn_while_it_holds() -> None:
    curve = power((0, 0), (10, 1000), (20, 1000), (30, 4000))
    series = Series(np.array([0.0, 5.0, 25.0]), np.array([100.0, 200.0, 600.0]))
    joules = (500, 500 + 1500, 1500)
    assert series.mean_over(curve) == pytest.approx((100 * 500 + 200 * 2000 + 600 * 1500) / sum(joules))


def test_a_series_begins_again_after_its_period() -> None:
    curve = power((0, 0), (30, 3000))
    series = Series(np.array([0.0, 4.0]), np.array([10.0, 20.0]), period_s=10.0)
    assert series.mean_over(curve) == pytest.approx(0.4 * 10 + 0.6 * 20)


def test_the_first_value_holds_before_its_time_also_in_later_periods() -> None:
    curve = power((0, 0), (20, 2000))
    series = Series(np.array([3.0, 5.0]), np.array([10.0, 30.0]), period_s=10.0)
    assert series.mean_over(curve) == pytest.approx(0.5 * 10 + 0.5 * 30)


@given(
    st.floats(0, 1e4),
    st.lists(st.floats(0.01, 50), min_size=1, max_size=8),
    st.lists(st.floats(0, 1000), min_size=2, max_size=20),
    st.booleans(),
)
def test_equal_values_are_as_a_constant(
    value: float, gaps_s: list[float], joules: list[float], repeats: bool
) -> None:
    energy_j = np.cumsum([0.0, 1.0, *joules])
    time_s = np.cumsum(gaps_s)
    period_s = float(time_s[-1]) + 1 if repeats else None
    series = Series(time_s, np.full(len(gaps_s), value), period_s)
    curve = Power(np.arange(len(energy_j), dtype=np.float64) * 7, energy_j)
    assert series.mean_over(curve) == pytest.approx(value, rel=1e-12)


@given(st.floats(0.5, 40), st.lists(st.floats(1, 1000), min_size=3, max_size=3))
def test_a_mean_lies_between_the_values_and_more_of_the_dear_hours_raises_it(
    change_s: float, joules: list[float]
) -> None:
    curve = power((0, 0), *zip([10, 25, 45], np.cumsum(joules).tolist(), strict=True))
    mean = Series(np.array([0.0, change_s]), np.array([100.0, 300.0])).mean_over(curve)
    earlier = Series(np.array([0.0, change_s / 2]), np.array([100.0, 300.0])).mean_over(curve)
    assert mean is not None
    assert earlier is not None
    assert 100 <= mean < earlier <= 300


def test_a_footprint_is_energy_times_pue_times_rate() -> None:
    run = toy_run()
    rates = Rates(read_rate("360", INTENSITY), read_rate("0.5", PRICE), currency="EUR", pue=1.5)
    footprint = footprint_of(run.meta, run.power, rates)
    assert footprint is not None
    assert footprint.carbon_g == pytest.approx(2400 / 3.6e6 * 1.5 * 360)
    assert footprint.price == pytest.approx(2400 / 3.6e6 * 1.5 * 0.5)
    assert (footprint.currency, footprint.pue) == ("EUR", 1.5)
    assert footprint.grid_intensity == {"g_per_kwh": 360.0}
    assert footprint.tariff == {"price_per_kwh": 0.5}


def test_a_measured_run_goes_by_its_counter_and_one_without_has_no_footprint() -> None:
    rates = Rates(intensity=read_rate("360", INTENSITY))
    measured = toy_run(kind="measured", energy=None, energy_source="nvml")
    footprint = footprint_of(measured.meta, measured.power, rates)
    assert footprint is not None
    assert footprint.carbon_g == pytest.approx(0.24)
    assert footprint.price is None
    unmetered = toy_run(energy=None, energy_source="none", counter_s=[], counter_j=[])
    nothing = footprint_of(unmetered.meta, unmetered.power, rates)
    assert nothing is not None
    assert nothing.carbon_g is None


def test_nothing_asked_is_nothing_told() -> None:
    run = toy_run()
    assert footprint_of(run.meta, run.power, Rates()) is None
    summary = summarize(run)
    assert (summary.carbon_g, summary.price, summary.currency) == (None, None, None)


def test_a_report_shows_carbon_where_a_run_has_it(tmp_path: Path) -> None:
    run = toy_run()
    footprint = Footprint(1.5, None, None, 1.0, {"g_per_kwh": 5.0}, None)
    write_run(replace(run, meta=replace(run.meta, footprint=footprint)), tmp_path / "with")
    write_run(run, tmp_path / "without")
    both = read_reported([tmp_path / "with", tmp_path / "without"])
    (line,) = [one for one in summary_lines(both, ()) if one.label == "carbon"]
    assert [cell.text for cell in line.cells] == ["1.500 g", "-"]
    assert "carbon" not in [one.label for one in summary_lines(both[1:], ())]


@pytest.mark.parametrize("footprint", [None, Footprint(1.5, None, None, 1.0, {"g_per_kwh": 5.0}, None)])
def test_a_record_keeps_its_footprint(footprint: Footprint | None, tmp_path: Path) -> None:
    run = toy_run()
    write_run(replace(run, meta=replace(run.meta, footprint=footprint)), tmp_path / "run")
    assert read_run(tmp_path / "run").meta.footprint == footprint


def test_a_record_of_before_is_read(tmp_path: Path) -> None:
    write_run(toy_run(), tmp_path / "run")
    path = tmp_path / "run" / "run.json"
    facts = json.loads(path.read_text())
    del facts["footprint"]
    path.write_text(json.dumps(facts))
    assert read_run(tmp_path / "run").meta.footprint is None


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The current folder, with a trace, a table and a file of rates."""
    monkeypatch.chdir(tmp_path)
    write_trace(toy_trace([0.3 * row for row in range(20)], 100, 10), Path("toy.parquet"))
    Path("table").mkdir()
    save_table(toy_table(), Path("table"))
    Path("rates.csv").write_text("time_s,g_per_kwh,price_per_kwh\n0,100,-0.1\n3,400,0.3\n")


def invoke(*arguments: str) -> Result:
    command = ["run", "toy.parquet", "--table", "table", "--out", "out", *arguments]
    return CliRunner().invoke(main, command, prog_name="replay")


def told(*arguments: str) -> dict[str, Any]:
    result = invoke(*arguments, "--json")
    assert result.exit_code == 0, result.output
    values: dict[str, Any] = json.loads(result.stdout)
    return values


def test_the_command_tells_carbon_and_price_and_records_what_was_given() -> None:
    summary = told("--grid-intensity", "rates.csv", "--price", "0.25", "--currency", "EUR", "--pue", "1.2")
    kwh = 1.2 * summary["total_energy_j"] / 3.6e6
    assert 100 * kwh < summary["carbon_g"] < 400 * kwh
    assert summary["price"] == pytest.approx(0.25 * kwh)
    assert summary["currency"] == "EUR"
    footprint = read_run(Path("out")).meta.footprint
    assert footprint is not None
    digest = sha256(Path("rates.csv").read_bytes()).hexdigest()
    assert footprint.grid_intensity == {"file": "rates.csv", "sha256": digest, "period_s": None}
    assert footprint.tariff == {"price_per_kwh": 0.25}


def test_a_selection_leaves_the_series_at_time_0_of_the_replay_and_its_own_record() -> None:
    told("--price", "rates.csv:period_s=4", "--from-s", "3")
    meta = read_run(Path("out")).meta
    assert meta.trace_options == {"from_s": 3.0}
    assert meta.footprint is not None
    assert meta.footprint.tariff is not None
    assert meta.footprint.tariff["period_s"] == 4.0
    curve = read_run(Path("out")).power
    mean = Series(np.array([0.0, 3.0]), np.array([-0.1, 0.3]), 4.0).mean_over(curve)
    assert mean is not None
    assert meta.energy is not None
    assert meta.footprint.price == pytest.approx(meta.energy.total_j / 3.6e6 * mean)


def test_a_streamed_replay_tells_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    given = ("--grid-intensity", "rates.csv", "--price", "rates.csv", "--slo", "ttft=0.022", "--slo", "e2e=9")
    whole = told(*given)
    Path("out").rename("whole")
    monkeypatch.setattr("traces.long_trace.LONG_REQUESTS", 1)
    monkeypatch.setattr("sim.simulate.simulate_fleet", None)  # a replay that is not streamed fails
    streamed = told(*given)
    assert (streamed["carbon_g"], streamed["price"]) == pytest.approx((whole["carbon_g"], whole["price"]))
    for name in ("attainment_fraction", "goodput_rps"):
        assert streamed[name] == whole[name] > 0


def test_the_table_shows_them_and_nothing_of_them_unasked() -> None:
    text = invoke("--price", "0.25", "--grid-intensity", "100").stdout
    assert "carbon " in text
    assert "price " in text
    Path("out").rename("first")
    assert "price" not in invoke().stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--price", "cheap"), "price_per_kwh: 'cheap' is neither a number nor a file"),
        (("--price", "nan"), "price_per_kwh must be finite, got nan"),
        (("--grid-intensity", "-3"), "g_per_kwh must be >= 0, got -3"),
        (("--grid-intensity", "rates.csv:period_s=day"), "period_s must be a number of seconds, got 'day'"),
        (("--price", "1", "--pue", "0.9"), "pue must be >= 1 and finite, got 0.9"),
        (("--pue", "1.1"), "pue acts on carbon and price: give the grid's intensity or a price, too"),
        (("--currency", "EUR"), "a currency is of a price: give the price, too"),
        (("--slo", "ttft_p99=2"), "ttft_p99: goodput is of limits of each request; give ttft=SECONDS"),
    ],
)
def test_what_makes_no_sense_is_one_line_and_leaves_no_record(
    arguments: tuple[str, ...], message: str
) -> None:
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not Path("out").exists()
