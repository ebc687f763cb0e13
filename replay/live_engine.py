"""A live engine as the command line names it, and what measures on it."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from backends.rig import Rig


@dataclass(frozen=True, slots=True)
class LiveEngine:
    """A vLLM to start and GPUs to meter.

    Attributes:
        model: A model's name or folder.
        options: vLLM engine options, `name=value`.
        gpus: NVML indices to meter; none for those that the engine uses.
    """

    model: str
    options: tuple[str, ...]
    gpus: tuple[int, ...]

    @asynccontextmanager
    async def rig(self, seed: int) -> "AsyncIterator[Rig]":
        """Start the engine and its meter; end both afterwards.

        Args:
            seed: Seed of the warm-up's tokens.

        Raises:
            ValueError: vLLM is missing or refuses an option, or the GPU cannot be metered.
        """
        from backends import rig
        from replay.calibrate import parse_engine_options

        options = parse_engine_options(self.options)
        with TemporaryDirectory(prefix="replay-") as folder, metered():
            async with rig.vllm_rig(self.model, options, self.gpus, Path(folder), seed) as running:
                yield running


@contextmanager
def metered() -> Iterator[None]:
    """Turn a meter that cannot be read into bad input."""
    from backends.nvml import MeterError

    try:
        yield
    except MeterError as error:
        raise ValueError(str(error)) from error
