"""A rig around servers that run already: no engine is started, GPUs of this host are metered or none."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from backends.gpu_watch import ServerWatch
from backends.meter import SAMPLE, Meter
from backends.openai_engine import OpenAiEngine
from backends.replicas import Replicas
from backends.rig import Rig, warm_up


class NoMeter:
    """Stands where a meter would and has no samples."""

    def samples(self, since_s: float) -> NDArray[np.void]:  # noqa: ARG002
        """Return none."""
        return np.zeros(0, dtype=SAMPLE)


@asynccontextmanager
async def openai_rig(
    servers: Sequence[OpenAiEngine], router: str, gpus: tuple[int, ...], folder: Path, seed: int = 0
) -> AsyncIterator[Rig]:
    """Connect to servers and start a meter; end both afterwards, the servers go on.

    Args:
        servers: At least one, not connected yet; several are replicas.
        router: Name of the router of several, one of `sim.router_registry.ROUTERS`.
        gpus: NVML indices of the GPUs of this host that the servers use, none to meter nothing.
        folder: Exists; takes the meter's samples while they are collected.
        seed: Seed of the warm-up's tokens.

    Raises:
        MeterError: A GPU cannot be metered.
        ValueError: A server is not there or not fit, servers differ, or nobody computes on a GPU.
    """
    watch = ServerWatch(gpus)
    meter_file = folder / "meter.bin"
    async with AsyncExitStack() as stack:
        for server in servers:
            stack.push_async_callback(server.close)
            await server.start()
        meter = stack.enter_context(Meter(meter_file, gpus)) if gpus else NoMeter()
        for server in servers:
            await warm_up(server, seed)
        rig = Rig(servers[0], meter, None, watch, meter_file, servers[0].notes)
        if len(servers) > 1:
            fleet = Replicas(servers, router)
            rig = replace(rig, engine=fleet, replica_of=fleet.replica_of)
        yield rig
