"""The axes of a sweep, as they are typed: `window_s=0,1,5`, `replicas=1..8`, `batch-window.max_batch=8`."""

import re
from dataclasses import dataclass

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
