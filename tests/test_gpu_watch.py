"""Which GPUs an engine uses and who computes on them, over a scripted NVML."""

import pytest
from scripted_nvml import ScriptedNvml

WATCH = """
import os, sys, time
from backends.gpu_watch import GpuWatch

def come(gpu, process):
    with open(os.environ["SCRIPTED_NVML"], "a") as script:
        script.write(f"{time.monotonic()} {gpu} process {process}\\n")

watch = GpuWatch((0, 1), (0, 1))
"""


def watch(nvml: ScriptedNvml, *lines: str) -> list[str]:
    """Run lines of code beside a watch of GPUs 0 and 1 of three, and return what they print."""
    for gpu in range(3):
        nvml.add_gpu(gpu, 80)
    done = nvml.run("-c", "\n".join([WATCH, *lines]))
    return [*done.stdout.splitlines(), *done.stderr.splitlines()[-1:]]


@pytest.mark.parametrize(
    ("came", "is_refused"),
    [((0, 1), False), ((0, 1, 2), False), ((), False), ((2,), True), ((0, 2), True), ((0,), False)],
)
def test_an_engine_is_refused_only_if_it_went_elsewhere(
    nvml: ScriptedNvml, came: tuple[int, ...], is_refused: bool
) -> None:
    said = watch(nvml, *(f"come({gpu}, 99)" for gpu in came), "watch.engine_is_up()", "print('up')")
    if is_refused:
        lonely = min({0, 1} - set(came))
        assert f"GPU {lonely} is metered, but the engine computes on GPU 2; set CUDA_VISIBLE" in said[-1]
    else:
        assert said == ["up"]


def test_who_comes_before_and_after_the_engine_is_a_stranger(nvml: ScriptedNvml) -> None:
    nvml.say(-1.0, 1, process=7)
    said = watch(
        nvml,
        "print(watch.foreign_process_ids())",
        "come(0, 99); come(1, 99); watch.engine_is_up()",
        "print(watch.foreign_process_ids())",
        "come(1, 8); come(2, 9)",
        "print(watch.foreign_process_ids())",
        "come(1, -7); come(1, -8); come(0, -99)",
        "print(watch.foreign_process_ids())",
    )
    assert said == ["(7,)", "(7,)", "(7, 8)", "()"]
