"""Scaling: how many replicas of a fleet are awake, and when."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import inf
from pathlib import Path
from typing import Any, Literal, Protocol

from sim.settings import make_named

State = Literal["sleep-1", "sleep-2", "off"]


class Crew(Protocol):
    """What a scaling sees of the replicas, and does to them."""

    @property
    def settled_s(self) -> float:
        """Up to when it has been settled who sleeps."""
        ...

    @property
    def replicas(self) -> int:
        """How many there are."""
        ...

    def awake(self) -> Sequence[int]:
        """Return who serves or comes up, ascending."""
        ...

    def load(self, replica: int) -> int:
        """Return its unfinished requests."""
        ...

    def empty_since_s(self, replica: int) -> float:
        """Return since when it has had none, or since when it has been up if that is later."""
        ...

    def sleep(self, replica: int, at_s: float) -> None:
        """Let one go down that has no requests."""
        ...

    def wake(self, replica: int, at_s: float) -> None:
        """Let one come up."""
        ...


class Scaling(Protocol):
    """Decides who sleeps, from what has happened; it reads no clock."""

    @property
    def state(self) -> State:
        """Where replicas go that are not needed."""
        ...

    def first_awake(self, replicas: int) -> int:
        """Return how many are awake at time 0, the lowest."""
        ...

    def settle(self, crew: Crew, now_s: float) -> None:
        """Let those sleep and wake whose time came since `crew.settled_s`, up to `now_s`."""
        ...

    def candidates(self, crew: Crew, now_s: float) -> Sequence[int]:
        """Return who may get a request that is released now, having woken who is needed for it."""
        ...


@dataclass(frozen=True, slots=True)
class Reactive:
    """Replicas wake when there are many requests for each, and sleep when they have had none for a while.

    Attributes:
        least: Replicas that are always awake, the lowest at first.
        most: Replicas that are awake at most, None for all.
        up: Unfinished requests for each awake replica, beyond which another one wakes.
        idle_s: Seconds without a request after which a replica goes to sleep.
        state: Where to.

    Raises:
        ValueError: A value out of range.
    """

    least: int = 1
    most: int | None = None
    up: float = 64.0
    idle_s: float = 60.0
    state: State = "off"

    def __post_init__(self) -> None:
        for name, value in (("least", self.least), ("idle_s", self.idle_s)):
            if not 0 <= value < inf:
                raise ValueError(f"scaling reactive: {name} must be >= 0, got {value}")
        if not 0 < self.up < inf:
            raise ValueError(f"scaling reactive: up must be > 0, got {self.up}")
        if self.most is not None and self.most < max(self.least, 1):
            raise ValueError(
                f"scaling reactive: most must be >= {max(self.least, 1)}, got {self.most}: "
                "at least one replica has to serve"
            )

    def first_awake(self, replicas: int) -> int:
        """Return the least."""
        return min(self.least, replicas)

    def settle(self, crew: Crew, now_s: float) -> None:
        """Let those sleep that have waited long enough, who waited longest first, of several the highest."""
        waiting = (replica for replica in crew.awake() if crew.load(replica) == 0)
        due = sorted((max(crew.empty_since_s(one) + self.idle_s, crew.settled_s), -one) for one in waiting)
        for at_s, negated in due:
            if at_s > now_s or len(crew.awake()) <= self.least:
                return
            crew.sleep(-negated, at_s)

    def candidates(self, crew: Crew, now_s: float) -> Sequence[int]:
        """Return all that are awake, after waking the lowest ones that are missing."""
        most = crew.replicas if self.most is None else min(self.most, crew.replicas)
        requests = 1 + sum(crew.load(replica) for replica in range(crew.replicas))
        while requests > self.up * len(awake := crew.awake()) and len(awake) < most:
            crew.wake(next(replica for replica in range(crew.replicas) if replica not in awake), now_s)
        return awake


@dataclass(frozen=True, slots=True)
class Schedule:
    """So many replicas are awake as a file says; those beyond serve what they have, then sleep.

    Attributes:
        file: CSV with the header `time_s,replicas`: from then on, so many, the lowest; times ascend from 0.
        state: Where the others go.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is no such file.
    """

    file: str
    state: State = "off"
    _changes: tuple[tuple[float, int], ...] = field(default=(), init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_changes", _read_changes(Path(self.file)))

    def first_awake(self, replicas: int) -> int:
        """Return the first row's number."""
        return min(self._changes[0][1], replicas)

    def settle(self, crew: Crew, now_s: float) -> None:
        """Wake and put to sleep at the times of the file, or when the last request of a replica is done."""
        ends_s = [at_s for at_s, _ in self._changes[1:]] + [inf]
        for (from_s, wanted), end_s in zip(self._changes, ends_s, strict=True):
            if from_s > now_s or end_s <= crew.settled_s:
                continue
            awake = crew.awake()
            for replica in range(crew.replicas):
                if replica < wanted and replica not in awake:
                    crew.wake(replica, from_s)
                elif replica >= wanted and replica in awake and crew.load(replica) == 0:
                    at_s = max(from_s, crew.empty_since_s(replica))
                    if at_s < end_s and at_s <= now_s:
                        crew.sleep(replica, at_s)

    def candidates(self, crew: Crew, now_s: float) -> Sequence[int]:
        """Return those wanted now."""
        wanted = next(count for at_s, count in reversed(self._changes) if at_s <= now_s)
        return range(min(wanted, crew.replicas))


SCALINGS: Mapping[str, type[Any]] = {"reactive": Reactive, "schedule": Schedule}


def make_scaling(scaling: str) -> Scaling | None:
    """Return the scaling of this name, None for `fixed`: all replicas are awake.

    Args:
        scaling: A name, or with options `name:option=value:option=value`.

    Raises:
        OSError: A file that it names cannot be read.
        ValueError: There is no such scaling or option, or a value is refused.
    """
    if scaling == "fixed":
        return None
    made: Scaling = make_named(scaling, SCALINGS, "scaling", ("fixed",))
    return made


def _read_changes(path: Path) -> tuple[tuple[float, int], ...]:
    with path.open(newline="") as lines:
        header, *rows = [row for row in csv.reader(lines) if row] or [[]]
    try:
        changes = tuple((float(at_s), int(count)) for at_s, count in rows)
    except ValueError:
        changes = ()
    times_s = [at_s for at_s, _ in changes]
    is_ascending = times_s[:1] == [0.0] and all(one < other for one, other in pairwise(times_s))
    if header != ["time_s", "replicas"] or not is_ascending or min(n for _, n in changes) < 1:
        raise ValueError(
            f"{path}: no schedule; give a CSV with the header time_s,replicas, times ascending from 0, and "
            "at least 1 replica in each row"
        )
    return changes
