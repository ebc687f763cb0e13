"""A live engine as the command line names it, and what measures on it."""

from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from backends.rig import Rig


class LiveEngine(Protocol):
    """What replays run on in real time: a `StartedVllm` or a `RunningServer`."""

    def rig(self, seed: int) -> "AbstractAsyncContextManager[Rig]":
        """Start what is to be started, and its meter; end it afterwards.

        Args:
            seed: Seed of the warm-up's tokens.

        Raises:
            ValueError: The engine does not start or is not there, or a GPU cannot be metered.
        """
        ...


@dataclass(frozen=True, slots=True)
class StartedVllm:
    """A vLLM to start, or several, and GPUs to meter.

    Attributes:
        model: A model's name or folder.
        options: vLLM engine options, `name=value`.
        gpus: NVML indices to meter; none for those that the engine uses, and always none for several.
        replicas: How many engines, each on GPUs of its own.
        router: Name of the router of several.
    """

    model: str
    options: tuple[str, ...]
    gpus: tuple[int, ...]
    replicas: int = 1
    router: str = "round-robin"

    @asynccontextmanager
    async def rig(self, seed: int) -> "AsyncIterator[Rig]":
        """Start the engine and its meter; end both afterwards."""
        from backends import replica_rig, rig
        from replay.calibrate import parse_engine_options

        options = parse_engine_options(self.options)
        with TemporaryDirectory(prefix="replay-") as name, metered():
            folder = Path(name)
            if self.replicas == 1:
                starting = rig.vllm_rig(self.model, options, self.gpus, folder, seed)
            else:
                starting = replica_rig.replica_rig(
                    self.model, options, folder, self.replicas, self.router, seed
                )
            async with starting as running:
                yield running


@dataclass(frozen=True, slots=True)
class RunningServer:
    """An OpenAI server that runs, or several replicas, and GPUs to meter.

    Attributes:
        urls: Where the API of each begins.
        model: A name that it serves or its folder, None for the only one.
        vocabulary: Token ids are below it; None for what the model's folder says, if given.
        gpus: NVML indices to meter, none to meter nothing.
    """

    urls: tuple[str, ...]
    model: str | None
    vocabulary: int | None
    gpus: tuple[int, ...]
    router: str

    @asynccontextmanager
    async def rig(self, seed: int) -> "AsyncIterator[Rig]":
        """Connect to the server and start the meter; end both afterwards."""
        from backends.openai_engine import OpenAiEngine
        from backends.openai_rig import openai_rig

        servers = [OpenAiEngine(url, self.model, self.vocabulary) for url in self.urls]
        with TemporaryDirectory(prefix="replay-") as folder, metered():
            async with openai_rig(servers, self.router, self.gpus, Path(folder), seed) as running:
                yield running


@contextmanager
def metered() -> Iterator[None]:
    """Turn a meter that cannot be read into bad input."""
    from backends.nvml import MeterError

    try:
        yield
    except MeterError as error:
        raise ValueError(str(error)) from error
