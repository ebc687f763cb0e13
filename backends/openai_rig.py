"""A rig around servers that run already: no engine is started, GPUs of this host are metered or none."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from backends.gpu_watch import ServerWatch
from backends.meter import SAMPLE, Meter
from backends.openai_engine import OpenAiEngine
from backends.rig import Rig, warm_up


class NoMeter:
    """Stands where a meter would and has no samples."""

    def samples(self, since_s: float) -> NDArray[np.void]:  # noqa: ARG002
        """Return none."""
        return np.zeros(0, dtype=SAMPLE)


@asynccontextmanager
async def openai_rig(
    server: OpenAiEngine, gpus: tuple[int, ...], folder: Path, seed: int = 0
) -> AsyncIterator[Rig]:
    """Connect to a server and start a meter; end both afterwards, the server goes on.

    Args:
        server: Not connected yet.
        gpus: NVML indices of the GPUs of this host that the server uses, none to meter nothing.
        folder: Exists; takes the meter's samples while they are collected.
        seed: Seed of the warm-up's tokens.

    Raises:
        MeterError: A GPU cannot be metered.
        ValueError: The server is not there or not fit, or nobody computes on a GPU.
    """
    watch = ServerWatch(gpus)
    meter_file = folder / "meter.bin"
    async with AsyncExitStack() as stack:
        stack.push_async_callback(server.close)
        await server.start()
        meter = stack.enter_context(Meter(meter_file, gpus)) if gpus else NoMeter()
        await warm_up(server, seed)
        yield Rig(server, meter, None, watch, meter_file, server.notes)
