"""vLLM's executor on the twin: no worker, no model; each step's output comes when the table says."""

import os
import time
from concurrent.futures import Future
from importlib import import_module
from pathlib import Path
from typing import Any

from vllm.v1.executor.abstract import Executor  # pyright: ignore[reportMissingImports]
from vllm.v1.kv_cache_interface import FullAttentionSpec  # pyright: ignore[reportMissingImports]
from vllm.v1.outputs import EMPTY_MODEL_RUNNER_OUTPUT, ModelRunnerOutput  # pyright: ignore[reportMissingImports]

from backends.prompts import LEAST_TOKEN
from backends.twin import ENERGY_FILE, FOLDER_VARIABLE
from backends.twin_gpu import TwinGpu
from backends.twin_platform import MEMORY_BYTES
from sim.gpu_step import Load
from sim.table_files import load_table

SPIN_S = 1e-4
"""A sleep ends late by less than this, mostly; the rest of a wait is spun."""


class TwinExecutor(Executor):  # type: ignore[misc]
    """Answers vLLM's engine core as an executor with one worker on a GPU would."""

    def _init_executor(self) -> None:
        folder = Path(os.environ[FOLDER_VARIABLE])
        self._gpu = TwinGpu(load_table(str(folder)), folder / ENERGY_FILE, time.monotonic())
        self._prompt_tokens: dict[str, int] = {}
        self._output: Future[Any] | None = None

    @classmethod
    def supports_async_scheduling(cls) -> bool:
        """Say yes: `execute_model` returns before the step is done."""
        return True

    def get_kv_cache_specs(self) -> list[dict[str, Any]]:
        """Return the KV of the model's layers, the same on each GPU."""
        model, parallel = self.model_config, self.parallel_config
        spec = FullAttentionSpec(
            block_size=self.cache_config.block_size,
            num_kv_heads=model.get_num_kv_heads(parallel),
            head_size=model.get_head_size(),
            dtype=model.dtype,
        )
        layers = {f"layers.{layer}.attention": spec for layer in range(model.get_num_layers(parallel))}
        return [layers] * parallel.world_size

    def determine_available_memory(self) -> list[int]:
        """Return more than the KV blocks that were asked for take."""
        return [MEMORY_BYTES] * int(self.parallel_config.world_size)

    def get_supported_kv_cache_layouts(self) -> list[list[str]]:
        """Return one layout, any."""
        return [["NHD"]] * self.parallel_config.world_size

    def collective_rpc(
        self,
        method: Any,
        timeout: float | None = None,  # noqa: ARG002
        args: tuple[Any, ...] = (),  # noqa: ARG002
        kwargs: dict[str, Any] | None = None,  # noqa: ARG002
        non_block: bool = False,
    ) -> Any:
        """Answer as workers that have done what they were told, without doing anything."""
        answer = [("generate",) if method == "get_supported_tasks" else None]
        return _done(answer) if non_block else answer

    def initialize_from_config(self, kv_cache_configs: Any) -> None:
        """Do nothing: there is no memory to lay out."""

    def compile_or_warm_up_model(self) -> None:
        """Do nothing: there are no kernels."""

    def execute_model(self, scheduler_output: Any, non_block: bool = False) -> Any:
        """Launch a step, which takes the calling thread as long as the table says."""
        if not scheduler_output.num_scheduled_tokens:
            self._forget(scheduler_output)
            return _done(EMPTY_MODEL_RUNNER_OUTPUT) if non_block else EMPTY_MODEL_RUNNER_OUTPUT
        row = scheduler_output.replay_row
        launch = self._gpu.launch(Load(*row[2:8]), decided_s=row[0], now_s=time.monotonic())
        self._output = OutputAt(launch.output_s, self._sample(scheduler_output))
        self._forget(scheduler_output)
        wait_until(launch.launched_s)
        return _done(None) if non_block else None

    def sample_tokens(self, grammar_output: Any, non_block: bool = False) -> Any:  # noqa: ARG002
        """Return the output of the step just launched."""
        output, self._output = self._output, None
        assert output is not None
        return output if non_block else output.result()

    def execute_dummy_batch(self) -> None:
        """Do nothing."""

    def check_health(self) -> None:
        """Be well."""

    def shutdown(self) -> None:
        """Write no more energy."""
        self._gpu.close()
        accelerator: Any = import_module("torch.accelerator")
        if not accelerator.is_available():  # vLLM empties its caches next, which raises then
            accelerator.empty_cache = accelerator.empty_host_cache = lambda: None

    def _sample(self, scheduler_output: Any) -> Any:
        """Return a made-up token for each request whose tokens are all computed by this step."""
        scheduled, cached = scheduler_output.num_scheduled_tokens, scheduler_output.scheduled_cached_reqs
        left = {}
        for request in scheduler_output.scheduled_new_reqs:
            self._prompt_tokens[request.req_id] = len(request.prompt_token_ids)
            known = getattr(request, "prefill_token_ids", None) or request.prompt_token_ids
            left[request.req_id] = len(known) - request.num_computed_tokens
        for request_id, computed, outputs in zip(
            cached.req_ids, cached.num_computed_tokens, cached.num_output_tokens, strict=True
        ):
            left[request_id] = self._prompt_tokens[request_id] + outputs - computed
        request_ids = list(scheduled)
        return ModelRunnerOutput(
            req_ids=request_ids,
            req_id_to_index={request_id: place for place, request_id in enumerate(request_ids)},
            sampled_token_ids=[
                [LEAST_TOKEN] if scheduled[request_id] >= left[request_id] else []
                for request_id in request_ids
            ],
        )

    def _forget(self, scheduler_output: Any) -> None:
        for request_id in scheduler_output.finished_req_ids:
            self._prompt_tokens.pop(request_id, None)


class OutputAt(Future[Any]):
    """An output that is there from a given time on; who wants it earlier waits."""

    def __init__(self, at_s: float, output: Any) -> None:
        super().__init__()
        self._at_s, self._value = at_s, output

    def done(self) -> bool:
        """Say whether the time has come."""
        return time.monotonic() >= self._at_s

    def result(self, timeout: float | None = None) -> Any:  # noqa: ARG002, no step takes forever
        """Return the output when the time has come."""
        wait_until(self._at_s)
        return self._value


def wait_until(at_s: float) -> None:
    """Return at a monotonic time, some microseconds late at most where a processor is free."""
    sleep_s = at_s - time.monotonic() - SPIN_S
    if sleep_s > 0:
        time.sleep(sleep_s)
    while time.monotonic() < at_s:
        pass


def _done(value: Any) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_result(value)
    return future
