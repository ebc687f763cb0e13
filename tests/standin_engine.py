"""An engine for tests: continuous batching on the clock, no model; steps take a given time."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from backends.step_log import STEP

IDLE_W, DECODE_W, PREFILL_W = 120.0, 450.0, 700.0


@dataclass(slots=True)
class Sequence:
    """A request in the stand-in engine."""

    prompt_tokens: int
    output_tokens: int
    computed: int = 0
    deliveries: asyncio.Queue[int] = field(default_factory=asyncio.Queue)

    @property
    def decoding(self) -> bool:
        return self.computed >= self.prompt_tokens

    @property
    def finished(self) -> bool:
        return self.computed >= self.prompt_tokens + self.output_tokens - 1


class StandInEngine:
    """Chunked prefill under a token budget; a step takes `step_s(prefill_tokens, decode_seqs)`.

    `draw(watts)` is called whenever its power changes: 120 W without work, 450 W when it decodes, 700 W when
    it prefills.
    """

    def __init__(
        self,
        step_log: Path,
        step_s: Callable[[int, int], float],
        budget: int = 512,
        max_num_seqs: int = 32,
        fail_after: int | None = None,
        draw: Callable[[float], None] = lambda watts: None,  # noqa: ARG005
    ) -> None:
        self._step_log = step_log
        self._step_s = step_s
        self._budget = budget
        self._max_num_seqs = max_num_seqs
        self.fail_after = fail_after
        self._draw = draw
        self._power_w = 0.0
        self._sequences: list[Sequence] = []
        self._wake = asyncio.Event()
        self._loop: asyncio.Task[None] | None = None
        self.starts = 0
        self.is_stopped = False

    async def start(self) -> None:
        self.starts += 1
        self._wake = asyncio.Event()
        self._loop = asyncio.create_task(self._serve())

    def facts(self) -> dict[str, Any]:
        return {
            "vllm": "none",
            "model": "stand-in",
            "dtype": "none",
            "quantization": None,
            "tensor_parallel_size": 1,
            "max_num_batched_tokens": self._budget,
            "max_num_seqs": self._max_num_seqs,
            "max_model_len": 32768,
            "num_gpu_blocks": 4000,
            "block_size": 16,
            "enable_chunked_prefill": True,
            "enable_prefix_caching": False,
            "async_scheduling": False,
            "random_weights": True,
            "vocabulary": 1000,
        }

    async def generate(
        self,
        request_id: str,  # noqa: ARG002, the protocol's
        prompt: list[int],
        output_tokens: int,
    ) -> AsyncIterator[int]:
        sequence = Sequence(len(prompt), output_tokens)
        self._sequences.append(sequence)
        self._wake.set()
        try:
            for _ in range(output_tokens):
                tokens = await sequence.deliveries.get()
                if tokens == 0:
                    raise RuntimeError("the stand-in engine was told to fail")
                yield tokens
        finally:
            if sequence in self._sequences:
                self._sequences.remove(sequence)

    def stop(self) -> None:
        self.is_stopped = True
        if self._loop is not None:
            self._loop.cancel()

    async def _serve(self) -> None:
        steps = 0
        while True:
            if not self._sequences:
                self._draw_if_new(IDLE_W)
                self._wake.clear()
                await self._wake.wait()
            scheduled_s = time.monotonic()
            batch = self._schedule()
            chunks = [(s, n) for s, n in batch if not s.decoding]
            decodes = [s for s, _ in batch if s.decoding]
            prefill_tokens = sum(n for _, n in chunks)
            pairs = sum(n * (s.computed + (n + 1) / 2) for s, n in chunks)
            contexts = [s.computed + 1 for s in decodes]
            self._draw_if_new(PREFILL_W if chunks else DECODE_W)
            await asyncio.sleep(self._step_s(prefill_tokens, len(decodes)))
            steps += 1
            failed = self.fail_after is not None and steps > self.fail_after
            for sequence, tokens in batch:
                sequence.computed += tokens
                if failed:
                    sequence.deliveries.put_nowait(0)
                elif sequence.decoding:
                    sequence.deliveries.put_nowait(1)
            self._sequences = [s for s in self._sequences if not s.finished]
            row = (
                scheduled_s,
                time.monotonic(),
                len(chunks),
                prefill_tokens,
                pairs,
                len(decodes),
                sum(contexts),
                max(contexts, default=0),
                len(batch),
                len(self._sequences) - len(batch),
                0,
            )
            with open(self._step_log, "ab") as out:
                out.write(np.array([row], dtype=STEP).tobytes())

    def _draw_if_new(self, power_w: float) -> None:
        if power_w != self._power_w:
            self._power_w = power_w
            self._draw(power_w)

    def _schedule(self) -> list[tuple[Sequence, int]]:
        budget, batch = self._budget, []
        for sequence in self._sequences[: self._max_num_seqs]:
            left = 1 if sequence.decoding else sequence.prompt_tokens - sequence.computed
            tokens = min(left, budget)
            if tokens:
                batch.append((sequence, tokens))
                budget -= tokens
        return batch
