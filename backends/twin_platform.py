"""The twin as a vLLM platform: a GPU by its options, with nothing to compute on; imported by vLLM only."""

import os
from typing import Any

from vllm.platforms.interface import Platform, PlatformEnum  # pyright: ignore[reportMissingImports]

from backends.twin import FOLDER_VARIABLE
from sim.table_files import load_table

MEMORY_BYTES = 2**40
"""More than any table's engine needs: its KV blocks are given, not found by profiling."""


class TwinPlatform(Platform):  # type: ignore[misc]
    """Tells vLLM that there are as many GPUs as the table spans, without a kernel to run on them."""

    _enum = PlatformEnum.OOT
    device_name = "twin"
    device_type = "cpu"
    dispatch_key = "CPU"
    dist_backend = "gloo"
    device_control_env_var = "REPLAY_TWIN_VISIBLE_DEVICES"

    @classmethod
    def get_device_name(cls, device_id: int = 0) -> str:  # noqa: ARG003
        """Return the name of the table's GPU."""
        return load_table(os.environ[FOLDER_VARIABLE]).gpu

    @classmethod
    def get_device_total_memory(cls, device_id: int = 0) -> int:  # noqa: ARG003
        """Return what no option runs into."""
        return MEMORY_BYTES

    @classmethod
    def device_count(cls) -> int:
        """Return how many GPUs the table's engine spans."""
        return load_table(os.environ[FOLDER_VARIABLE]).gpus

    @classmethod
    def is_pin_memory_available(cls) -> bool:
        """Say that there is none."""
        return False

    @classmethod
    def support_hybrid_kv_cache(cls) -> bool:
        """Say that layers may have KV of different kinds."""
        return True

    @classmethod
    def check_and_update_config(cls, vllm_config: Any) -> None:
        """Name some worker, though none is ever made."""
        vllm_config.parallel_config.worker_cls = "vllm.v1.worker.worker_base.WorkerBase"

    @classmethod
    def update_block_size_for_backend(cls, vllm_config: Any) -> None:
        """Leave the block size as given: no attention kernel asks for another."""

    @classmethod
    def set_device(cls, device: Any) -> None:
        """Do nothing; there is none."""

    @classmethod
    def import_kernels(cls) -> None:
        """Import none."""
