"""The utilisation estimate: the power limit while the GPU is busy, as monitors tell it."""

from traces.record import Run


def utilisation_energy_j(run: Run) -> tuple[float, float]:
    """Return joules of a simulated run at the power limit while a step runs: without idle power, and with it.

    A monitor's utilisation is 100 % whenever any kernel runs. The first is power limit * GPUs * busy
    seconds; the second adds the idle power for the seconds between the steps.

    Raises:
        ValueError: The run does not tell when its GPUs were busy.
    """
    limit_w = run.meta.power_limit_w
    if not run.meta.replicas or limit_w is None:
        raise ValueError(f"{run.meta.run_id} tells no busy time; estimate from a simulated run")
    gpus = run.meta.gpus / len(run.meta.replicas)
    busy_j = sum(limit_w * gpus * replica.busy_s for replica in run.meta.replicas)
    return busy_j, busy_j + sum(replica.idle_w * replica.idle_s for replica in run.meta.replicas)
