"""The interval of a simulated energy."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy_table import toy_table
from toy_trace import toy_trace

from sim.immediate import Immediate
from sim.options import EngineOptions
from sim.prediction import SPREADS, energy_interval_j
from sim.simulate import simulate
from sim.summary import summarize
from traces.record import EnergySplit

SPREAD = {"prefill": 0.01, "decode": 0.02, "idle": 0.05, "repeat": 0.002}
joules = st.floats(0.0, 1e9)


def test_the_interval_is_what_a_hand_works_out() -> None:
    low_j, high_j = energy_interval_j(EnergySplit(1000.0, 2000.0, 600.0), SPREAD)
    margin_j = 1.96 * (50.0**2 + 30.0**2 + 7.2**2) ** 0.5
    assert (low_j, high_j) == pytest.approx((3600 - margin_j, 3600 + margin_j))


@given(st.builds(EnergySplit, joules, joules, joules), st.sampled_from(SPREADS))
def test_more_spread_never_makes_the_interval_smaller(split: EnergySplit, name: str) -> None:
    low_j, high_j = energy_interval_j(split, SPREAD)
    wider_low_j, wider_high_j = energy_interval_j(split, {**SPREAD, name: 2 * SPREAD[name]})
    assert wider_low_j <= low_j <= split.total_j <= high_j <= wider_high_j


def test_a_table_of_one_card_says_so() -> None:
    trace = toy_trace([0.0], [100], [10])

    def notes(**meta: object) -> str:
        run = simulate(trace, Immediate(), EngineOptions(), toy_table(meta=meta, source="measured"))
        return " ".join(run.meta.notes)

    said = "is of the cards it was measured on"
    assert said in notes(gpu_hashes=["aa"])
    assert said not in notes(gpu_hashes=["aa", "bb"])
    assert said not in notes(gpu_hashes=["aa"], adapted_from="mean")


def test_a_run_inside_the_measured_range_has_an_interval_and_no_other() -> None:
    trace = toy_trace([0.0, 0.1], [100, 200], [10, 20])

    def interval(**overrides: object) -> tuple[float | None, float | None]:
        summary = summarize(simulate(trace, Immediate(), EngineOptions(), toy_table(**overrides)))
        return summary.energy_low_j, summary.energy_high_j

    low_j, high_j = interval(meta={"spread": SPREAD})
    assert low_j is not None
    assert high_j is not None
    assert low_j < high_j
    assert interval() == (None, None)
    small = toy_table().coefficients.limits * 1e-6
    assert interval(meta={"spread": SPREAD}, limits=small) == (None, None)
