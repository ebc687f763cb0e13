"""How far a measured run's steps are from a table's: what of an error is the GPU's, and what the host's."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from calibrate.timeline import Steps
    from sim.compare import StepErrors
    from sim.table import CostTable

FEWEST = 3
"""Steps without which a log tells nothing of their times."""


def step_errors(record: Path, table: "CostTable") -> "tuple[StepErrors, ...]":
    """Return the errors of the steps in a measured record, replayed as logged by a cost table.

    What each step held, and how long the engine waited for work, is taken from the log; each replica's steps
    are replayed on their own.

    Args:
        record: Folder of the record.
        table: Says what the steps should have taken.

    Returns:
        The kinds of steps that the record has; nothing if it has no steps.

    Raises:
        OSError: The steps cannot be read.
    """
    import numpy as np

    from calibrate.alike import FROM_NEXT_DECISION, alike
    from calibrate.timeline import replay_steps
    from sim.compare import STEP_KINDS, StepErrors

    sums = {kind: np.zeros(3) for kind in STEP_KINDS}
    for steps in _logs(record):
        replayed = replay_steps(table.coefficients, table.host, steps)
        for group in alike(steps, 0, len(steps.done_s) - 1):
            is_launch = group.since[0] == FROM_NEXT_DECISION
            kind = STEP_KINDS[2 if is_launch else int(steps.chunks[group.steps[0]] > 0)]
            modelled_s = group.sum_s(replayed.decided_s, replayed.done_s)
            sums[kind] += (len(group.steps), modelled_s, group.seconds)
    return tuple(
        StepErrors(kind, int(count), float(modelled_s / count), float(measured_s / count))
        for kind, (count, modelled_s, measured_s) in sums.items()
        if count
    )


def logged_energy_j(record: Path, table: "CostTable", makespan_s: float, replicas: int = 1) -> float | None:
    """Return the energy of a measured record by a cost table, its steps replayed as logged.

    What a simulated energy is off beyond this one comes of when steps ran and what they held.

    Args:
        record: Folder of the record.
        table: Says what each replica's steps should have drawn.
        makespan_s: From time 0 to the last completion of the run; a replica idles outside its steps.
        replicas: How many the run had.

    Returns:
        None if a replica has too few steps.

    Raises:
        OSError: The steps cannot be read.
    """
    from calibrate.timeline import replay_at_pace, replay_steps

    logs = list(_logs(record))
    if len(logs) < replicas:
        return None
    c = table.coefficients
    joules = 0.0
    for steps in logs:
        paced = replay_at_pace(c, table.host, steps, replay_steps(c, table.host, steps))
        idle_s = paced.begin_s[0] + makespan_s - paced.end_s[-1]
        joules += float(paced.energy_j[-1] + c.idle_w * idle_s)
    return joules


def _logs(record: Path) -> "Iterator[Steps]":
    """Yield the steps of each replica, of those that made enough."""
    import numpy as np

    from calibrate.timeline import steps_of
    from traces.record_files import read_attachment

    logged = read_attachment(record, "steps")
    if logged is None:
        return
    replica = logged.get("replica", np.zeros(len(logged["done_s"]), np.int64))
    for number in np.unique(replica):
        own = {name: column[replica == number] for name, column in logged.items()}
        if len(own["done_s"]) >= FEWEST:
            yield steps_of(own)
