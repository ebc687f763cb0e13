"""The policy `size-bins`: requests wait for others of their size; a bin goes when it is full or late."""

from collections import OrderedDict
from dataclasses import dataclass, field

from sim.policy import Decision, Held, HeldRequest

Bin = tuple[int, int]
"""Binary digits of the prompt's tokens and of the predicted output's, 0 without a prediction."""


@dataclass(slots=True)
class SizeBins:
    """Releases the requests of a bin once there are enough of them, or once the oldest has waited.

    A bin holds the prompts between two powers of two, and of these the predicted outputs between two powers
    of two, or all where there is no prediction. Each event costs O(1) besides what it releases.

    Attributes:
        bin_size: Requests of a bin that go without waiting further, at least 1.
        max_wait_s: Longest wait of a request, at least 0 s.
    """

    bin_size: int = 8
    max_wait_s: float = 10.0
    _bins: OrderedDict[Bin, list[HeldRequest]] = field(default_factory=OrderedDict, init=False, repr=False)
    _taken_in: int = field(default=0, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.bin_size < 1:
            raise ValueError(f"bin_size must be >= 1, got {self.bin_size}")
        if not 0 <= self.max_wait_s < float("inf"):
            raise ValueError(f"max_wait_s must be >= 0 and finite, got {self.max_wait_s}")

    def decide(self, now_s: float, held: Held, running: int) -> Decision:  # noqa: ARG002
        """Release the bins that are full or late, those whose oldest came first going first."""
        release: list[HeldRequest] = []
        for place in range(self._taken_in - len(held), 0):
            release += self._take_in(held[place])
        # Bins stand in the order of their oldest requests.
        while self._bins and now_s >= self._late_s():
            release += self._bins.popitem(last=False)[1]
        self._taken_in = len(held) - len(release)
        return Decision(tuple(release), self._late_s() if self._bins else None)

    def _take_in(self, request: HeldRequest) -> list[HeldRequest]:
        """Put a request into its bin, and return the bin's requests if that fills it."""
        sizes = request.prompt_tokens.bit_length(), (request.predicted_output_tokens or 0).bit_length()
        members = self._bins.setdefault(sizes, [])
        members.append(request)
        return self._bins.pop(sizes) if len(members) >= self.bin_size else []

    def _late_s(self) -> float:
        oldest = next(iter(self._bins.values()))[0]
        return oldest.arrival_s + self.max_wait_s
