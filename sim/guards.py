"""Guards on every number: what must hold of a run, simulated or measured, before its energy is believed.

Each guard takes a run and returns the reasons why it fails, none if it holds. `docs/metrics.md` lists them by
number.
"""

from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np

from sim.metering import Metering, check_metering
from traces.record import FAILED, SERVED, Run
from traces.trace import Floats

POWER_SLACK = 1.05
SIMULATED_TOLERANCE = 1e-9
MEASURED_TOLERANCE = 0.02
OUT_OF_RANGE_LIMIT = 0.05


def check(run: Run, metering: Metering | None = None) -> tuple[str, ...]:
    """Return why the run is not to be believed, nothing if every guard holds.

    Args:
        run: A run whose meta holds all but the verdict.
        metering: How a measured run's energy was metered, which the run itself does not tell.
    """
    reasons = [f"guard {n}: {reason}" for n, guard in enumerate(GUARDS, 1) for reason in guard(run)]
    if metering is not None:
        reasons += [f"guard {n}: {reason}" for n, reason in check_metering(metering, len(GUARDS) + 1)]
    return tuple(reasons)


def every_request_ends(run: Run) -> Iterator[str]:
    """Guard 1. served + failed = offered."""
    offered, status = run.meta.requests, run.outcomes.status
    served, failed = int(np.count_nonzero(status == SERVED)), int(np.count_nonzero(status == FAILED))
    if served + failed != offered or len(run.outcomes) != offered:
        yield f"{served} served + {failed} failed, {len(run.outcomes)} recorded, but {offered} were offered"


def served_means_served(run: Run) -> Iterator[str]:
    """Guard 2. What counts as served was released and has a first token, a last one, and tokens."""
    o = run.outcomes
    whole = np.isfinite(o.released_s + o.first_token_s + o.finished_s) & (o.output_tokens > 0)
    broken = o.request_id[(o.status == SERVED) & ~whole]
    if len(broken):
        yield f"{len(broken)} requests count as served but were not, the first is {broken[0]}"


def causes_precede_effects(run: Run) -> Iterator[str]:
    """Guard 3. arrival <= released <= first token <= finished <= makespan, as far as a request got."""
    o = run.outcomes
    moments = {
        "arrival": o.arrival_s,
        "release": o.released_s,
        "first token": o.first_token_s,
        "finish": o.finished_s,
        "the makespan": np.full(len(o), run.meta.makespan_s),
    }
    for before, after in pairwise(moments):
        late = o.request_id[moments[before] > moments[after]]
        if len(late):
            yield f"{before} comes after {after} in {len(late)} requests, the first is {late[0]}"


def energy_is_known(run: Run) -> Iterator[str]:
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


def idling_is_the_least(run: Run) -> Iterator[str]:
    """Guard 5. energy >= idle power * makespan."""
    meta, total_j = run.meta, run.total_energy_j
    if total_j is None or meta.idle_w is None:
        return
    least_j = meta.idle_w * meta.makespan_s
    if total_j < least_j * (1 - _tolerance(run)):
        yield f"{total_j:.6g} J is less than idling alone takes, {least_j:.6g} J"


def power_is_within_limit(run: Run) -> Iterator[str]:
    """Guard 6. energy / makespan <= 1.05 * power limit, per GPU."""
    meta, total_j = run.meta, run.total_energy_j
    if total_j is None or meta.power_limit_w is None or meta.makespan_s <= 0:
        return
    mean_w, most_w = total_j / meta.makespan_s / meta.gpus, POWER_SLACK * meta.power_limit_w
    if mean_w > most_w:
        yield f"mean power is {mean_w:.6g} W per GPU, above {POWER_SLACK} x the limit = {most_w:.6g} W"


def parts_sum_to_the_counter(run: Run) -> Iterator[str]:
    """Guard 7. prefill + decode + idle = total, the counter's last value: simulated 1e-9, measured 2 %."""
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


def shares_sum_to_the_total(run: Run) -> Iterator[str]:
    """Guard 8. The requests' shares + unattributed idle = total, where shares are known."""
    energy, shares_j = run.meta.energy, run.outcomes.energy_j
    known_j: Floats = shares_j[~np.isnan(shares_j)]
    if energy is None or not len(known_j):
        return
    if (known_j < 0).any():
        yield f"a request's share of the energy must be >= 0 J, the least is {known_j.min():.6g} J"
    sum_j = float(known_j.sum()) + energy.idle_j
    if _differ(sum_j, energy.total_j, _tolerance(run)):
        yield f"the requests' shares + idle = {sum_j:.9g} J, but the total is {energy.total_j:.9g} J"


def steps_are_within_the_table(run: Run) -> Iterator[str]:
    """Guard 9. Simulated: at most 5 % of the steps lie outside what the cost table measured."""
    fraction = run.meta.out_of_range_fraction
    if fraction is not None and fraction > OUT_OF_RANGE_LIMIT:
        yield (
            f"{100 * fraction:.3g} % of the steps lie outside the measured range of table {run.meta.table}; "
            f"at most {100 * OUT_OF_RANGE_LIMIT:.3g} % may"
        )


GUARDS: tuple[Callable[[Run], Iterator[str]], ...] = (
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


def _tolerance(run: Run) -> float:
    return SIMULATED_TOLERANCE if run.meta.kind == "simulated" else MEASURED_TOLERANCE


def _differ(one: float, other: float, tolerance: float) -> bool:
    # Written so that NaN differs from everything.
    return not abs(one - other) <= tolerance * max(abs(one), abs(other))
