"""The FLOPs estimate: a model's arithmetic at the peak of the GPU's data sheet."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from traces.trace import Trace

ARCHITECTURES = ("LlamaForCausalLM",)
SIZES = (
    *("hidden_size", "intermediate_size", "num_hidden_layers"),
    *("num_attention_heads", "num_key_value_heads", "head_dim", "vocab_size"),
)


@dataclass(frozen=True, slots=True)
class Peak:
    """A GPU's arithmetic peak in one number format.

    Attributes:
        dense_flops: FLOP/s of dense matrix products.
        sparse_flops: With two of four weights zero, which no model here has; data sheets print this one.
        source: Who says so.
    """

    dense_flops: float
    sparse_flops: float
    source: str


H200_SOURCE = "NVIDIA H200 (SXM) data sheet figures as commonly cited in 2026, not measured here"
PEAKS = {
    ("NVIDIA H200", "bfloat16"): Peak(989e12, 1979e12, H200_SOURCE),
    ("NVIDIA H200", "fp8"): Peak(1979e12, 3958e12, H200_SOURCE),
}
"""By GPU name and number format."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What of a model takes part in arithmetic.

    Attributes:
        layer_parameters: In the matrices of all layers; each token meets them.
        head_parameters: In the output matrix; each output token meets it.
        attention_width: Layers * query heads * head dimension.
    """

    layer_parameters: int
    head_parameters: int
    attention_width: int


def shape_from_config(config: Mapping[str, Any]) -> Shape:
    """Return the shape that a model's config.json tells.

    Raises:
        ValueError: It is of another architecture than `ARCHITECTURES`, or lacks a size.
    """
    found = config.get("architectures")
    if found not in [[one] for one in ARCHITECTURES]:
        raise ValueError(f"architectures must be one of {', '.join(ARCHITECTURES)}, got {found}")
    missing = [name for name in SIZES if not isinstance(config.get(name), int)]
    if missing:
        raise ValueError(f"no {missing[0]} in the model's config.json")
    hidden, inner, layers, heads, kv_heads, head_dim, vocabulary = (config[name] for name in SIZES)
    attention = hidden * head_dim * (2 * heads + 2 * kv_heads)
    return Shape(
        layer_parameters=layers * (attention + 3 * hidden * inner),
        head_parameters=hidden * vocabulary,
        attention_width=layers * heads * head_dim,
    )


def trace_flops(trace: Trace, shape: Shape) -> float:
    """Return the FLOPs of serving each request once, nothing computed twice and nothing left out.

    For a request of p prompt and o output tokens, n = p + o - 1 tokens go through the layers:
    2 * layer_parameters * n + 2 * head_parameters * o + 4 * attention_width * n * (n + 1) / 2.
    """
    output = trace.output_tokens.astype(np.float64)
    through = trace.prompt_tokens + output - 1
    flops = 2.0 * (shape.layer_parameters * through + shape.head_parameters * output)
    flops += 2.0 * shape.attention_width * through * (through + 1)
    return float(flops.sum())


def flops_energy_j(flops: float, peak_flops: float, power_limit_w: float) -> float:
    """Return the joules of a GPU that computes at its peak and draws its limit: FLOPs / peak * limit.

    Several GPUs that share the work take the same: each has its part of it.
    """
    return flops / peak_flops * power_limit_w


def peak_of(gpu: str, number_format: str) -> Peak:
    """Return the peak of a GPU.

    Raises:
        ValueError: It is not known.
    """
    if (gpu, number_format) not in PEAKS:
        known = ", ".join(f"{name} in {form}" for name, form in PEAKS)
        raise ValueError(f"the peak of {gpu!r} in {number_format} is not known; known are {known}")
    return PEAKS[gpu, number_format]
