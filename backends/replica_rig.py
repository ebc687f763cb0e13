"""A rig of several vLLM engines in this process, each on GPUs of its own."""

import os
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.gpu_watch import engine_gpus, free_gpus
from backends.meter import Meter
from backends.prompted_engine import TokenEngine
from backends.replicas import Replicas, merge_steps
from backends.rig import Rig, Samples, Watch, warm_up
from backends.step_log import read_steps
from backends.vllm_engine import VllmEngine

VISIBLE, ORDER = "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"


@asynccontextmanager
async def replica_rig(
    model: str,
    options: Mapping[str, Any],
    folder: Path,
    replicas: int,
    router: str,
    seed: int = 0,
) -> AsyncIterator[Rig]:
    """Start vLLM engines one after the other, and a meter of all their GPUs; end all afterwards.

    Args:
        model: A model's name or folder; a folder without weights runs on random ones.
        options: vLLM engine options, of each engine.
        folder: Exists; takes the meter's samples and the step logs while they are collected.
        replicas: How many engines.
        router: Name of the router, one of `sim.router_registry.ROUTERS`.
        seed: Seed of the warm-up's tokens.

    Raises:
        MeterError: A GPU cannot be metered.
        ValueError: vLLM is missing or refuses an option, there are too few GPUs, or somebody computes on one.
    """
    os.environ.setdefault("VLLM_LOGGING_STREAM", "ext://sys.stderr")  # standard output is for results
    gpus = engine_gpus(options, os.environ, replicas)
    watch = free_gpus(gpus, gpus)
    logs = [folder / f"steps-{replica}.bin" for replica in range(replicas)]
    engines = [VllmEngine(model, options, log) for log in logs]
    try:
        for engine, log, names in zip(engines, logs, visible_slices(os.environ, gpus, replicas), strict=True):
            log.write_bytes(b"")
            with visible(names):  # an engine's processes see the GPUs that are visible when they start
                await engine.start()
        watch.engine_is_up()
        with Meter(folder / "meter.bin", gpus) as meter:
            for engine in engines:
                await warm_up(engine, seed)
            first = Rig(engines[0], meter, partial(read_steps, logs[0]), watch, folder / "meter.bin")
            yield fleet_rig(first, engines, logs, router)
    finally:
        for engine in engines:
            engine.stop()


def fleet_rig(rig: Rig, engines: Sequence[TokenEngine], logs: Sequence[Path], router: str) -> Rig:
    """Return equal engines behind a router as one rig, whose parts are a rig for each of them.

    Args:
        rig: Of the first engine, but meter and watch are of all GPUs, each engine's one after the other and
            the same number for each.
        engines: Started and warm.
        logs: Their step logs.
        router: Name of the router, one of `sim.router_registry.ROUTERS`.

    Raises:
        ValueError: The engines differ, or there is no such router.
    """
    fleet = Replicas(engines, router)
    each = len(rig.gpus.facts) // len(engines)
    own = [slice(replica * each, (replica + 1) * each) for replica in range(len(engines))]
    parts = [
        replace(
            rig,
            engine=engine,
            meter=PartOfMeter(rig.meter, places),
            steps_since=partial(read_steps, log),
            gpus=PartOfWatch(rig.gpus, places),
        )
        for engine, log, places in zip(engines, logs, own, strict=True)
    ]
    return replace(
        rig,
        engine=fleet,
        steps_since=lambda since_s: merge_steps([read_steps(log, since_s) for log in logs]),
        replica_of=fleet.replica_of,
        parts=tuple(parts),
    )


class PartOfMeter:
    """What a meter reads of the GPUs in some places among those that are metered."""

    def __init__(self, whole: Samples, places: slice) -> None:
        self._whole = whole
        self._places = places

    def samples(self, since_s: float) -> NDArray[np.void]:
        """Return the samples of these GPUs from `since_s` on; MeterError if the meter died."""
        rows = self._whole.samples(since_s)
        own: NDArray[np.void] = rows[np.isin(rows["gpu"], range(self._places.start, self._places.stop))]
        return own


class PartOfWatch:
    """What a watch knows of the GPUs in some places among those that are metered.

    Attributes:
        facts: Of these GPUs.
        engine_uuids: Their UUIDs.
    """

    def __init__(self, whole: Watch, places: slice) -> None:
        self._whole = whole
        self._places = places
        self.facts = whole.facts[places]
        self.engine_uuids = tuple(fact.uuid for fact in self.facts)

    def foreign_process_ids(self) -> tuple[int, ...]:
        """Return who computes on any of the metered GPUs now and is no engine."""
        return self._whole.foreign_process_ids()

    def uuid_hashes(self) -> list[str]:
        """Return what identifies these GPUs without naming them."""
        return self._whole.uuid_hashes()[self._places]


def visible_slices(environment: Mapping[str, str], gpus: tuple[int, ...], replicas: int) -> list[str]:
    """Return CUDA_VISIBLE_DEVICES for each replica: equal shares of the visible GPUs, in order.

    Args:
        environment: Where CUDA_VISIBLE_DEVICES may stand; its names are kept as they are.
        gpus: NVML indices of the GPUs to share out, the first visible ones.
        replicas: How many shares.
    """
    given = environment.get(VISIBLE)
    if given is None:
        names = [str(gpu) for gpu in gpus]
    else:
        names = [name.strip() for name in given.split(",") if name.strip()]
    each = len(gpus) // replicas
    return [",".join(names[replica * each : (replica + 1) * each]) for replica in range(replicas)]


@contextmanager
def visible(names: str) -> Iterator[None]:
    """Let only these GPUs be visible to processes that start meanwhile, counted in NVML's order."""
    before = {name: os.environ.get(name) for name in (VISIBLE, ORDER)}
    os.environ[VISIBLE] = names
    os.environ.setdefault(ORDER, "PCI_BUS_ID")
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
