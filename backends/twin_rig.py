"""A rig around the twin: the real vLLM on pretend GPUs, and a meter that reads their pretend counters."""

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from backends.meter import Meter
from backends.nvml import GpuFacts
from backends.replica_rig import fleet_rig
from backends.rig import Rig, warm_up
from backends.step_log import read_steps
from backends.twin import FOLDER_VARIABLE
from backends.vllm_engine import VllmEngine
from sim.table import CostTable
from sim.table_files import save_table

TWIN_CLASSES = {
    "distributed_executor_backend": "backends.twin_executor.TwinExecutor",
    "scheduler_cls": "backends.twin_scheduler.TwinScheduler",
}
OWN = ("model", "vllm", "torch", "num_gpu_blocks", "cudagraph_capture_sizes", "random_weights", "vocabulary")
"""Facts of a table's engine that are not given to the twin's, or not by this name."""
PRICED = (
    *TWIN_CLASSES,
    "dtype",
    "quantization",
    "kv_cache_dtype",
    "speculative_config",
    "enable_lora",
    "tensor_parallel_size",
    "pipeline_parallel_size",
    "data_parallel_size",
    "enforce_eager",
    "compilation_config",
    "cudagraph_capture_sizes",
    "gpu_memory_utilization",
)
"""Options that change what a step costs, or what a GPU holds: the table has its own, the twin no other."""


@dataclass(slots=True)
class TwinWatch:
    """What is known of pretend GPUs: nobody else computes on them.

    Attributes:
        facts: One for each GPU that the table's engine spans, by the names of the GPU measured.
        engine_uuids: Theirs.
    """

    facts: tuple[GpuFacts, ...]
    engine_uuids: tuple[str, ...]

    def foreign_process_ids(self) -> tuple[int, ...]:
        """Return none."""
        return ()

    def uuid_hashes(self) -> list[str]:
        """Return that there is no card."""
        return ["twin"] * len(self.facts)


def watch_twins(table: CostTable, replicas: int) -> TwinWatch:
    """Return the pretend GPUs of so many engines of a table."""
    facts = tuple(
        GpuFacts(table.gpu, f"twin-{index}", "none, a twin", table.power_limit_w, mig=False, process_ids=())
        for index in range(replicas * table.gpus)
    )
    return TwinWatch(facts, tuple(fact.uuid for fact in facts))


def twin_options(table: CostTable, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return vLLM's options for the twin: those that the table's engine had, changed as `given`.

    As in vLLM, max_num_seqs is at most the budget where it is not given.

    Raises:
        ValueError: The table's times would not hold under an option.
    """
    for name in PRICED:
        if name in given and given[name] != table.engine.get(name):
            raise ValueError(
                f"{name}={given[name]}: the twin takes its times from table {table.name}, which was measured "
                f"with {table.engine.get(name, 'the default')}; leave it out, or give a table measured so"
            )
    options = {name: value for name, value in table.engine.items() if name not in OWN}
    if "num_gpu_blocks" in table.engine:
        options["num_gpu_blocks_override"] = table.engine["num_gpu_blocks"]
    options |= given
    budget, seqs = options.get("max_num_batched_tokens"), options.get("max_num_seqs")
    if budget is not None and seqs is not None and "max_num_seqs" not in given:
        options["max_num_seqs"] = min(seqs, budget)
    return options | TWIN_CLASSES


@asynccontextmanager
async def twin_rig(
    table: CostTable,
    model: str,
    options: Mapping[str, Any],
    folder: Path,
    seed: int = 0,
    replicas: int = 1,
    router: str = "round-robin",
) -> AsyncIterator[Rig]:
    """Start vLLM on pretend GPUs, once or several times, and a meter beside it; end all afterwards.

    Args:
        table: What steps cost.
        model: A model's folder, of which only the configuration is read, or a name.
        options: vLLM engine options, where they differ from the table's.
        folder: Exists; takes the table, the pretend GPUs' energy, the meter's samples and the step logs.
        seed: Seed of the warm-up's tokens.
        replicas: How many engines, each on pretend GPUs of its own.
        router: Router of several, as `sim.router_registry.make_router` takes it.

    Raises:
        ValueError: vLLM is missing, does not know the twin, or refuses an option, or the table does.
    """
    os.environ.setdefault("VLLM_LOGGING_STREAM", "ext://sys.stderr")  # standard output is for results
    own = [folder / f"replica-{replica}" for replica in range(replicas)]
    logs = [twin / "steps.bin" for twin in own]
    given = {"load_format": "dummy", **twin_options(table, options)}
    engines = [VllmEngine(model, given, log) for log in logs]
    try:
        for engine, twin, log in zip(engines, own, logs, strict=True):
            twin.mkdir()
            save_table(table, twin)
            log.write_bytes(b"")
            os.environ[FOLDER_VARIABLE] = str(twin)  # an engine's processes are twins of the folder named now
            _ensure_twin()
            await engine.start()
        watch, meter_file = watch_twins(table, replicas), folder / "meter.bin"
        with Meter(meter_file, tuple(range(len(watch.facts))), own) as meter:
            for engine in engines:
                await warm_up(engine, seed)
            said = notes(table, engines[0].facts())
            rig = Rig(engines[0], meter, partial(read_steps, logs[0]), watch, meter_file, said, table)
            yield rig if replicas == 1 else fleet_rig(rig, engines, logs, router)
    finally:
        for engine in engines:
            engine.stop()
        os.environ.pop(FOLDER_VARIABLE, None)


def notes(table: CostTable, facts: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what to say of a run on the twin, whose engine tells `facts`."""
    said = [
        f"Nothing was measured: the GPU was a twin, whose steps take the time and the energy that table "
        f"{table.name} says. The processor's time is this machine's."
    ]
    if table.source != "measured":
        said.append(f"Cost table {table.name} is not measured: {table.measured_on}.")
    if facts["vllm"] != table.engine.get("vllm"):
        said.append(f"The table was measured with vLLM {table.engine.get('vllm')}, this is {facts['vllm']}.")
    return tuple(said)


def _ensure_twin() -> None:
    from vllm.platforms import current_platform  # pyright: ignore[reportMissingImports]

    from backends.twin_platform import TwinPlatform

    if not isinstance(current_platform, TwinPlatform):
        raise ValueError(
            "vLLM does not find the twin, which is a plugin of this project; install the project again in "
            "vLLM's environment (pip install --no-deps -e .), and unset VLLM_TARGET_DEVICE"
        )
