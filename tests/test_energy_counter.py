"""The energy of a window is the counter's, interpolated between its ticks, over all GPUs."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from backends.energy_counter import integrate_power_j, read_counter
from backends.meter import SAMPLE
from traces.trace import Floats


def samples_of(
    energy_j: Callable[[Floats], Floats], power_w: Callable[[Floats], Floats], until_s: float, gpu: int = 0
) -> NDArray[np.void]:
    """Return samples every 10 ms from 100 s on; the counter is given as a function of time."""
    time_s = 100.0 + np.linspace(0.0, until_s, round(until_s / 0.01) + 1)
    rows = np.zeros(len(time_s), dtype=SAMPLE)
    rows["time_s"], rows["gpu"] = time_s, gpu
    rows["energy_j"], rows["power_w"] = energy_j(time_s - 100.0), power_w(time_s - 100.0)
    return rows


def ticking(power_w: float, tick_s: float, offset_s: float = 0.0) -> Callable[[Floats], Floats]:
    """Return a counter of constant power that shows the energy of its last tick."""
    return lambda at_s: 7.0 + power_w * tick_s * np.floor((at_s + offset_s) / tick_s + 1e-6)


def constant(power_w: float) -> Callable[[Floats], Floats]:
    return lambda at_s: np.full(len(at_s), power_w)


def test_constant_power_gives_power_times_time_wherever_the_window_lies() -> None:
    counter = read_counter(samples_of(ticking(300.0, 0.1), constant(300.0), 5.0), zero_s=101.0)
    for from_s, to_s in ((0.0, 1.0), (0.033, 2.981), (-0.5, 3.0)):
        assert counter.between_j(from_s, to_s) == pytest.approx(300.0 * (to_s - from_s))


def test_power_over_time_begins_at_zero_and_ends_at_the_window() -> None:
    counter = read_counter(samples_of(ticking(300.0, 0.1), constant(300.0), 5.0), zero_s=101.0)
    power = counter.power(2.05)
    assert (power.time_s[0], power.energy_j[0], power.time_s[-1]) == (0.0, 0.0, 2.05)
    np.testing.assert_allclose(power.energy_j, 300.0 * power.time_s, atol=1e-6)


def test_several_gpus_that_tick_at_different_times_are_summed() -> None:
    one = samples_of(ticking(300.0, 0.1), constant(300.0), 5.0)
    other = samples_of(ticking(200.0, 0.1, 0.04), constant(200.0), 5.0, gpu=1)
    both = np.concatenate([one, other])
    both = both[np.argsort(both["time_s"], kind="stable")]
    counter = read_counter(both, zero_s=101.0)
    assert counter.between_j(0.0, 3.0) == pytest.approx(1500.0)
    assert integrate_power_j(both, 101.0, 104.0) == pytest.approx(1500.0)


def test_a_window_that_the_ticks_do_not_hold_is_refused() -> None:
    counter = read_counter(samples_of(ticking(300.0, 0.1), constant(300.0), 5.0), zero_s=101.0)
    with pytest.raises(ValueError, match=r"does not hold 0\.000 to 6\.000 s"):
        counter.between_j(0.0, 6.0)


def test_a_counter_that_stands_still_is_refused() -> None:
    with pytest.raises(ValueError, match="did not tick twice"):
        read_counter(samples_of(constant(7.0), constant(300.0), 5.0), zero_s=101.0)


def test_no_samples_at_all_are_refused() -> None:
    with pytest.raises(ValueError, match="did not tick twice"):
        read_counter(np.zeros(0, dtype=SAMPLE), zero_s=0.0)
    assert integrate_power_j(np.zeros(0, dtype=SAMPLE), 0.0, 1.0) is None


def test_power_is_integrated_by_trapezoids_between_its_readings() -> None:
    samples = samples_of(ticking(300.0, 0.1), lambda at_s: 100.0 * at_s, 5.0)
    samples["power_w"][np.arange(len(samples)) % 4 != 0] = np.nan
    assert integrate_power_j(samples, 101.0, 103.0) == pytest.approx(100.0 * (9 - 1) / 2, rel=1e-4)


def test_power_that_was_not_read_is_unknown() -> None:
    samples = samples_of(ticking(300.0, 0.1), constant(np.nan), 5.0)
    assert integrate_power_j(samples, 101.0, 103.0) is None
