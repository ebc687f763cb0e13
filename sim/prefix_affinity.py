"""Requests that begin alike to the same replica, for the sake of its prefix cache."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from sim.policy import HeldRequest
from sim.router import Loads, least_loaded

NOBODY = -1


@dataclass(slots=True)
class PrefixAffinity:
    """The replica that has most of the prompt in its prefix cache, as far as its requests tell.

    That is the one which served the request's session last, or else the longest known beginning of its
    prompt. Where too little is known, or the replica is too far ahead of the others, the least loaded one
    is chosen.

    Attributes:
        match: Fraction of a prompt's blocks that must be known, above 0 to 1.
        ahead: Requests that the replica may have more than the least loaded one.

    Raises:
        ValueError: A value out of range.
    """

    match: float = 0.5
    ahead: int = 16
    _of_session: dict[str, int] = field(default_factory=dict, init=False)
    _of_prefix: dict[int, int] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        if not 0 < self.match <= 1:
            raise ValueError(f"router prefix-affinity: match must be above 0 and at most 1, got {self.match}")
        if self.ahead < 0:
            raise ValueError(f"router prefix-affinity: ahead must be >= 0, got {self.ahead}")

    def route(self, request: HeldRequest, loads: Loads) -> int:
        """Return the replica that knows the request, unless it is too busy."""
        prefixes = tuple(_prefixes(request.prefix_hashes))
        chosen, known = least_loaded(loads), self._who_knows(request, prefixes)
        if known in loads and loads[known] <= loads[chosen] + self.ahead:
            chosen = known
        self._of_prefix.update(dict.fromkeys(prefixes, chosen))
        if request.session_id is not None:
            self._of_session[request.session_id] = chosen
        return chosen

    def _who_knows(self, request: HeldRequest, prefixes: Sequence[int]) -> int:
        if request.session_id is not None and request.session_id in self._of_session:
            return self._of_session[request.session_id]
        for place in range(len(prefixes), 0, -1):
            if place < self.match * len(prefixes):
                break
            if prefixes[place - 1] in self._of_prefix:
                return self._of_prefix[prefixes[place - 1]]
        return NOBODY


def _prefixes(hashes: Iterable[int]) -> Iterable[int]:
    """Yield a number for each beginning of the prompt that ends with a block."""
    so_far = 0
    for one in hashes:
        so_far = hash((so_far, one))
        yield so_far
