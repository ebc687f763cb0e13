"""A real vLLM that needs no GPU: a tiny Llama with random weights on the CPU, for the tests marked `vllm`."""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from scripted_nvml import ScriptedNvml

NEEDS_VLLM = pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed")
TIMEOUT_S = 300
"""For starting an engine, half a minute, and what a test does with it."""

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "vocab_size": 512,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": True,
    "torch_dtype": "float32",
}
ON_CPU = {
    "VLLM_TARGET_DEVICE": "cpu",  # else vLLM believes in the scripted GPU
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
}
OPTIONS: dict[str, Any] = {"dtype": "float32", "enforce_eager": True, "block_size": 32}
"""Engine options without which the model does not run here; a CPU's blocks hold a multiple of 32 tokens."""


def write_model(folder: Path) -> Path:
    """Write the model's folder, config.json alone, and return it."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    return folder


def on_cpu(nvml: ScriptedNvml) -> ScriptedNvml:
    """Have the processes that see these GPUs run vLLM on the CPU."""
    nvml.environment.update(ON_CPU)
    return nvml
