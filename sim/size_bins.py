"""The policy `size-bins`: requests wait for others of their size; a bin goes when it is full or late."""

from dataclasses import dataclass, field
from math import inf

from sim.policy import Decision, Held, HeldRequest

Sizes = tuple[int, int]
"""Binary digits of the prompt's tokens and of the predicted output's, 0 without a prediction."""


@dataclass(slots=True)
class Bin:
    """Held requests of one size, and when the first of them has waited."""

    requests: list[HeldRequest] = field(default_factory=list)
    late_s: float = inf


@dataclass(slots=True)
class SizeBins:
    """Releases the requests of a bin once there are enough of them, or once the oldest has waited.

    A bin holds the prompts between two powers of two, and of these the predicted outputs between two powers
    of two, or all where there is no prediction. An event costs O(bins), some dozens at most, besides what it
    releases.

    Attributes:
        bin_size: Requests of a bin that go without waiting further, at least 1.
        max_wait_s: Longest wait of a request, at least 0 s.
    """

    bin_size: int = 8
    max_wait_s: float = 10.0
    _bins: dict[Sizes, Bin] = field(default_factory=dict, init=False, repr=False)
    _taken_in: int = field(default=0, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.bin_size < 1:
            raise ValueError(f"bin_size must be >= 1, got {self.bin_size}")
        if not 0 <= self.max_wait_s < inf:
            raise ValueError(f"max_wait_s must be >= 0 and finite, got {self.max_wait_s}")

    def decide(self, now_s: float, held: Held, running: int) -> Decision:  # noqa: ARG002
        """Release the bins that are full or late, whole bins one after the other."""
        for place in range(self._taken_in - len(held), 0):
            self._take_in(held[place])
        release: list[HeldRequest] = []
        for sizes, found in list(self._bins.items()):
            if len(found.requests) >= self.bin_size or now_s >= found.late_s:
                release += self._bins.pop(sizes).requests
        self._taken_in = len(held) - len(release)
        return Decision(tuple(release), min((found.late_s for found in self._bins.values()), default=None))

    def _take_in(self, request: HeldRequest) -> None:
        sizes = request.prompt_tokens.bit_length(), (request.predicted_output_tokens or 0).bit_length()
        found = self._bins.setdefault(sizes, Bin())
        found.requests.append(request)
        found.late_s = min(found.late_s, request.arrival_s + self.max_wait_s)
