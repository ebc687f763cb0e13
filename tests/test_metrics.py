"""Each metric against numbers worked out by hand, and the summary made of them."""

import json
from dataclasses import asdict, fields

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy_run import toy_run

from sim import metrics
from sim.slo import parse_slos
from sim.summary import Summary, summarize
from traces.record import FAILED, SERVED, UNFINISHED

SUMMARY_KEYS = (
    *("total_energy_j", "energy_low_j", "energy_high_j"),
    *("prefill_energy_j", "decode_energy_j", "idle_energy_j", "mean_power_w"),
    *("energy_j_per_request", "energy_j_per_output_token", "energy_j_per_token"),
    *("cpu_energy_j", "dram_energy_j", "makespan_s", "requests", "served", "failed"),
    *("ttft_p50_s", "ttft_p90_s", "ttft_p99_s", "tpot_p50_s", "tpot_p90_s", "tpot_p99_s"),
    *("e2e_p50_s", "e2e_p90_s", "e2e_p99_s"),
    *("out_of_range_fraction", "table", "energy_source", "energy_valid", "invalid_reasons"),
    *("attainment_fraction", "goodput_rps", "carbon_g", "price", "currency"),
)


def test_time_to_first_token_counts_from_the_arrival_holding_included() -> None:
    assert metrics.ttft_s(toy_run().outcomes).tolist() == [1.0, 2.0, 0.25]


def test_time_per_output_token_leaves_out_the_first_and_requests_that_have_but_one() -> None:
    assert metrics.tpot_s(toy_run().outcomes).tolist() == [0.5, 1.0]


def test_end_to_end_counts_from_the_arrival() -> None:
    assert metrics.e2e_s(toy_run().outcomes).tolist() == [3.0, 9.0, 0.25]


def test_holding_is_what_the_policy_added() -> None:
    assert metrics.held_s(toy_run().outcomes).tolist() == [0.5, 0.0, 0.0]


@pytest.mark.parametrize("status", [FAILED, UNFINISHED])
def test_what_was_not_served_has_no_latency(status: int) -> None:
    outcomes = toy_run(status=[status, SERVED, status, status]).outcomes
    assert metrics.ttft_s(outcomes).tolist() == [2.0]
    assert metrics.tpot_s(outcomes).tolist() == [1.0]
    assert metrics.e2e_s(outcomes).tolist() == [9.0]


def test_a_quantile_lies_between_order_statistics() -> None:
    assert metrics.quantile(np.array([4.0, 1.0, 2.0]), 0.5) == 2.0
    assert metrics.quantile(np.array([0.0, 10.0]), 0.9) == 9.0
    assert metrics.quantile(np.array([7.0]), 0.99) == 7.0
    assert metrics.quantile(np.array([]), 0.5) is None


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0, 1))
def test_a_quantile_has_its_share_of_the_values_below_it(values: list[float], q: float) -> None:
    found = metrics.quantile(np.array(values), q)
    assert found is not None
    slack = 1e-9 * max(values)
    rank = q * (len(values) - 1)
    assert sum(value <= found + slack for value in values) >= rank
    assert sum(value >= found - slack for value in values) >= len(values) - 1 - rank


@pytest.mark.parametrize(
    ("limits", "good"),
    [
        (("ttft=1",), 2),
        (("tpot=0.6",), 2),
        (("ttft=0.5", "tpot=0.1"), 1),
        (("ttft=0.1",), 0),
        (("e2e=9",), 3),
    ],
)
def test_goodput_counts_requests_that_keep_all_limits_at_once(limits: tuple[str, ...], good: int) -> None:
    summary = summarize(toy_run(), parse_slos(limits))  # 4 requests in 10 s, of which one failed
    assert (summary.attainment_fraction, summary.goodput_rps) == (good / 4, good / 10)


def test_goodput_is_of_limits_that_are_given_and_of_a_run_that_takes_time() -> None:
    assert summarize(toy_run()).goodput_rps is None
    assert summarize(toy_run()).attainment_fraction is None
    assert summarize(toy_run(makespan_s=0.0), parse_slos(["ttft=1"])).goodput_rps is None


def test_the_summary_has_these_keys_and_no_others() -> None:
    assert tuple(field.name for field in fields(Summary)) == SUMMARY_KEYS


def test_the_summary_of_the_toy_run_is_what_a_hand_works_out() -> None:
    summary = summarize(toy_run())
    assert (summary.total_energy_j, summary.mean_power_w) == (2400.0, 240.0)
    assert (summary.prefill_energy_j, summary.decode_energy_j, summary.idle_energy_j) == (
        500.0,
        1500.0,
        400.0,
    )
    assert summary.energy_j_per_request == 2400 / 3
    assert summary.energy_j_per_output_token == 2400 / (5 + 8 + 1)
    assert summary.energy_j_per_token == 2400 / (10 + 20 + 40 + 5 + 8 + 1)
    assert (summary.requests, summary.served, summary.failed, summary.makespan_s) == (4, 3, 1, 10.0)
    assert (summary.ttft_p50_s, summary.tpot_p50_s, summary.e2e_p50_s) == (1.0, 0.75, 3.0)
    assert summary.ttft_p90_s == pytest.approx(1.8)
    assert summary.e2e_p99_s == pytest.approx(9 - 0.02 * 6)


def test_missing_is_null_never_0() -> None:
    unmetered = {"energy": None, "energy_source": "none", "out_of_range_fraction": None, "table": None}
    nothing = toy_run(status=[FAILED] * 4, counter_j=[], counter_s=[], **unmetered)
    text = json.dumps(asdict(summarize(nothing)), allow_nan=False)
    values = json.loads(text)
    present = {name for name, value in values.items() if value is not None}
    assert present == {
        *("makespan_s", "requests", "served", "failed"),
        *("energy_source", "energy_valid", "invalid_reasons"),
    }
    assert (values["served"], values["failed"]) == (0, 4)


def test_a_total_without_its_split_is_the_counters() -> None:
    summary = summarize(toy_run(energy=None, cpu_j=30.0))
    assert (summary.total_energy_j, summary.mean_power_w) == (2400.0, 240.0)
    assert (summary.prefill_energy_j, summary.decode_energy_j, summary.idle_energy_j) == (None, None, None)
    assert (summary.cpu_energy_j, summary.dram_energy_j) == (30.0, None)


def test_energy_without_a_served_request_has_no_share() -> None:
    summary = summarize(toy_run(status=[FAILED] * 4))
    assert summary.total_energy_j == 2400.0
    assert summary.energy_j_per_request is None
    assert summary.energy_j_per_output_token is None
    assert summary.energy_j_per_token is None
