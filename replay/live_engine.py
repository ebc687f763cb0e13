"""A live engine as the command line names it, and what measures on it."""

from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from backends.rig import Rig
    from sim.table import CostTable


class LiveEngine(Protocol):
    """What replays run on in real time: a `StartedVllm`, a `TwinVllm` or a `RunningServer`."""

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
        router: Router of several, as `sim.router_registry.make_router` takes it.
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
class TwinVllm:
    """A vLLM to start on pretend GPUs, or several (docs/twin.md).

    Attributes:
        table: What its steps take.
        model: A model's name or folder, None for that of the table.
        options: vLLM engine options, `name=value`, where they differ from the table's.
        replicas: How many engines, each on pretend GPUs of its own.
        router: Router of several, as `sim.router_registry.make_router` takes it.
    """

    table: "CostTable"
    model: str | None
    options: tuple[str, ...]
    replicas: int = 1
    router: str = "round-robin"

    @asynccontextmanager
    async def rig(self, seed: int) -> "AsyncIterator[Rig]":
        """Start the engine and the meter of its pretend GPUs; end both afterwards."""
        from backends.twin_rig import twin_rig
        from replay.calibrate import parse_engine_options

        model, options = self.model or shipped_model(self.table), parse_engine_options(self.options)
        with TemporaryDirectory(prefix="replay-") as folder, metered():
            starting = twin_rig(self.table, model, options, Path(folder), seed, self.replicas, self.router)
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


def shipped_model(table: "CostTable") -> str:
    """Return the folder of the model that a table was measured with.

    Raises:
        ValueError: It does not ship.
    """
    folder = model_folder(table)
    if not folder.is_dir():
        name = folder.name
        raise ValueError(f"table {table.name}: its model {name} does not ship; give the model by --model")
    return str(folder)


def model_folder(table: "CostTable") -> Path:
    """Return where the model that a table was measured with is, if it ships."""
    import calibrate

    return Path(calibrate.__path__[0]) / "models" / str(table.engine.get("model"))


@contextmanager
def metered() -> Iterator[None]:
    """Turn a meter that cannot be read into bad input."""
    from backends.nvml import MeterError

    try:
        yield
    except MeterError as error:
        raise ValueError(str(error)) from error
