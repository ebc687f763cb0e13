"""Engine options, with vLLM's names and meanings."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """What the simulated engine is told, as `vllm serve` would be.

    Attributes:
        max_num_batched_tokens: Token budget of a step.
        max_num_seqs: Most requests running.
        max_model_len: Most tokens of a request, prompt and output.
        num_gpu_blocks: KV blocks, one of which is vLLM's null block (vLLM: num_gpu_blocks_override).
        block_size: Tokens a KV block holds.
        enable_chunked_prefill: Whether a prompt may be split over steps.
        long_prefill_token_threshold: Longest chunk of a prompt, 0 for no limit.
        scheduling_policy: Who goes first, `fcfs` or `priority`.
        enable_prefix_caching: Whether equal prefixes share KV blocks.
        async_scheduling: Whether a step is scheduled while the one before it runs.
    """

    max_num_batched_tokens: int = 8192
    max_num_seqs: int = 1024
    max_model_len: int = 131072
    num_gpu_blocks: int = 54000
    block_size: int = 16
    enable_chunked_prefill: bool = True
    long_prefill_token_threshold: int = 0
    scheduling_policy: Literal["fcfs", "priority"] = "fcfs"
    enable_prefix_caching: bool = True
    async_scheduling: bool = True
