"""NVML without a GPU: a library that says what a script tells it, for the real pynvml in child processes."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SOURCE = HERE / "fake_nvml.c"
GPU_IS_LOST = 15
ALL = "*"


class ScriptedNvml:
    """A script for `fake_nvml.c`, which lists its keys; times are seconds since `zero_s`, in ascending order.

    Attributes:
        zero_s: Monotonic time at which the script begins.
        environment: What a child process needs to see these GPUs.
    """

    def __init__(self, library: Path, script: Path) -> None:
        self.zero_s = time.monotonic()
        self.script = script
        paths = [str(HERE.parent), str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]
        self.environment = {
            **os.environ,
            "LD_LIBRARY_PATH": str(library.parent),
            "SCRIPTED_NVML": str(script),
            "PYTHONPATH": os.pathsep.join(paths),
        }
        self.environment.pop("CUDA_VISIBLE_DEVICES", None)
        self._powers: list[tuple[float, int | str, float]] = []
        script.touch()
        self.say(-1.0, ALL, driver="580.0", tick_s=0.1, limit_w=700, clock_mhz=1980, temperature_c=40)
        self.say(-1.0, ALL, reasons=0, mig=0)

    def add_gpu(self, index: int, power_w: float) -> None:
        """Add a GPU that has drawn 50 kJ before, and draws `power_w` from the script's beginning on."""
        self.say(-1.0, index, name=f"NVIDIA Invented {index}", uuid=f"GPU-{index:08d}")
        self.say(-1.0, index, jump_j=50_000, power_w=power_w)

    def say(self, time_s: float, gpu: int | str, **values: str | float) -> None:
        """Append lines: from `time_s` on these hold for the GPU, or for all of them."""
        for key, value in values.items():
            with open(self.script, "a") as out:
                out.write(f"{self.zero_s + time_s:.9f} {gpu} {key} {value}\n")
            if key == "power_w":
                self._powers.append((time_s, gpu, float(value)))

    def say_now(self, gpu: int | str, **values: str | float) -> None:
        """Append lines that hold from now on."""
        self.say(time.monotonic() - self.zero_s, gpu, **values)

    def energy_j(self, gpu: int, from_s: float, to_s: float) -> float:
        """Return the integral of the scripted power."""
        mine = [(at_s, watts) for at_s, named, watts in self._powers if named in (gpu, ALL)]
        ends_s = [at_s for at_s, _ in mine[1:]] + [float("inf")]
        return sum(
            watts * max(min(end_s, to_s) - max(at_s, from_s), 0.0)
            for (at_s, watts), end_s in zip(mine, ends_s, strict=True)
        )

    def run(self, *arguments: str, timeout_s: float = 180) -> "subprocess.CompletedProcess[str]":
        """Run Python with these arguments, seeing the scripted GPUs."""
        command = [sys.executable, *arguments]
        return subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=timeout_s, check=False
        )


@pytest.fixture(scope="session")
def nvml_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compile the scripted NVML."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler (cc) to build the scripted NVML with")
    library = tmp_path_factory.mktemp("nvml") / "libnvidia-ml.so.1"
    flags = ["-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    subprocess.run([compiler, *flags, "-o", str(library), str(SOURCE), "-lm"], check=True)
    return library


@pytest.fixture
def nvml(nvml_library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ScriptedNvml:
    """Return a script without GPUs that the processes started by this test see."""
    scripted = ScriptedNvml(nvml_library, tmp_path / "nvml.script")
    for name in ("LD_LIBRARY_PATH", "SCRIPTED_NVML"):
        monkeypatch.setenv(name, scripted.environment[name])
    return scripted
