"""Short requests to some replicas, long ones to others."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from sim.policy import HeldRequest
from sim.router import Loads, least_loaded
from traces.trace import Ints, Trace

UNPREDICTED = "router length-split counts the output, which nobody predicts; give --length-prediction"


@dataclass(slots=True)
class LengthSplit:
    """A group of replicas for each range of lengths, the shortest requests to the first group.

    In its group a request goes to the least loaded replica. Groups are the pools of a fleet file; equal
    replicas are divided into groups as equal as can be, which share where they are fewer than the groups.
    Where a whole group sleeps, its requests go to the least loaded of all.

    Attributes:
        edges: Tokens below which a request belongs to the first group, to the second, and so on, ascending,
            separated by `/`.
        counts_output: Whether the predicted output counts as length, besides the prompt.

    Raises:
        ValueError: The edges are no ascending numbers above 0.
    """

    edges: str = "1024"
    counts_output: bool = False
    _edges: tuple[int, ...] = field(default=(), init=False)
    _groups: tuple[range, ...] = field(default=(), init=False)

    def __post_init__(self) -> None:
        texts = self.edges.split("/")
        self._edges = tuple(int(text) for text in texts if text.strip().isdecimal())
        ascends = all(one < other for one, other in pairwise((0, *self._edges)))
        if len(self._edges) < len(texts) or not ascends:
            raise ValueError(
                f"router length-split: edges must be ascending token counts above 0, like 1024/4096, "
                f"got {self.edges!r}"
            )

    def divide(self, pools: Sequence[int]) -> None:
        """Learn how many replicas each pool has.

        Raises:
            ValueError: There are several pools, but not as many as ranges of lengths.
        """
        groups = len(self._edges) + 1
        if len(pools) == 1:
            bounds = [pools[0] * group // groups for group in range(groups + 1)]
        elif len(pools) == groups:
            bounds = [sum(pools[:group]) for group in range(groups + 1)]
        else:
            raise ValueError(
                f"router length-split: edges {self.edges} make {groups} groups, but there are {len(pools)} "
                f"pools: give {len(pools) - 1} edges"
            )
        self._groups = tuple(range(first, max(end, first + 1)) for first, end in pairwise(bounds))

    def groups_of(self, trace: Trace) -> Ints:
        """Return the group that each request of a trace belongs to, shape (requests,).

        Raises:
            ValueError: The output counts, and nobody predicts it.
        """
        tokens = trace.prompt_tokens
        if self.counts_output:
            if trace.predicted_output_tokens is None:
                raise ValueError(UNPREDICTED)
            tokens = tokens + trace.predicted_output_tokens
        return np.searchsorted(self._edges, tokens, side="right")

    def route(self, request: HeldRequest, loads: Loads) -> int:
        """Return the least loaded of the request's group."""
        tokens = request.prompt_tokens
        if self.counts_output:
            if request.predicted_output_tokens is None:
                raise ValueError(UNPREDICTED)
            tokens += request.predicted_output_tokens
        group = self._groups[sum(tokens >= edge for edge in self._edges)]
        return least_loaded({replica: loads[replica] for replica in group if replica in loads} or loads)
