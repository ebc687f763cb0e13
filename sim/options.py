"""Engine options, with vLLM's names and meanings."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args

from sim.router_registry import make_router
from sim.scaling import make_scaling

SchedulingPolicy = Literal["fcfs", "priority"]
TRUE, FALSE = ("true", "1", "yes", ""), ("false", "0", "no")
ALIASES = {"num_gpu_blocks_override": "num_gpu_blocks"}


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
        vllm_version: Whose scheduling rules hold, 0.20 or newer; docs/fidelity.md says what changed when.

    Raises:
        ValueError: A value or a combination that vLLM refuses.
    """

    max_num_batched_tokens: int = 8192
    max_num_seqs: int = 1024
    max_model_len: int = 131072
    num_gpu_blocks: int = 54000
    block_size: int = 16
    enable_chunked_prefill: bool = True
    long_prefill_token_threshold: int = 0
    scheduling_policy: SchedulingPolicy = "fcfs"
    enable_prefix_caching: bool = True
    async_scheduling: bool = True
    vllm_version: str = "0.25.1"

    def __post_init__(self) -> None:
        for name, least in LEAST.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be >= {least}, got {getattr(self, name)}")
        if self.scheduling_policy not in get_args(SchedulingPolicy):
            known = ", ".join(get_args(SchedulingPolicy))
            raise ValueError(f"scheduling_policy must be one of {known}, got {self.scheduling_policy!r}")
        if not re.fullmatch(r"0\.(2[0-9]|[3-9][0-9])(\.\d+)*", self.vllm_version):
            raise ValueError(f"vllm_version must be 0.20 or newer, like 0.25.1, got {self.vllm_version!r}")
        if self.max_num_batched_tokens < self.max_num_seqs:
            raise ValueError(
                f"max_num_batched_tokens must be >= max_num_seqs ({self.max_num_seqs}), "
                f"got {self.max_num_batched_tokens}: raise it or lower max_num_seqs"
            )
        if not self.enable_chunked_prefill and self.max_num_batched_tokens < self.max_model_len:
            raise ValueError(
                f"without chunked prefill max_num_batched_tokens must be >= max_model_len "
                f"({self.max_model_len}), got {self.max_num_batched_tokens}: raise it or lower max_model_len"
            )


@dataclass(frozen=True, slots=True)
class FleetOptions:
    """How many equal engines stand behind the policy, and who chooses among them.

    Attributes:
        replicas: Engines, each on GPUs of its own.
        router: Name of the router, one of `sim.router_registry.ROUTERS`, with options if need be:
            `pack:most=8`.
        scaling: Who sleeps when: `fixed` for nobody, or one of `sim.scaling.SCALINGS` with options.

    Raises:
        ValueError: There is no such number of engines, router or scaling, or an option of these is refused.
    """

    replicas: int = 1
    router: str = "round-robin"
    scaling: str = "fixed"

    def __post_init__(self) -> None:
        if self.replicas < 1:
            raise ValueError(f"replicas must be >= 1, got {self.replicas}")
        make_router(self.router, (self.replicas,))
        make_scaling(self.scaling)


LEAST = {
    "max_num_batched_tokens": 1,
    "max_num_seqs": 1,
    "max_model_len": 1,
    "num_gpu_blocks": 2,
    "block_size": 1,
    "long_prefill_token_threshold": 0,
}
DEFAULTS = EngineOptions()


def from_strings(pairs: Mapping[str, str], defaults: EngineOptions = DEFAULTS) -> EngineOptions:
    """Return `defaults` with the options of `pairs` put in, as a command line gives them.

    Names are vLLM's, with `-` or `_`; a flag may be negated by `no_`. As in vLLM, what is not given follows
    what is: the budget is at most max_num_seqs * max_model_len, but without chunked prefill at least
    max_model_len, and max_num_seqs is at most the budget.

    Args:
        pairs: Names and values, like {"max_num_seqs": "128", "no-async-scheduling": ""}.
        defaults: What holds where nothing is given.

    Raises:
        ValueError: An unknown name, a value that does not parse, or options that vLLM refuses.
    """
    given: dict[str, Any] = {}
    for name, text in pairs.items():
        option, value = _parse(name, text)
        given[option] = value
    chunked = given.get("enable_chunked_prefill", defaults.enable_chunked_prefill)
    model_len = given.get("max_model_len", defaults.max_model_len)
    seqs = given.get("max_num_seqs", defaults.max_num_seqs)
    budget = defaults.max_num_batched_tokens if chunked else max(defaults.max_num_batched_tokens, model_len)
    budget = given.setdefault("max_num_batched_tokens", min(budget, max(seqs, 1) * max(model_len, 1)))
    given.setdefault("max_num_seqs", min(seqs, budget))
    return replace(defaults, **given)


def options_among(values: Mapping[str, Any]) -> EngineOptions:
    """Return the options that the simulated engine has among those of a real one, defaults for the others."""
    known = {field.name for field in fields(EngineOptions)}
    return EngineOptions(**{name: value for name, value in values.items() if name in known})


def _parse(name: str, text: str) -> tuple[str, Any]:
    option = name.strip().lstrip("-").replace("-", "_")
    negated = option.startswith("no_")
    option = option.removeprefix("no_")
    option = ALIASES.get(option, option)
    kinds = {field.name: field.type for field in fields(EngineOptions)}
    kind = kinds.get(option)
    if kind is None or (negated and kind is not bool):
        raise ValueError(f"no engine option {name!r}; there are {', '.join(sorted([*kinds, *ALIASES]))}")
    if kind is bool:
        return option, _truth(name, text) != negated
    if kind is int:
        return option, _whole_number(name, text)
    return option, text.strip()


def _truth(name: str, text: str) -> bool:
    word = text.strip().lower()
    if word not in TRUE + FALSE:
        raise ValueError(f"{name} must be true or false, got {text!r}")
    return word in TRUE


def _whole_number(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{name} must be a whole number, got {text!r}") from None
