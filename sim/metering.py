"""How a run's energy was metered, and the guards on that."""

from collections.abc import Iterator
from dataclasses import dataclass

COUNTER_TICK_S = 0.1
"""The energy counter's tick: a window much longer than this is needed for a figure worth printing."""
SHORTEST_WINDOW_S = 50 * COUNTER_TICK_S
COUNTER_TOLERANCE = 0.03
INVALIDATING_THROTTLES = {
    0x08: "hardware slowdown",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "power brake",
}
"""NVML's clock event reasons that spoil a measurement; the power cap (0x4) is normal at full load."""


@dataclass(frozen=True, slots=True)
class Metering:
    """What was seen of the GPUs while a run was measured.

    Attributes:
        metered_uuids: UUIDs of the GPUs whose counters were read.
        engine_uuids: UUIDs of the GPUs that the engine computed on.
        foreign_process_ids: Processes seen computing on a metered GPU that are not the engine's.
        counter_j: Energy by the counters.
        integrated_j: Energy by integrating instant power, None if that was not read.
        throttle_reasons: NVML's clock event reasons seen, bits of all samples together.
        window_s: Length of the metered window.
    """

    metered_uuids: tuple[str, ...]
    engine_uuids: tuple[str, ...]
    foreign_process_ids: tuple[int, ...]
    counter_j: float
    integrated_j: float | None
    throttle_reasons: int
    window_s: float


def check_metering(metering: Metering, first_number: int) -> Iterator[tuple[int, str]]:
    """Yield the number and the reason of each guard that fails, numbered from `first_number`."""
    guards = (
        _same_gpus,
        _alone_on_the_gpus,
        _counter_and_power_agree,
        _no_throttling,
        _window_is_long,
    )
    for number, guard in enumerate(guards, first_number):
        for reason in guard(metering):
            yield number, reason


def _same_gpus(metering: Metering) -> Iterator[str]:
    metered, engine = set(metering.metered_uuids), set(metering.engine_uuids)
    if metered != engine:
        seen, used = ", ".join(sorted(metered)) or "no GPU", ", ".join(sorted(engine)) or "no GPU"
        yield f"metered {seen}, but the engine is on {used}"


def _alone_on_the_gpus(metering: Metering) -> Iterator[str]:
    if metering.foreign_process_ids:
        yield f"other processes compute on the GPU: {', '.join(map(str, metering.foreign_process_ids))}"


def _counter_and_power_agree(metering: Metering) -> Iterator[str]:
    if metering.integrated_j is None:
        yield "instant power was not read, so the counter is unchecked"
    elif not abs(metering.counter_j - metering.integrated_j) <= COUNTER_TOLERANCE * metering.counter_j:
        yield (
            f"the counter says {metering.counter_j:.6g} J, integrated power {metering.integrated_j:.6g} J; "
            f"they must agree within {100 * COUNTER_TOLERANCE:g} %"
        )


def _no_throttling(metering: Metering) -> Iterator[str]:
    seen = [name for bit, name in INVALIDATING_THROTTLES.items() if metering.throttle_reasons & bit]
    if seen:
        yield f"the GPU throttled: {', '.join(seen)}"


def _window_is_long(metering: Metering) -> Iterator[str]:
    if metering.window_s < SHORTEST_WINDOW_S:
        yield (
            f"the window of {metering.window_s:.3g} s is short against the counter's tick of "
            f"{COUNTER_TICK_S} s; meter at least {SHORTEST_WINDOW_S:g} s"
        )
