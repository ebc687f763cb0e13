"""vLLM's own async scheduler, writing what each step holds; imported by the engine's process only."""

import os
import time
from typing import Any

import numpy as np
from vllm.v1.core.sched.async_scheduler import AsyncScheduler  # pyright: ignore[reportMissingImports]

from backends.step_log import PATH_VARIABLE, STEP


class RecordingScheduler(AsyncScheduler):  # type: ignore[misc]
    """Decides exactly as its parent; appends a STEP row for each step whose output was processed."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._out = open(os.environ[PATH_VARIABLE], "ab", buffering=0)  # noqa: SIM115, open until the engine ends
        self._open_steps: dict[int, tuple[float, ...]] = {}

    def schedule(self, *args: Any, **kwargs: Any) -> Any:
        """Return the parent's decision, having noted its content."""
        now_s = time.monotonic()
        output = super().schedule(*args, **kwargs)
        chunks = prefill_tokens = decode_seqs = kv_tokens = longest_tokens = 0
        prefill_pairs = 0.0
        for request_id, tokens in output.num_scheduled_tokens.items():
            request = self.requests[request_id]
            end = request.num_computed_tokens
            if end > request.num_prompt_tokens and tokens == 1:
                decode_seqs += 1
                kv_tokens += end
                longest_tokens = max(longest_tokens, end)
            else:
                chunks += 1
                prefill_tokens += tokens
                prefill_pairs += tokens * (end - tokens + (tokens + 1) / 2)
        self._open_steps[id(output)] = (
            now_s,
            0.0,
            chunks,
            prefill_tokens,
            prefill_pairs,
            decode_seqs,
            kv_tokens,
            longest_tokens,
            len(self.running),
            len(self.waiting),
            self.kv_cache_manager.block_pool.get_num_free_blocks(),
        )
        return output

    def update_from_output(self, scheduler_output: Any, *args: Any, **kwargs: Any) -> Any:
        """Return the parent's result, having written the step's row."""
        now_s = time.monotonic()
        row = self._open_steps.pop(id(scheduler_output), None)
        if row is not None and (row[2] or row[5]):
            self._out.write(np.array([(row[0], now_s, *row[2:])], dtype=STEP).tobytes())
        return super().update_from_output(scheduler_output, *args, **kwargs)
