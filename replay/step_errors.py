"""How far a measured run's steps are from a table's: what of an error is the GPU's, and what the host's."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from calibrate.timeline import Replayed, Steps
    from sim.compare import StepErrors
    from sim.table import CostTable

FEWEST = 3
"""Steps without which a log tells nothing of their times."""


@dataclass(frozen=True, slots=True)
class ReplayedLog:
    """What a replica's steps took, and what they should have taken.

    Attributes:
        table: Says what they should have taken.
        steps: As logged.
        replayed: By the table; what each step held, and how long the engine waited for work, is the log's.
    """

    table: "CostTable"
    steps: "Steps"
    replayed: "Replayed"


def replayed_logs(record: Path, tables: "Sequence[CostTable]") -> list[ReplayedLog]:
    """Return the steps in a measured record, and as cost tables replay them, of each replica with enough.

    Args:
        record: Folder of the record.
        tables: One for all replicas, or one for each.

    Raises:
        OSError: The steps cannot be read.
    """
    import numpy as np

    from calibrate.timeline import replay_steps, steps_of
    from traces.record_files import read_attachment

    logged = read_attachment(record, "steps")
    if logged is None:
        return []
    replica = logged.get("replica", np.zeros(len(logged["done_s"]), np.int64))
    logs = []
    for number in np.unique(replica):
        own = {name: column[replica == number] for name, column in logged.items()}
        if len(own["done_s"]) >= FEWEST:
            table, steps = tables[number if len(tables) > 1 else 0], steps_of(own)
            logs.append(ReplayedLog(table, steps, replay_steps(table.coefficients, table.host, steps)))
    return logs


def step_errors(logs: Sequence[ReplayedLog]) -> "tuple[StepErrors, ...]":
    """Return the errors of logged steps, as `replayed_logs` returns them: the kinds that there are."""
    import numpy as np

    from calibrate.alike import FROM_NEXT_DECISION, alike
    from sim.compare import STEP_KINDS, StepErrors

    sums = {kind: np.zeros(3) for kind in STEP_KINDS}
    for log in logs:
        steps, replayed = log.steps, log.replayed
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


def logged_energy_j(logs: Sequence[ReplayedLog], makespan_s: float, replicas: int = 1) -> float | None:
    """Return the energy of a measured run by its cost tables, at the pace at which its steps were logged.

    What a simulated energy is off beyond this one comes of when steps ran and what they held.

    Args:
        logs: The run's, as `replayed_logs` returns them.
        makespan_s: From time 0 to the last completion of the run; a replica idles outside its steps.
        replicas: How many the run had.

    Returns:
        None if a replica has too few steps.
    """
    from calibrate.timeline import replay_at_pace

    if len(logs) < replicas:
        return None
    joules = 0.0
    for log in logs:
        c = log.table.coefficients
        paced = replay_at_pace(c, log.table.host, log.steps, log.replayed)
        idle_s = paced.begin_s[0] + makespan_s - paced.end_s[-1]
        joules += float(paced.energy_j[-1] + c.idle_w * idle_s)
    return joules
