"""What a search varies, as it is typed: `window_s=0,1,5`, `replicas=1..8`, `window_s=0.0..30.0`."""

import re
from dataclasses import dataclass
from math import inf

from sim.settings import split_pair


@dataclass(frozen=True, slots=True)
class Axis:
    """The values of one input.

    Attributes:
        name: Name of the input, with `_`.
        policy: The policy whose option it is, None for every policy that has it and for other inputs.
        values: As text; where they are put in they are checked.
    """

    name: str
    policy: str | None
    values: tuple[str, ...]


def parse_axis(text: str) -> Axis:
    """Return the axis of `NAME=V1,V2,...`, `NAME=A..B` (whole numbers, both ends in) or `POLICY.NAME=...`.

    Raises:
        ValueError: It is none of these.
    """
    typed_name, typed_values = split_pair(text, "--grid")
    policy, _, name = typed_name.rpartition(".")
    values = tuple(value.strip() for value in typed_values.split(","))
    found = re.fullmatch(r"(-?\d+)\.\.(-?\d+)", typed_values)
    if found:
        first, last = int(found[1]), int(found[2])
        values = tuple(str(value) for value in range(first, last + 1))
    if not name or not values or "" in values:
        raise ValueError(f"--grid takes NAME=V1,V2,... or NAME=A..B with A <= B, got {text!r}")
    return Axis(name.replace("-", "_"), policy or None, values)


@dataclass(frozen=True, slots=True)
class Span:
    """The range in which a number is searched, both ends in.

    Attributes:
        name: Name of the input, with `_`.
        low, high: Its ends.
        is_whole: Whether only whole numbers are meant.
    """

    name: str
    low: float
    high: float
    is_whole: bool


def parse_span(text: str) -> Span:
    """Return the range of `NAME=0..30` (whole numbers) or `NAME=0.0..30.0`.

    Raises:
        ValueError: It is neither, or the ends are the same or the wrong way round.
    """
    name, ends = split_pair(text, "--over")
    low, dots, high = ends.partition("..")
    is_whole = all(re.fullmatch(r"-?\d+", end.strip()) for end in (low, high))
    try:
        span = Span(name.replace("-", "_"), float(low), float(high), is_whole)
    except ValueError:
        span = Span(name, 0.0, 0.0, is_whole)
    if not dots or not -inf < span.low < span.high < inf:
        raise ValueError(f"--over takes NAME=A..B with numbers A < B, got {text!r}")
    return span
