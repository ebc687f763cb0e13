"""Each guard: a sound run passes, and what the guard is for fails it by its number."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from toy_run import toy_run

from sim.guards import GUARDS, check
from sim.metering import Metering
from traces.record import SERVED, UNFINISHED, EnergySplit

NAN = float("nan")
METERING = Metering(
    metered_uuids=("GPU-a", "GPU-b"),
    engine_uuids=("GPU-b", "GPU-a"),
    foreign_process_ids=(),
    counter_j=2400.0,
    integrated_j=2350.0,
    throttle_reasons=0x4,
    window_s=10.0,
)


def split(prefill_j: float, decode_j: float, idle_j: float) -> EnergySplit:
    return EnergySplit(prefill_j, decode_j, idle_j)


def test_a_sound_run_passes_every_guard() -> None:
    assert check(toy_run()) == ()
    assert check(toy_run(), METERING) == ()
    assert check(toy_run(kind="measured"), METERING) == ()


def test_a_run_whose_gpus_nobody_metered_is_sound() -> None:
    run = toy_run(kind="measured", energy=None, gpus=0, counter_j=[], counter_s=[])
    assert run.total_energy_j is None
    assert check(run) == ()


def test_a_run_metered_without_knowing_its_steps_is_sound() -> None:
    run = toy_run(kind="measured", energy=None, energy_j=[NAN] * 4)
    assert run.total_energy_j == 2400.0
    assert check(run, METERING) == ()


BROKEN: list[tuple[int, dict[str, Any], str]] = [
    (1, {"requests": 5}, "3 served + 1 failed, 4 recorded, but 5 were offered"),
    (1, {"status": [SERVED, UNFINISHED, 2, SERVED]}, "2 served + 1 failed"),
    (2, {"status": [SERVED] * 4}, "1 requests count as served but were not, the first is 2"),
    (2, {"output_tokens": [5, 0, 0, 1]}, "the first is 1"),
    (2, {"released_s": [0.5, 1.0, 2.0, NAN]}, "the first is 3"),
    (3, {"released_s": [0.5, 0.9, 2.0, 3.0]}, "arrival comes after release in 1 requests, the first is 1"),
    (3, {"first_token_s": [0.4, 3.0, NAN, 3.25]}, "release comes after first token"),
    (3, {"finished_s": [3.0, 2.5, NAN, 3.25]}, "first token comes after finish"),
    (3, {"makespan_s": 9.0}, "finish comes after the makespan"),
    (4, {"energy": None, "counter_j": [], "counter_s": []}, "energy was not metered"),
    (4, {"energy": None, "counter_j": [0.0, 1.0, NAN]}, "total energy must be >= 0 J and finite"),
    (4, {"energy": split(-1.0, 2001.0, 400.0)}, "prefill energy must be >= 0 J and finite, is -1"),
    (4, {"energy": split(500.0, NAN, 400.0)}, "decode energy must be >= 0 J"),
    (5, {"idle_w": 241.0}, "2400 J is less than idling alone takes, 2410 J"),
    (5, {"idle_w": 241.0, "energy": None}, "2400 J is less than idling alone takes, 2410 J"),
    (6, {"power_limit_w": 228.0, "energy": None}, "mean power is 240 W per GPU"),
    (6, {"power_limit_w": 228.0}, "mean power is 240 W per GPU, above 1.05 x the limit = 239.4 W"),
    (6, {"power_limit_w": 114.0, "gpus": 2}, "mean power is 120 W per GPU"),
    (
        7,
        {"counter_j": [0.0, 1200.0, 2400.1]},
        "prefill + decode + idle = 2400 J, but the counter says 2400.1",
    ),
    (7, {"counter_j": [0.0, 2500.0, 2400.0]}, "runs backwards"),
    (7, {"counter_j": [0.0, 2500.0, 2400.0], "energy": None}, "runs backwards"),
    (7, {"counter_s": [0.0, 10.0, 5.0]}, "runs backwards"),
    (7, {"counter_j": [], "counter_s": []}, "energy over time was not recorded"),
    (8, {"energy_j": [600.0, 1000.0, NAN, 401.0]}, "the requests' shares + idle = 2401 J"),
    (8, {"energy_j": [600.0, 1800.0, NAN, -400.0]}, "must be >= 0 J, the least is -400"),
    (9, {"out_of_range_fraction": 0.051}, r"5.1 % of the steps lie outside the measured range of table toy"),
]


@pytest.mark.parametrize(("number", "changes", "reason"), BROKEN)
def test_a_guard_fails_by_its_number_and_says_why(number: int, changes: dict[str, Any], reason: str) -> None:
    reasons = check(toy_run(**changes))
    assert [found for found in reasons if found.startswith(f"guard {number}: ") and reason in found], reasons


@pytest.mark.parametrize(("number", "changes", "_"), BROKEN)
def test_a_fault_trips_no_guard_but_its_own(number: int, changes: dict[str, Any], _: str) -> None:
    numbers = {int(re.findall(r"\d+", found)[0]) for found in check(toy_run(**changes))}
    related = {4: {7, 8}, 2: {1}, 7: {7}}.get(number, set())
    assert number in numbers
    assert numbers - {number} <= related


def test_every_guard_is_broken_by_some_test() -> None:
    assert {number for number, _, _ in BROKEN} == set(range(1, len(GUARDS) + 1))


def test_a_guard_passes_at_its_bound() -> None:
    bounds = {"idle_w": 240.0, "power_limit_w": 240 / 1.05, "out_of_range_fraction": 0.05}
    assert check(toy_run(**bounds)) == ()


def test_what_is_unknown_is_not_held_against_a_run() -> None:
    unknown = {"idle_w": None, "power_limit_w": None, "out_of_range_fraction": None, "energy_j": [NAN] * 4}
    assert check(toy_run(**unknown)) == ()


def test_a_measured_run_may_differ_from_its_counter_by_two_percent() -> None:
    assert check(toy_run(kind="measured", counter_j=[0.0, 1200.0, 2440.0])) == ()
    assert len(check(toy_run(kind="measured", counter_j=[0.0, 1200.0, 2460.0]))) == 1


@pytest.mark.parametrize(
    ("number", "changes", "reason"),
    [
        (10, {"metered_uuids": ("GPU-a",)}, "metered GPU-a, but the engine is on GPU-a, GPU-b"),
        (10, {"metered_uuids": ()}, "metered no GPU"),
        (11, {"foreign_process_ids": (7, 9)}, "other processes compute on the GPU: 7, 9"),
        (12, {"integrated_j": 2475.0}, "integrated power 2475 J; they must agree within 3 %"),
        (12, {"integrated_j": NAN}, "must agree within 3 %"),
        (12, {"integrated_j": None}, "instant power was not read"),
        (13, {"throttle_reasons": 0x4 | 0x40}, "the GPU throttled: hardware thermal slowdown"),
        (13, {"throttle_reasons": 0xE8}, "hardware slowdown, software thermal slowdown, hardware thermal"),
        (14, {"window_s": 4.9}, "the window of 4.9 s is short against the counter's tick of 0.1 s"),
    ],
)
def test_a_guard_on_the_metering_fails_by_its_number(
    number: int, changes: dict[str, Any], reason: str
) -> None:
    (found,) = check(toy_run(kind="measured"), replace(METERING, **changes))
    assert found.startswith(f"guard {number}: ")
    assert reason in found


def test_the_docs_list_every_guard() -> None:
    text = (Path(__file__).parents[1] / "docs" / "metrics.md").read_text()
    listed = [int(number) for number in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)]
    assert listed == list(range(1, len(GUARDS) + 5 + 1))
