"""vLLM's AsyncLLM in this process, with lengths pinned and every step logged."""

import importlib.metadata
import importlib.util
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Any

from backends.step_log import PATH_VARIABLE

WEIGHTS = ("*.safetensors", "*.bin", "*.pt")
"""Files that hold weights in a model's folder."""


class VllmEngine:
    """One vLLM engine; generates exactly as many tokens as it is asked for.

    The engine core runs in a process of its own, scheduled by `backends.vllm_scheduler`.
    """

    def __init__(self, model: str, options: Mapping[str, Any], step_log: Path) -> None:
        """Prepare an engine.

        Args:
            model: A model's name or folder. A folder without weights runs on random ones.
            options: vLLM engine options; what is not given is what `vllm serve` would use.
            step_log: File that the steps are appended to, see `backends.step_log`.

        Raises:
            ValueError: vLLM is not installed, or the folder holds no model.
        """
        if importlib.util.find_spec("vllm") is None:
            raise ValueError("vLLM is not installed here; install it: pip install 'replay[vllm]'")
        if Path(model).is_dir() and not (Path(model) / "config.json").is_file():
            raise ValueError(f"{model}: no config.json in this folder; give a model's folder or name")
        self._model = model
        self._options = dict(options)
        self._step_log = step_log
        self._engine: Any = None

    async def start(self) -> None:
        """Load the model and compile; takes a minute or two.

        Raises:
            ValueError: vLLM cannot be imported, refuses an option, or does not start.
        """
        try:
            from vllm.engine.arg_utils import AsyncEngineArgs  # pyright: ignore[reportMissingImports]
            from vllm.usage.usage_lib import UsageContext  # pyright: ignore[reportMissingImports]
            from vllm.v1.engine.async_llm import AsyncLLM  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise ValueError(f"vLLM cannot be imported: {error}; see its installation notes") from error
        os.environ[PATH_VARIABLE] = str(self._step_log)
        given: dict[str, Any] = {
            "skip_tokenizer_init": True,
            "scheduler_cls": "backends.vllm_scheduler.RecordingScheduler",
        }
        folder = Path(self._model)
        if folder.is_dir() and not any(any(folder.glob(weights)) for weights in WEIGHTS):
            given["load_format"] = "dummy"
        given |= self._options
        try:
            arguments = AsyncEngineArgs(model=self._model, **given)
        except TypeError as error:
            raise ValueError(f"vLLM does not know an engine option: {error}") from error
        try:
            self._engine = AsyncLLM.from_engine_args(arguments, usage_context=UsageContext.OPENAI_API_SERVER)
        except Exception as error:
            raise ValueError(f"vLLM does not start: {error}; its own log, above, says more") from error

    def facts(self) -> dict[str, Any]:
        """Return the engine options in force and versions, as the running engine resolved them."""
        import vllm  # pyright: ignore[reportMissingImports]

        config = self._engine.vllm_config
        scheduler, cache, model = config.scheduler_config, config.cache_config, config.model_config
        return {
            "vllm": vllm.__version__,
            "torch": importlib.metadata.version("torch"),
            "model": Path(self._model).name,
            "dtype": str(model.dtype).removeprefix("torch."),
            "quantization": model.quantization,
            "tensor_parallel_size": config.parallel_config.tensor_parallel_size,
            "max_num_batched_tokens": scheduler.max_num_batched_tokens,
            "max_num_seqs": scheduler.max_num_seqs,
            "max_model_len": model.max_model_len,
            "num_gpu_blocks": cache.num_gpu_blocks,
            "block_size": cache.block_size,
            "enable_chunked_prefill": scheduler.enable_chunked_prefill,
            "long_prefill_token_threshold": scheduler.long_prefill_token_threshold,
            "scheduling_policy": scheduler.policy,
            "enable_prefix_caching": cache.enable_prefix_caching,
            "async_scheduling": bool(scheduler.async_scheduling),
            "gpu_memory_utilization": cache.gpu_memory_utilization,
            "cudagraph_capture_sizes": list(config.compilation_config.cudagraph_capture_sizes or []),
            "random_weights": config.load_config.load_format == "dummy",
            "vocabulary": model.get_vocab_size(),
        }

    async def generate(self, request_id: str, prompt: list[int], output_tokens: int) -> AsyncIterator[int]:
        """Yield how many tokens each delivery brings, `output_tokens` in all, chosen greedily.

        Closing the iterator early aborts the request.

        Raises:
            ValueError: The engine has died, or refuses the request.
        """
        from vllm import SamplingParams  # pyright: ignore[reportMissingImports]
        from vllm.inputs import TokensPrompt  # pyright: ignore[reportMissingImports]
        from vllm.sampling_params import RequestOutputKind  # pyright: ignore[reportMissingImports]

        sampling = SamplingParams(
            temperature=0.0,
            max_tokens=output_tokens,
            ignore_eos=True,
            detokenize=False,
            output_kind=RequestOutputKind.DELTA,
        )
        stream = self._engine.generate(TokensPrompt(prompt_token_ids=prompt), sampling, request_id)
        try:
            async with aclosing(stream):
                async for output in stream:
                    yield len(output.outputs[0].token_ids)
        except Exception as error:
            raise ValueError(f"vLLM failed: {type(error).__name__}: {error}") from error

    async def sleep(self, level: int) -> None:
        """Free the GPU's memory: level 1 copies the weights to the host's, level 2 forgets them.

        Raises:
            ValueError: The engine has died, or was started without `enable_sleep_mode`.
        """
        try:
            await self._engine.sleep(level=level)
        except Exception as error:
            raise ValueError(f"vLLM does not go to sleep: {error}") from error

    async def wake(self, level: int) -> None:
        """Take the memory again, with the weights: copied back after level 1, loaded anew after level 2.

        Raises:
            ValueError: The engine has died, or cannot load weights of its format twice; its memory is there.
        """
        try:
            if level == 1:
                await self._engine.wake_up()
                return
            await self._engine.wake_up(tags=["weights"])
            try:
                await self._engine.collective_rpc("reload_weights")
            finally:
                await self._engine.wake_up(tags=["kv_cache"])
        except Exception as error:
            raise ValueError(f"vLLM does not wake from level {level}: {error}") from error

    async def ensure_awake(self) -> None:
        """Ask the engine whether it is awake, without a request: its weights may be missing.

        Raises:
            ValueError: It has died, or sleeps.
        """
        try:
            is_asleep = await self._engine.is_sleeping()
        except Exception as error:
            raise ValueError(f"vLLM failed: {error}") from error
        if is_asleep:
            raise ValueError("vLLM sleeps, and was not to")

    def stop(self) -> None:
        """End the engine's process and free the GPU."""
        if self._engine is not None:
            self._engine.shutdown()
            self._engine = None
