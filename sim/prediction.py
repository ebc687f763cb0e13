"""How far a simulated energy may be off: an interval from what a table's fit and its repeats left over."""

from collections.abc import Mapping

from traces.record import EnergySplit

SPREADS = ("prefill", "decode", "idle", "repeat")
Z_95 = 1.96
"""Standard deviations to either side that hold 95 % of a normal distribution."""


def energy_interval_j(split: EnergySplit, spread: Mapping[str, float]) -> tuple[float, float]:
    """Return the lowest and highest total energy to expect, 95 % of the time.

    A table that is wrong about decode is wrong in the same direction throughout a replay, so errors of
    prefill and decode are added up in full, not averaged out over the steps; those of idle, and from run to
    run, are independent of them.

    Args:
        split: The simulated energy.
        spread: Of the table, relative standard deviations by the names in SPREADS: of the joules of prefill,
            decode and idle, and of a whole replay's from run to run.
    """
    work_j = split.prefill_j * spread["prefill"] + split.decode_j * spread["decode"]
    others_j = split.idle_j * spread["idle"], split.total_j * spread["repeat"]
    margin_j = Z_95 * sum(part_j**2 for part_j in (work_j, *others_j)) ** 0.5
    return split.total_j - margin_j, split.total_j + margin_j
