"""Replays traces one after another on one vLLM and keeps their records; a process of its own.

Arguments: the model's folder, the engine options as JSON, a folder, and names. NAME.parquet in the folder is
a trace; its record goes to the folder NAME. The engine waits until it has all requests of a trace, so that
they are there before its first step. From one second after the start of the last replay on, its GPU is lost.
"""

import asyncio
import json
import os
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from scripted_nvml import GPU_IS_LOST

IDLE_S = 0.5


async def replay_all(model: str, options: str, folder: Path, names: list[str]) -> None:
    """Replay each trace as if all its requests were there at time 0."""
    # vLLM's worker imports this file again, and cannot start where numba is imported.
    from backends import measured_run
    from backends.measured_record import Replay
    from backends.rig import vllm_rig
    from sim.offline import Offline
    from traces.reading import read_trace
    from traces.record_files import write_run

    measured_run.IDLE_BEFORE_S = measured_run.WAIT_AFTER_S = IDLE_S
    with TemporaryDirectory() as scratch:
        async with vllm_rig(model, json.loads(options), (), Path(scratch)) as rig:
            for name in names:
                if name == names[-1]:
                    lose_the_gpu_at(time.monotonic() + IDLE_S + 1.0)
                trace = read_trace(folder / f"{name}.parquet")
                held = asyncio.create_task(hold_for(IDLE_S + 0.5, rig.engine))
                measured = await measured_run.measure_replay(Replay(name, trace, Offline()), rig)
                await held
                write_run(measured.run, folder / name, attachments=measured.attachments)


async def hold_for(seconds: float, engine: Any) -> None:
    """Have vLLM take requests and schedule none for so long."""
    await engine._engine.pause_generation(mode="keep", clear_cache=False)
    await asyncio.sleep(seconds)
    await engine._engine.resume_generation()


def lose_the_gpu_at(time_s: float) -> None:
    """Have every call about a GPU fail from then on."""
    with open(os.environ["SCRIPTED_NVML"], "a") as script:
        script.write(f"{time_s:.9f} * fails {GPU_IS_LOST}\n")


if __name__ == "__main__":
    asyncio.run(replay_all(sys.argv[1], sys.argv[2], Path(sys.argv[3]), sys.argv[4:]))
