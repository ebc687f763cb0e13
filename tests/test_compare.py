"""Comparing runs: errors and noise on runs whose numbers were made by hand."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from toy_run import toy_run

from replay.comparison_text import (
    comparison_json,
    comparison_markdown,
    comparison_view,
    overview_markdown,
)
from replay.main import main
from replay.screen import plain
from sim.compare import METRICS, compare
from sim.metrics import latency_s
from traces.record import SERVED, EnergySplit, Footprint, Run
from traces.record_files import write_run

WHOLE = {
    "status": [SERVED] * 4,
    "first_token_s": [1.0, 3.0, 2.5, 3.25],
    "finished_s": [3.0, 10.0, 4.5, 3.25],
    "output_tokens": [5, 8, 5, 1],
}


def simulated_run(**changes: object) -> Run:
    return toy_run(**{**WHOLE, **changes})


def measured_run(energy_j: float = 2400.0, **changes: object) -> Run:
    """Return a run that measured `energy_j`, evenly over its 10 s."""
    parts = EnergySplit(0.25 * energy_j, 0.5 * energy_j, 0.25 * energy_j)
    facts = {
        "kind": "measured",
        "table": None,
        "run_id": "measured-toy",
        "energy": parts,
        "energy_source": "nvml",
        "energy_j": [np.nan] * 4,
        "counter_s": [0.0, 5.0, 10.0],
        "counter_j": [0.0, energy_j / 2, energy_j],
    }
    return toy_run(**{**WHOLE, **facts, **changes})


def twin_run(table: str = "toy") -> Run:
    return measured_run(kind="twin", energy_source="twin", table=table)


def test_a_run_of_the_twin_is_not_called_measured() -> None:
    comparison = compare(simulated_run(), (twin_run(),))
    assert comparison.kind == "twin"
    overview = overview_markdown([("toy", comparison)])
    for text in (plain(comparison_view(comparison)), comparison_markdown(comparison), overview):
        assert "measured" not in text
        assert "twin" in text
    assert json.loads(comparison_json(comparison))["kind"] == "twin"


def test_a_run_against_its_like_has_no_error() -> None:
    comparison = compare(simulated_run(), (measured_run(),))
    total = comparison.row("total_energy_j")
    assert (total.simulated, total.measured, total.error_fraction) == (2400.0, 2400.0, 0.0)
    assert total.is_within_target
    assert total.noise_fraction is None
    assert [row.metric for row in comparison.rows] == list(METRICS)
    assert all(row.error_fraction == 0.0 for row in comparison.rows if row.metric.endswith("0_s"))
    assert comparison.curve is not None
    assert comparison.curve.deviation_j == 0.0


def test_errors_are_simulated_minus_measured_by_the_mean_of_the_measured() -> None:
    comparison = compare(simulated_run(), (measured_run(2000.0), measured_run(2200.0)))
    total, prefill = comparison.row("total_energy_j"), comparison.row("prefill_energy_j")
    assert total.measured == 2100.0
    assert total.error_fraction == pytest.approx(300 / 2100)
    assert total.noise_fraction == pytest.approx(200 / 2100)
    assert not total.is_within_target
    assert prefill.error_fraction == pytest.approx((500 - 525) / 525)
    assert prefill.is_within_target is None
    assert comparison.measured_runs == 2


def test_the_curve_tells_the_largest_deviation_and_when() -> None:
    comparison = compare(
        simulated_run(counter_s=[0.0, 4.0, 10.0], counter_j=[0.0, 1200.0, 2400.0]), (measured_run(),)
    )
    assert comparison.curve is not None
    assert comparison.curve.at_s == 4.0
    assert comparison.curve.deviation_j == pytest.approx(1200.0 - 960.0)
    assert comparison.curve.deviation_fraction == pytest.approx(0.1)


def test_requests_are_compared_one_by_one() -> None:
    slower = [1.25, 3.5, 2.625, 3.3125]  # TTFTs of 1, 2, 0.5 and 0.25 s become 25 % longer
    comparison = compare(
        simulated_run(first_token_s=slower, finished_s=[3.0, 10.0, 4.5, 3.3125]), (measured_run(),)
    )
    ttft, tpot, _ = comparison.latencies
    assert ttft.requests == 4
    assert ttft.p50_fraction == pytest.approx(0.25)
    assert ttft.absolute_p99_fraction == pytest.approx(0.25)
    assert tpot.requests == 3
    assert tpot.p50_fraction is not None
    assert tpot.p50_fraction < 0


def test_latency_is_nan_where_a_request_has_none() -> None:
    outcomes = toy_run().outcomes
    assert latency_s(outcomes, "ttft")[[0, 1, 3]].tolist() == [1.0, 2.0, 0.25]
    assert np.isnan(latency_s(outcomes, "e2e")[2])
    assert np.isnan(latency_s(outcomes, "tpot")[3])


def test_engine_options_that_differ_are_told() -> None:
    one = simulated_run(engine_options={"max_num_seqs": 128, "block_size": 16, "async_scheduling": True})
    other = measured_run(engine_options={"max_num_seqs": 256, "block_size": 16, "dtype": "bfloat16"})
    assert compare(one, (other,)).differences == ("max_num_seqs is 128 in simulation, 256 on the engine.",)


def test_gpus_that_differ_are_told() -> None:
    other = measured_run(gpu="Other GPU", gpus=2, power_limit_w=500.0)
    assert compare(simulated_run(), (other,)).differences == (
        "gpu is Toy GPU in simulation, Other GPU on the engine.",
        "gpus is 1 in simulation, 2 on the engine.",
        "power_limit_w is 700.0 in simulation, 500.0 on the engine.",
    )
    silent = measured_run(power_limit_w=None)
    assert compare(simulated_run(), (silent,)).differences == ()


def test_gpus_that_nobody_metered_do_not_differ() -> None:
    unmetered = measured_run(gpu=None, gpus=0, power_limit_w=None, idle_w=None)
    assert compare(simulated_run(), (unmetered,)).differences == ()


@pytest.mark.parametrize(
    ("simulated", "measured", "message"),
    [
        (simulated_run(), (), "needs a measured run"),
        (measured_run(), (measured_run(),), "the first run must be simulated"),
        (simulated_run(), (simulated_run(),), "all of the twin; `replay report` draws simulated ones"),
        (simulated_run(), (measured_run(), twin_run()), "must be all measured, or all of the twin"),
        (
            simulated_run(),
            (twin_run(table="other"),),
            "its twin took its times from table other",
        ),
        (simulated_run(arrival_s=[0.0, 1.0, 2.0, 2.9]), (measured_run(),), "different requests"),
        (simulated_run(prompt_tokens=[10, 20, 30, 41]), (measured_run(),), "different requests"),
        (simulated_run(policy_options={"window_s": 2.0}), (measured_run(),), "differ in the policy"),
    ],
)
def test_runs_that_do_not_fit_together_are_refused(
    simulated: Run, measured: tuple[Run, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        compare(simulated, measured, force=True)


def test_an_invalid_run_is_refused_unless_forced() -> None:
    broken = measured_run(energy_valid=False, invalid_reasons=("the meter died",))
    with pytest.raises(ValueError, match=r"measured-toy: the meter died; .* --force"):
        compare(simulated_run(), (broken,))
    assert compare(simulated_run(), (broken,), force=True).invalid == ("measured-toy: the meter died",)


def test_a_run_without_energy_keeps_its_latencies() -> None:
    unmetered = measured_run(energy=None, counter_s=[], counter_j=[], energy_valid=False)
    comparison = compare(simulated_run(), (unmetered,), force=True)
    assert comparison.row("total_energy_j").error_fraction is None
    assert comparison.row("ttft_p50_s").error_fraction == 0.0
    assert comparison.curve is None


@pytest.fixture
def records(tmp_path: Path) -> list[str]:
    """Folders of a simulated and two measured runs, the second of them 1 % apart."""
    runs = {"sim": simulated_run(), "one": measured_run(2310.0), "two": measured_run(2330.0)}
    for name, run in runs.items():
        write_run(run, tmp_path / name)
    return [str(tmp_path / name) for name in runs]


def test_the_command_prints_errors_and_noise(records: list[str]) -> None:
    result = CliRunner().invoke(main, ["compare", *records])
    assert result.exit_code == 0, result.output
    (energy,) = [line for line in result.stdout.splitlines() if line.startswith("energy  ")]
    words = ["energy", "2.400", "kJ", "2.320", "kJ", "+3.45", "%", "0.86", "%", "beyond", "the", "target"]
    assert energy.split() == words


def test_json_has_every_number(records: list[str]) -> None:
    result = CliRunner().invoke(main, ["compare", *records, "--json"])
    numbers = json.loads(result.stdout)
    (total,) = [row for row in numbers["rows"] if row["metric"] == "total_energy_j"]
    assert total["error_fraction"] == pytest.approx((2400 - 2320) / 2320)
    assert {row["metric"] for row in numbers["rows"]} == set(METRICS)


def test_carbon_and_price_are_compared_at_the_rates_that_are_given(
    records: list[str], tmp_path: Path
) -> None:
    rates = tmp_path / "day.csv"  # the second half of the measured energy costs twice the first
    rates.write_text("time_s,price_per_kwh\n0,1\n5,2\n")
    words = ["compare", *records, "--grid-intensity", "360", "--price", str(rates), "--currency", "EUR"]
    values = json.loads(CliRunner().invoke(main, [*words, "--json"]).stdout)
    rows = {row["metric"]: row for row in values["rows"]}
    for side in ("simulated", "measured"):
        assert rows["carbon_g"][side] == pytest.approx(360 * rows["total_energy_j"][side] / 3.6e6)
    assert rows["price"]["measured"] == pytest.approx(1.5 * rows["total_energy_j"]["measured"] / 3.6e6)
    assert values["currency"] == "EUR"
    text = CliRunner().invoke(main, words).stdout
    assert re.search(r"^carbon +\d+\.\d+ mg", text, re.MULTILINE)
    assert re.search(r"^price, EUR +0\.0010", text, re.MULTILINE)
    assert "price" not in CliRunner().invoke(main, ["compare", *records]).stdout


def test_prices_of_other_rates_are_not_compared() -> None:
    one, other = (Footprint(None, price, "EUR", 1.0, None, {"price_per_kwh": price}) for price in (0.1, 0.2))
    runs = [
        replace(run, meta=replace(run.meta, footprint=footprint))
        for run, footprint in ((simulated_run(), one), (measured_run(), other), (measured_run(), one))
    ]
    assert compare(runs[0], (runs[2],)).row("price").error_fraction == 0.0
    assert [row.metric for row in compare(runs[0], (runs[1],)).rows] == list(METRICS)
    assert [row.metric for row in compare(runs[0], (runs[2], measured_run())).rows] == list(METRICS)


def test_markdown_and_plot_are_written_and_not_overwritten(records: list[str], tmp_path: Path) -> None:
    files = ["--markdown", str(tmp_path / "c.md"), "--plot", str(tmp_path / "c.png")]
    assert CliRunner().invoke(main, ["compare", *records, *files]).exit_code == 0
    assert "| energy | 2.400 kJ |" in (tmp_path / "c.md").read_text()
    assert "**+3.45 %**" in (tmp_path / "c.md").read_text()
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")
    again = CliRunner().invoke(main, ["compare", *records, *files])
    assert again.exit_code == 2
    assert "--overwrite" in again.output
    assert CliRunner().invoke(main, ["compare", *records, *files, "--overwrite"]).exit_code == 0


def test_a_table_cannot_split_a_run_without_steps(records: list[str], tmp_path: Path) -> None:
    from toy_table import toy_table

    from sim.table_files import save_table

    (tmp_path / "table").mkdir()
    save_table(toy_table(), tmp_path / "table")
    result = CliRunner().invoke(main, ["compare", *records, "--table", str(tmp_path / "table")])
    assert result.exit_code == 2
    assert "no steps.parquet" in result.output


def test_a_missing_run_is_one_line(records: list[str]) -> None:
    result = CliRunner().invoke(main, ["compare", records[0], "nowhere"])
    assert result.exit_code == 2
    assert len(result.output.splitlines()) == 1
