"""Scaling: how many replicas of a fleet are awake, and when."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any, Literal, Protocol

from sim.series import Series, read_series
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
        file: CSV with the columns `time_s` and `replicas`: from then on, so many, the lowest; the first
            number holds before, too.
        state: Where the others go.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is no such file.
    """

    file: str
    state: State = "off"
    _wanted: Series = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        wanted = read_series(Path(self.file), "replicas")
        wrong = wanted.value[(wanted.value < 1) | (wanted.value % 1 != 0)]
        if len(wrong):
            raise ValueError(f"{self.file}: replicas must be whole numbers of at least 1, got {wrong[0]:g}")
        object.__setattr__(self, "_wanted", wanted)

    def first_awake(self, replicas: int) -> int:
        """Return the first row's number."""
        return min(int(self._wanted.value[0]), replicas)

    def settle(self, crew: Crew, now_s: float) -> None:
        """Wake and put to sleep at the times of the file, or when the last request of a replica is done."""
        begins_s, counts = self._wanted.time_s.tolist(), self._wanted.value.tolist()
        for from_s, end_s, wanted in zip(begins_s, [*begins_s[1:], inf], counts, strict=True):
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
        return range(min(int(self._wanted.at(now_s)), crew.replicas))


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
