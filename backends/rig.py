"""A rig: a started, warm engine with a meter around it, ready to replay one trace after another."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from backends.gpu_watch import engine_gpus, free_gpus
from backends.meter import SAMPLE, Meter, read_samples
from backends.nvml import GpuFacts
from backends.prompted_engine import TokenEngine
from backends.prompts import SAFE_VOCABULARY, TokenDrawer
from backends.step_log import read_steps
from backends.vllm_engine import VllmEngine
from sim.table import CostTable

WARM_UPS = ((500, 32), (3000, 8))
"""Prompt and output tokens of the requests before the first replay, WARM_UP_WIDTH of each together."""
WARM_UP_WIDTH = 8
DEFAULT_MODEL_LEN = 4096
"""Tokens that a model is taken to hold if nobody says."""


class Samples(Protocol):
    """A running meter."""

    def samples(self, since_s: float) -> NDArray[np.void]:
        """Return the samples from `since_s` on, dtype `backends.meter.SAMPLE`; MeterError if it died."""
        ...


class Watch(Protocol):
    """What is known of the metered GPUs: `backends.gpu_watch.GpuWatch` or a stand-in."""

    facts: tuple[GpuFacts, ...]
    engine_uuids: tuple[str, ...]

    def foreign_process_ids(self) -> tuple[int, ...]:
        """Return who computes on the metered GPUs now and is not the engine."""
        ...

    def uuid_hashes(self) -> list[str]:
        """Return what identifies the metered GPUs without naming them."""
        ...


@dataclass(frozen=True, slots=True)
class Rig:
    """What a measured replay drives and reads.

    Attributes:
        engine: Started and warm.
        meter: Running.
        steps_since: Returns the step log from a monotonic time on, dtype `backends.step_log.STEP`; None for
            an engine that tells nothing of its steps.
        gpus: The metered GPUs.
        meter_file: Where the meter's samples are, should it die.
        notes: What the user should know of the engine.
        twin: The cost table that pretends to be the GPUs, None where they are real.
        replica_of: Returns which replica a request of that id was sent to; None where there is but one.
        parts: Each of several replicas of this process as a rig of its own, with its own GPUs.
    """

    engine: TokenEngine
    meter: Samples
    steps_since: Callable[[float], NDArray[np.void]] | None
    gpus: Watch
    meter_file: Path
    notes: tuple[str, ...] = ()
    twin: CostTable | None = None
    replica_of: Callable[[str], int | None] | None = None
    parts: "tuple[Rig, ...]" = ()

    def last_samples(self, since_s: float) -> NDArray[np.void]:
        """Return the samples from `since_s` on that a dead meter has left behind, perhaps none."""
        if not self.meter_file.exists():
            return np.zeros(0, dtype=SAMPLE)
        return read_samples(self.meter_file, since_s)


@asynccontextmanager
async def vllm_rig(
    model: str, options: Mapping[str, Any], gpus: tuple[int, ...], folder: Path, seed: int = 0
) -> AsyncIterator[Rig]:
    """Start vLLM in this process and a meter beside it; end both afterwards.

    Args:
        model: A model's name or folder; a folder without weights runs on random ones.
        options: vLLM engine options.
        gpus: NVML indices of the GPUs to meter; none for those that the engine uses.
        folder: Exists; takes the meter's samples and the step log while they are collected.
        seed: Seed of the warm-up's tokens.

    Raises:
        MeterError: A GPU cannot be metered.
        ValueError: vLLM is missing or refuses an option, or somebody computes on a GPU already.
    """
    os.environ.setdefault("VLLM_LOGGING_STREAM", "ext://sys.stderr")  # standard output is for results
    used = engine_gpus(options, os.environ)
    watch = free_gpus(gpus or used, used)
    step_log = folder / "steps.bin"
    step_log.write_bytes(b"")
    engine = VllmEngine(model, options, step_log)
    try:
        await engine.start()
        watch.engine_is_up()
        meter_file = folder / "meter.bin"
        with Meter(meter_file, gpus or used) as meter:
            await warm_up(engine, seed)
            yield Rig(engine, meter, lambda since_s: read_steps(step_log, since_s), watch, meter_file)
    finally:
        engine.stop()


async def warm_up(engine: TokenEngine, seed: int) -> None:
    """Send requests of several sizes that are not measured, and wait for them."""
    facts = engine.facts()
    drawer = TokenDrawer(int(facts.get("vocabulary", SAFE_VOCABULARY)), (seed, 0))
    most = int(facts.get("max_model_len", DEFAULT_MODEL_LEN)) // 2
    for prompt_tokens, output_tokens in WARM_UPS:
        prompts = [drawer.fresh(min(prompt_tokens, most)).tolist() for _ in range(WARM_UP_WIDTH)]
        await asyncio.gather(
            *(
                _drain(engine.generate(f"warm-up-{prompt_tokens}-{number}", prompt, min(output_tokens, most)))
                for number, prompt in enumerate(prompts)
            )
        )


async def _drain(deliveries: AsyncIterator[int]) -> None:
    async for _ in deliveries:
        pass
