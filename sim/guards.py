"""Guards on every number: what must hold of a run, simulated or measured, before its energy is believed.

Each guard takes what is known of a run and returns the reasons why it fails, none if it holds.
`docs/metrics.md` lists them by number.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import fsum

import numpy as np

from sim.metering import Metering, check_metering
from sim.tally import Tally, tally_of
from traces.record import Meta, Power, Run, total_energy_j

POWER_SLACK = 1.05
SIMULATED_TOLERANCE = 1e-9
MEASURED_TOLERANCE = 0.02
OUT_OF_RANGE_LIMIT = 0.05


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """What the guards look at.

    Attributes:
        meta: All but the verdict.
        tally: What the outcomes come to.
        power: Energy over time.
    """

    meta: Meta
    tally: Tally
    power: Power

    @property
    def total_energy_j(self) -> float | None:
        """Energy from time 0 to the last completion, None if not metered."""
        return total_energy_j(self.meta, self.power)


def check(run: Run, metering: Metering | None = None) -> tuple[str, ...]:
    """Return why the run is not to be believed, nothing if every guard holds.

    Args:
        run: A run whose meta holds all but the verdict.
        metering: How a measured run's energy was metered, which the run itself does not tell.
    """
    reasons = check_evidence(Evidence(run.meta, tally_of(run.outcomes, run.meta.makespan_s), run.power))
    if metering is None:
        return reasons
    return (*reasons, *(f"guard {n}: {reason}" for n, reason in check_metering(metering, len(GUARDS) + 1)))


def check_evidence(run: Evidence) -> tuple[str, ...]:
    """Return why a run is not to be believed, as `check` does, metering aside."""
    return tuple(f"guard {n}: {reason}" for n, guard in enumerate(GUARDS, 1) for reason in guard(run))


def every_request_ends(run: Evidence) -> Iterator[str]:
    """Guard 1. served + failed = offered."""
    offered, t = run.meta.requests, run.tally
    if t.served + t.failed != offered or t.requests != offered:
        yield f"{t.served} served + {t.failed} failed, {t.requests} recorded, but {offered} were offered"


def served_means_served(run: Evidence) -> Iterator[str]:
    """Guard 2. What counts as served was released and has a first token, a last one, and tokens."""
    broken = run.tally.not_served
    if broken.count:
        yield f"{broken.count} requests count as served but were not, the first is {broken.first}"


def causes_precede_effects(run: Evidence) -> Iterator[str]:
    """Guard 3. arrival <= released <= first token <= finished <= makespan, as far as a request got."""
    for (before, after), late in run.tally.late.items():
        if late.count:
            yield f"{before} comes after {after} in {late.count} requests, the first is {late.first}"


def energy_is_known(run: Evidence) -> Iterator[str]:
    """Guard 4. There is an energy, unless no GPU was metered; it, and each known part, is finite and >= 0."""
    energy, total_j = run.meta.energy, run.total_energy_j
    if total_j is None:
        if run.meta.gpus:
            yield "energy was not metered"
        return
    parts = () if energy is None else (energy.prefill_j, energy.decode_j, energy.idle_j)
    for name, part_j in zip(("total", "prefill", "decode", "idle"), (total_j, *parts), strict=False):
        if not 0 <= part_j < float("inf"):
            yield f"{name} energy must be >= 0 J and finite, is {part_j} J"


def idling_is_the_least(run: Evidence) -> Iterator[str]:
    """Guard 5. energy >= idle power * makespan, of a replica that sleeps: * its time awake."""
    meta, total_j = run.meta, run.total_energy_j
    if total_j is None or meta.idle_w is None:
        return
    least_j = meta.idle_w * meta.makespan_s
    if meta.replicas:
        least_j = fsum(one.idle_w * (one.busy_s + one.idle_s) for one in meta.replicas)
    if total_j < least_j * (1 - _tolerance(run)):
        yield f"{total_j:.6g} J is less than idling alone takes, {least_j:.6g} J"


def power_is_within_limit(run: Evidence) -> Iterator[str]:
    """Guard 6. energy / makespan <= 1.05 * power limit, per GPU."""
    meta, total_j = run.meta, run.total_energy_j
    if total_j is None or meta.power_limit_w is None or meta.makespan_s <= 0:
        return
    mean_w, most_w = total_j / meta.makespan_s / meta.gpus, POWER_SLACK * meta.power_limit_w
    if mean_w > most_w:
        yield f"mean power is {mean_w:.6g} W per GPU, above {POWER_SLACK} x the limit = {most_w:.6g} W"


def parts_sum_to_the_counter(run: Evidence) -> Iterator[str]:
    """Guard 7. prefill + decode + idle = the counter's last value = the replicas' sum: 1e-9, measured 2 %."""
    energy, counter_j = run.meta.energy, run.power.energy_j
    if run.total_energy_j is None:
        return
    if not len(counter_j):
        yield "energy over time was not recorded"
        return
    if (np.diff(counter_j) < 0).any() or (np.diff(run.power.time_s) < 0).any():
        yield "the energy counter or its clock runs backwards"
    if energy is not None and _differ(energy.total_j, float(counter_j[-1]), _tolerance(run)):
        yield f"prefill + decode + idle = {energy.total_j:.9g} J, but the counter says {counter_j[-1]:.9g} J"
    replicas_j = fsum(replica.total_j for replica in run.meta.replicas)
    if run.meta.replicas and _differ(replicas_j, float(counter_j[-1]), _tolerance(run)):
        yield f"the replicas took {replicas_j:.9g} J, but the counter says {counter_j[-1]:.9g} J"


def shares_sum_to_the_total(run: Evidence) -> Iterator[str]:
    """Guard 8. The requests' shares + unattributed idle = total, where shares are known."""
    energy, tally = run.meta.energy, run.tally
    if energy is None or not tally.shares:
        return
    if tally.least_share_j < 0:
        yield f"a request's share of the energy must be >= 0 J, the least is {tally.least_share_j:.6g} J"
    sum_j = tally.shares_j + energy.idle_j
    if _differ(sum_j, energy.total_j, _tolerance(run)):
        yield f"the requests' shares + idle = {sum_j:.9g} J, but the total is {energy.total_j:.9g} J"


def steps_are_within_the_table(run: Evidence) -> Iterator[str]:
    """Guard 9. Simulated: at most 5 % of the steps lie outside what the cost table measured."""
    fraction = run.meta.out_of_range_fraction
    if fraction is not None and fraction > OUT_OF_RANGE_LIMIT:
        yield (
            f"{100 * fraction:.3g} % of the steps lie outside the measured range of table {run.meta.table}; "
            f"at most {100 * OUT_OF_RANGE_LIMIT:.3g} % may"
        )


GUARDS: tuple[Callable[[Evidence], Iterator[str]], ...] = (
    every_request_ends,
    served_means_served,
    causes_precede_effects,
    energy_is_known,
    idling_is_the_least,
    power_is_within_limit,
    parts_sum_to_the_counter,
    shares_sum_to_the_total,
    steps_are_within_the_table,
)


def _tolerance(run: Evidence) -> float:
    return SIMULATED_TOLERANCE if run.meta.kind == "simulated" else MEASURED_TOLERANCE


def _differ(one: float, other: float, tolerance: float) -> bool:
    # Written so that NaN differs from everything.
    return not abs(one - other) <= tolerance * max(abs(one), abs(other))
