"""The GPUs of a calibration: which are metered, and what a table tells of them."""

import os
from typing import Any

from backends.gpu_watch import GpuWatch, engine_gpus, free_gpus
from backends.rig import Watch


def watched_gpus(options: dict[str, Any], gpus: tuple[int, ...]) -> tuple[tuple[int, ...], GpuWatch]:
    """Return the NVML indices of the GPUs that the engine will use, and a watch on them.

    Args:
        options: vLLM engine options.
        gpus: Those that the user wants to be metered, none for the engine's.

    Raises:
        ValueError: They are others than the engine's, cannot be metered, or somebody computes on them.
    """
    used = engine_gpus(options, os.environ)
    if gpus and set(gpus) != set(used):
        given, right = (", ".join(map(str, sorted(indices))) for indices in (gpus, used))
        raise ValueError(
            f"--gpu is {given}, but the engine will use {right}; set CUDA_VISIBLE_DEVICES={given} too"
        )
    return used, free_gpus(used, used)


def gpu_facts(watch: Watch) -> dict[str, Any]:
    """Return what the table says about the metered GPUs.

    Raises:
        ValueError: They differ, or do not tell their power limit.
    """
    first = watch.facts[0]
    for fact in watch.facts:
        if (fact.name, fact.power_limit_w) != (first.name, first.power_limit_w):
            raise ValueError(f"the engine spans {first.name} and {fact.name}; a table is of equal GPUs")
    if first.power_limit_w is None:
        raise ValueError(f"NVML does not tell the power limit of {first.name}, which a table needs")
    return {
        "name": first.name,
        "driver": first.driver,
        "power_limit_w": first.power_limit_w,
        "gpus": len(watch.facts),
        "hashes": watch.uuid_hashes(),
    }
