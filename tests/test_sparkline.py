"""Power over time as blocks: the mean power of equal spans, exactly, on one scale."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from replay.screen import plain
from replay.sparkline import BLOCKS, blocks, mean_power_w, power_view
from traces.record import Power


def power(time_s: list[float], energy_j: list[float]) -> Power:
    return Power(np.array(time_s), np.array(energy_j))


def drawn(*runs: tuple[str, Power]) -> list[str]:
    return plain(power_view(runs, 8)).splitlines()


def test_the_power_of_a_span_is_its_energy_by_its_length() -> None:
    means_w = mean_power_w(power([0.0, 1.0, 4.0], [0.0, 100.0, 1300.0]), np.array([0.0, 2.0, 4.0]))
    assert means_w.tolist() == pytest.approx([(100 + 400) / 2, 400.0])


def test_a_run_has_no_power_after_its_end_and_a_span_cut_by_it_is_not_diluted() -> None:
    means_w = mean_power_w(power([0.0, 3.0], [0.0, 600.0]), np.array([0.0, 2.0, 4.0, 6.0]))
    assert means_w[:2].tolist() == pytest.approx([200.0, 200.0])
    assert np.isnan(means_w[2])


@given(
    st.lists(st.floats(0.0, 1000.0), min_size=2, max_size=50),
    st.integers(1, 20),
)
def test_the_spans_have_all_of_the_energy(energies_j: list[float], spans: int) -> None:
    run = power(np.arange(len(energies_j) + 1.0).tolist(), np.cumsum([0.0, *energies_j]).tolist())
    edges_s = np.linspace(0.0, len(energies_j), spans + 1)
    joules = float((mean_power_w(run, edges_s) * np.diff(edges_s)).sum())
    assert joules == pytest.approx(sum(energies_j), abs=1e-6)


def test_the_least_has_the_lowest_block_and_the_most_the_highest() -> None:
    assert blocks(np.array([100.0, 150.0, 200.0, np.nan]), 100.0, 200.0) == "▁▅█ "
    assert blocks(np.linspace(0.0, 8.0, 9), 0.0, 8.0) == BLOCKS + BLOCKS[-1]


def test_what_hardly_differs_is_drawn_flat() -> None:
    assert blocks(np.array([500.0, 500.5]), 500.0, 500.5) == "▁▁"
    assert blocks(np.array([500.0, 520.0]), 500.0, 520.0) == "▁▂"
    assert blocks(np.array([0.0, 0.0]), 0.0, 0.0) == "▁▁"


def test_runs_are_on_one_scale_with_their_own_numbers() -> None:
    low, high = power([0.0, 2.0, 4.0], [0.0, 200.0, 600.0]), power([0.0, 2.0, 4.0], [0.0, 800.0, 1800.0])
    lines = drawn(("low", low), ("high", high))
    assert lines == [
        "",
        "low       ▁▁▁▁▃▃▃▃",
        "          100.0 W to 200.0 W, mean 150.0 W, in 8 spans of 500.0 ms",
        "high      ▇▇▇▇████",
        "          400.0 W to 500.0 W, mean 450.0 W, in 8 spans of 500.0 ms",
    ]


def test_a_long_run_has_sixty_spans_and_the_shorter_one_ends_before_it() -> None:
    long, short = power([0.0, 600.0], [0.0, 6e4]), power([0.0, 300.0], [0.0, 6e4])
    lines = drawn(("long", long), ("short", short))
    assert len(lines[1]) == 10 + 60
    assert len(lines[3]) == 10 + 30
    assert "in 60 spans of 10.00 s" in lines[2]
    assert "in 30 spans of 10.00 s" in lines[4]


def test_a_run_that_was_not_metered_has_no_line() -> None:
    assert power_view([("none", power([], []))], 8) == []
    assert len(drawn(("none", power([], [])), ("one", power([0.0, 1.0], [0.0, 100.0])))) == 3
