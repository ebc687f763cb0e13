"""The utilisation estimate: the power limit while the GPU is busy, as monitors tell it."""

from sim.pools import Pools
from traces.record import Run


def utilisation_energy_j(run: Run, fleet: Pools) -> tuple[float, float]:
    """Return joules of a simulated run at the power limit while a step runs: without idle power, and with it.

    A monitor's utilisation is 100 % whenever any kernel runs. The first is power limit * GPUs * busy seconds,
    summed over the replicas; the second adds their idle power for the seconds between the steps.

    Args:
        run: By simulation.
        fleet: What served it.
    """
    uses = run.meta.replicas
    tables = [pool.table for pool in fleet.replicas]
    limits_w = [table.power_limit_w * table.gpus for table in tables]
    busy_j = sum(limit_w * use.busy_s for limit_w, use in zip(limits_w, uses, strict=True))
    return busy_j, busy_j + sum(use.idle_w * use.idle_s for use in uses)
