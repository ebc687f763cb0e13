"""A vLLM for child processes: it notes what it is told beside its model, and a scripted GPU draws for it."""

import importlib.metadata
import os
import time
from pathlib import Path
from typing import Any

import fake_vllm

SECONDS = {"start": 0.6, "sleep 1": 0.5, "wake 1": 0.4, "sleep 2": 0.3, "reload": 0.6, "shutdown": 0.5}
WATTS = {
    "start": 300.0,
    "sleep 1": 200.0,
    "wake 1": 250.0,
    "sleep 2": 180.0,
    "reload": 240.0,
    "shutdown": 220.0,
}
ON_W, ASLEEP_W, OFF_W = 120.0, {1: 110.0, 2: 105.0}, 80.0


class SleepyLLM(fake_vllm.AsyncLLM):
    """Sleeps, wakes and stops in the seconds and at the power above."""

    @classmethod
    def from_engine_args(cls, options: Any, usage_context: str) -> "SleepyLLM":
        started = super().from_engine_args(options, usage_context)
        assert isinstance(started, cls)
        started.act("start", ON_W)
        print("a line on standard output, as libraries write them")
        return started

    async def sleep(self, level: int = 1) -> None:
        await super().sleep(level)
        if os.environ.get("SLEEPY_VLLM_HANGS"):
            time.sleep(60)
        self.act(f"sleep {level}", ASLEEP_W[level])

    async def is_sleeping(self) -> bool:
        return False

    async def wake_up(self, tags: list[str] | None = None) -> None:
        if tags is None:
            self.act("wake 1", ON_W)

    async def collective_rpc(self, method: str) -> None:
        assert method == "reload_weights"
        self.act("reload", ON_W)
        if os.environ.get("SLEEPY_VLLM_CANNOT_RELOAD"):
            raise NotImplementedError("Model reloading with `dummy` format")

    def shutdown(self) -> None:
        self.act("shutdown", OFF_W)

    def act(self, name: str, then_w: float) -> None:
        """Note an act and take its time and power."""
        with open(Path(self.options.model) / "told.txt", "a") as out:
            print(name, file=out)
        draw(WATTS[name])
        time.sleep(SECONDS[name])
        draw(then_w)


def draw(power_w: float) -> None:
    """Let GPU 0 of a scripted NVML draw this from now on, where there is one."""
    script = os.environ.get("SCRIPTED_NVML")
    if script:
        with open(script, "a") as out:
            print(f"{time.monotonic():.9f} 0 power_w {power_w}", file=out)


class Modules:
    """As much of pytest's monkeypatch as `fake_vllm.install` needs."""

    @staticmethod
    def setitem(where: dict[str, Any], name: str, value: Any) -> None:
        """Put a module in its place."""
        where[name] = value


def stand_in() -> None:
    """Take vLLM's place in this process."""
    fake_vllm.AsyncLLM = SleepyLLM  # type: ignore[misc]
    fake_vllm.install(Modules())  # type: ignore[arg-type]
    importlib.metadata.version = lambda distribution_name: f"{distribution_name}'s version"


def make_package(folder: Path) -> Path:
    """Make a package `vllm` in a folder, which is this one, and return the folder."""
    package = folder / "vllm"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("import sleepy_vllm\nsleepy_vllm.stand_in()\n")
    return folder
