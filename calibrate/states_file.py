"""Raw readings of power states: what an engine did when, and the energy counter meanwhile."""

import json
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from calibrate.raw import counted_j
from traces.whole_files import whole_file

FILE = "states.json"
FORMAT = 1

Kind = Literal["enter", "hold", "leave"]


@dataclass(frozen=True, slots=True)
class Phase:
    """A stretch of a round, in seconds since the round began.

    Attributes:
        state: `idle`, `off`, `sleep-1` or `sleep-2`.
        kind: From idle to the state, in it, or from it to an engine that has answered a request.
        begin_s, end_s: When.
    """

    state: str
    kind: Kind
    begin_s: float
    end_s: float


@dataclass(frozen=True, slots=True, eq=False)
class Round:
    """What one start of the engine, its sleeps and its stop have shown.

    Attributes:
        session: Counts the runs of the command from 0.
        began_at: ISO 8601, UTC.
        phases: Those that came to their end, in order.
        failures: Why a state could not be left or reached, by state.
        counter: (time_s, energy_j) at each tick of the energy counter, all GPUs summed, shape (ticks, 2).
    """

    session: int
    began_at: str
    phases: tuple[Phase, ...]
    failures: dict[str, str]
    counter: NDArray[np.float64]

    @property
    def is_whole(self) -> bool:
        """Whether it was measured to its end, the stopped engine."""
        return bool(self.phases) and (self.phases[-1].state, self.phases[-1].kind) == ("off", "hold")

    def energy_j(self, begin_s: float, end_s: float) -> float:
        """Return the joules between two times by interpolating between ticks.

        Raises:
            ValueError: The ticks do not reach that far.
        """
        return counted_j(self.counter, begin_s, end_s)


@dataclass(slots=True)
class Readings:
    """All that is in a file.

    Attributes:
        sessions: GPU, engine options in force and date of each run of the command.
        rounds: In order, those that were cut off too.
    """

    sessions: list[dict[str, Any]] = field(default_factory=list)
    rounds: list[Round] = field(default_factory=list)


def write_readings(path: Path, readings: Readings) -> None:
    """Write a file, over one that is there; it is on disk when this returns."""
    values = {
        "format": FORMAT,
        "sessions": readings.sessions,
        "rounds": [
            {
                "session": one.session,
                "began_at": one.began_at,
                "phases": [astuple(phase) for phase in one.phases],
                "failures": one.failures,
                "counter": np.round(one.counter, 4).tolist(),
            }
            for one in readings.rounds
        ],
    }
    with whole_file(path, overwrite=True) as part:
        part.write_text(json.dumps(values, separators=(",", ":"), allow_nan=False) + "\n")


def read_readings(path: Path) -> Readings:
    """Return what a file holds, nothing where there is none.

    Raises:
        ValueError: It holds something else.
    """
    if not path.exists():
        return Readings()
    try:
        values = json.loads(path.read_text())
        if values["format"] != FORMAT:
            raise ValueError(f"its format is {values['format']!r}, this version reads {FORMAT}")
        return Readings(values["sessions"], [_round(**one) for one in values["rounds"]])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path}: no readings of power states ({error!r}); move it away or use another --out"
        ) from error


def _round(
    session: int, began_at: str, phases: list[Any], failures: dict[str, str], counter: list[list[float]]
) -> Round:
    return Round(
        session,
        began_at,
        tuple(Phase(*phase) for phase in phases),
        failures,
        np.array(counter, dtype=np.float64).reshape(-1, 2),
    )
