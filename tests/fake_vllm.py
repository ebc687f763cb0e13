"""As much of vLLM's interface as `backends` calls, for tests of those calls."""

import asyncio
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import pytest


@dataclass
class AsyncEngineArgs:
    """Engine options; one that is not a field is a TypeError, as in vLLM."""

    model: str
    scheduler_cls: str
    skip_tokenizer_init: bool = False
    load_format: str = "auto"
    max_num_seqs: int = 1024
    quantization: str | None = None
    enable_sleep_mode: bool = False


class AsyncLLM:
    """Answers each request with two tokens at a time; notes what it was told."""

    refuses: ClassVar[str] = ""
    dies_after: ClassVar[int | None] = None
    reloads: ClassVar[bool] = True

    def __init__(self, options: AsyncEngineArgs) -> None:
        self.options = options
        self.sampling: list[Any] = []
        self.prompts: list[list[int]] = []
        self.aborted: list[str] = []
        self.is_shut_down = False
        self.told: list[tuple[str, Any]] = []
        self.vllm_config = config_of(options)

    @classmethod
    def from_engine_args(cls, options: AsyncEngineArgs, usage_context: str) -> "AsyncLLM":
        assert usage_context == "api server"
        if cls.refuses:
            raise RuntimeError(cls.refuses)
        return cls(options)

    async def generate(
        self, prompt: dict[str, list[int]], sampling: Any, request_id: str
    ) -> AsyncIterator[Any]:
        self.sampling.append(sampling)
        self.prompts.append(prompt["prompt_token_ids"])
        given = 0
        try:
            while given < sampling.max_tokens:
                await asyncio.sleep(0)
                if self.dies_after is not None and given >= self.dies_after:
                    raise EngineDeadError("EngineCore encountered an issue")
                tokens = min(2, sampling.max_tokens - given)
                given += tokens
                yield SimpleNamespace(outputs=[SimpleNamespace(token_ids=[7] * tokens)])
        except GeneratorExit:
            self.aborted.append(request_id)
            raise

    async def sleep(self, level: int = 1) -> None:
        if not self.options.enable_sleep_mode:
            raise ValueError("Sleep mode is not enabled.")
        self.told.append(("sleep", level))

    async def is_sleeping(self) -> bool:
        if self.told and self.told[-1][0] == "died":
            raise EngineDeadError("EngineCore encountered an issue")
        return bool(self.told) and self.told[-1][0] == "sleep"

    async def wake_up(self, tags: list[str] | None = None) -> None:
        self.told.append(("wake_up", tags))

    async def collective_rpc(self, method: str) -> None:
        self.told.append(("collective_rpc", method))
        if not self.reloads:
            raise RuntimeError("Call to collective_rpc method failed: no reload of this format")

    def shutdown(self) -> None:
        self.is_shut_down = True


class EngineDeadError(Exception):
    """What vLLM raises when its core has died."""


def config_of(options: AsyncEngineArgs) -> Any:
    """Return what a running engine says of itself."""
    return SimpleNamespace(
        scheduler_config=SimpleNamespace(
            max_num_batched_tokens=8192,
            max_num_seqs=options.max_num_seqs,
            enable_chunked_prefill=True,
            long_prefill_token_threshold=0,
            policy="fcfs",
            async_scheduling=True,
        ),
        cache_config=SimpleNamespace(
            num_gpu_blocks=4000, block_size=16, enable_prefix_caching=True, gpu_memory_utilization=0.9
        ),
        model_config=SimpleNamespace(
            dtype="torch.bfloat16",
            quantization=options.quantization,
            max_model_len=4096,
            get_vocab_size=lambda: 1000,
        ),
        parallel_config=SimpleNamespace(tensor_parallel_size=1),
        compilation_config=SimpleNamespace(cudagraph_capture_sizes=[1, 2, 4]),
        load_config=SimpleNamespace(load_format=options.load_format),
    )


@dataclass
class AsyncScheduler:
    """Schedules what it is told to: each plan is {request id: tokens}."""

    requests: dict[str, Any] = field(default_factory=dict)
    running: list[str] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)
    plans: list[dict[str, int]] = field(default_factory=list)
    kv_cache_manager: Any = field(
        default_factory=lambda: SimpleNamespace(block_pool=SimpleNamespace(get_num_free_blocks=lambda: 99))
    )

    def schedule(self) -> Any:
        plan = self.plans.pop(0)
        for request_id, tokens in plan.items():
            self.requests[request_id].num_computed_tokens += tokens
        return SimpleNamespace(num_scheduled_tokens=plan)

    def update_from_output(self, scheduler_output: Any, model_output: str) -> str:
        assert scheduler_output.num_scheduled_tokens is not None
        return f"updated by {model_output}"


def install(patch: pytest.MonkeyPatch) -> None:
    """Put these in vLLM's places."""
    places: dict[str, dict[str, Any]] = {
        "vllm": {"SamplingParams": lambda **given: SimpleNamespace(**given), "__version__": "0.0.1"},
        "vllm.inputs": {"TokensPrompt": dict},
        "vllm.sampling_params": {"RequestOutputKind": SimpleNamespace(DELTA="delta")},
        "vllm.engine": {},
        "vllm.engine.arg_utils": {"AsyncEngineArgs": AsyncEngineArgs},
        "vllm.usage": {},
        "vllm.usage.usage_lib": {"UsageContext": SimpleNamespace(OPENAI_API_SERVER="api server")},
        "vllm.v1": {},
        "vllm.v1.engine": {},
        "vllm.v1.engine.async_llm": {"AsyncLLM": AsyncLLM},
        "vllm.v1.core": {},
        "vllm.v1.core.sched": {},
        "vllm.v1.core.sched.async_scheduler": {"AsyncScheduler": AsyncScheduler},
    }
    for name, content in places.items():
        module = ModuleType(name)
        module.__spec__ = ModuleSpec(name, None)
        module.__path__ = []
        for key, value in content.items():
            setattr(module, key, value)
        patch.setitem(sys.modules, name, module)
