"""The way of a prompt's KV from the engine that computed it to the one that decodes."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import NamedTuple

KV_BYTES_PER_TOKEN: Mapping[str, int] = {"llama-3.1-8b": 131072, "llama-3.2-1b": 32768}
"""Of the models that the shipped tables were measured with, KV in bfloat16: 2 * layers * KV heads * head
dimension * 2 bytes, of all GPUs of an engine together."""


class Link(NamedTuple):
    """What leads out of an engine that sends KV, as compiled code takes it.

    Attributes:
        latency_s: From the beginning of a transfer to its end, whatever its size.
        token_s: On top for each token; the next transfer begins when these are over.
    """

    latency_s: float
    token_s: float


@dataclass(frozen=True, slots=True)
class KvTransfer:
    """How KV travels: each prefill engine has a link of its own, which sends one prompt after the other.

    Attributes:
        bytes_per_s: Of a link.
        latency_s: Of each transfer, on top.
        bytes_per_token: KV of one prompt token, all layers.

    Raises:
        ValueError: A value is out of range.
    """

    bytes_per_s: float
    latency_s: float
    bytes_per_token: int

    def __post_init__(self) -> None:
        if not 0 < self.bytes_per_s < inf:
            raise ValueError(
                f"kv_transfer: gigabytes_per_s must be > 0 and finite, got {self.bytes_per_s / 1e9}"
            )
        if not 0 <= self.latency_s < inf:
            raise ValueError(f"kv_transfer: latency_ms must be >= 0 and finite, got {1000 * self.latency_s}")
        if self.bytes_per_token < 1:
            raise ValueError(f"kv_transfer: bytes_per_token must be >= 1, got {self.bytes_per_token}")

    @property
    def link(self) -> Link:
        """The same in seconds."""
        return Link(self.latency_s, self.bytes_per_token / self.bytes_per_s)


NO_LINK = Link(0.0, 0.0)
"""Of an engine that sends nothing."""
