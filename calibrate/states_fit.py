"""From raw readings to the power states of a cost table."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import fields
from itertools import pairwise
from statistics import fmean, stdev
from typing import Any, NamedTuple

from calibrate.states_file import Kind, Round
from sim.table import PowerState
from sim.table_files import STATES

SETTLE_S = {"idle": 1.5, "sleep-1": 1.5, "sleep-2": 1.5, "off": 4.0}
"""How long a state is left alone before its power is taken: clocks fall some time after the work ends."""

IDLE: tuple[str, Kind] = ("idle", "hold")
START: tuple[str, Kind] = ("off", "leave")
NUMBERS = tuple(number.name for number in fields(PowerState))


class Stretch(NamedTuple):
    """What a phase took."""

    seconds: float
    joules: float

    @property
    def mean_w(self) -> float:
        """Return its mean power."""
        return self.joules / self.seconds


def read_round(one: Round) -> dict[tuple[str, Kind], Stretch]:
    """Return what each way took, and each state's settled stretches together.

    The joules of a way are those until what it leads to is settled, less what the settled power takes since
    the way's end: what is drawn later because of it belongs to it.
    """
    found: dict[tuple[str, Kind], Stretch] = {}
    for way, rest in pairwise(one.phases):
        if rest.kind != "hold":
            continue
        settled_s = rest.begin_s + SETTLE_S[rest.state]
        held = _steady(one, settled_s, rest.end_s)
        before = found.get((rest.state, "hold"), Stretch(0.0, 0.0))
        found[rest.state, "hold"] = Stretch(before.seconds + held.seconds, before.joules + held.joules)
        if way.kind != "hold":
            joules = one.energy_j(way.begin_s, settled_s) - held.mean_w * (settled_s - way.end_s)
            found[way.state, way.kind] = Stretch(way.end_s - way.begin_s, max(joules, 0.0))
    return found


def _steady(one: Round, begin_s: float, end_s: float) -> Stretch:
    """Return what was taken from the first tick to the last within: what follows has no part in it.

    Raises:
        ValueError: There are no two ticks.
    """
    ticks = one.counter[(one.counter[:, 0] >= begin_s) & (one.counter[:, 0] <= end_s)]
    if len(ticks) < 2:
        raise ValueError(f"the energy counter did not tick twice from {begin_s:.3f} to {end_s:.3f} s")
    seconds, joules = ticks[-1] - ticks[0]
    return Stretch(float(seconds), float(joules))


def power_states(rounds: Sequence[Round], idle_w: float) -> tuple[dict[str, PowerState], dict[str, Any]]:
    """Return the mean over rounds as power states, and what else a table tells of them.

    Watts and joules are scaled to an engine that idles at `idle_w`, as cards differ. A state is there if its
    power and both ways were measured. Starts that are a session's first, which may compile, count only where
    there are no others.

    Args:
        rounds: Raw readings, whole or cut off.
        idle_w: Idle power of the table, all GPUs.
    """
    columns: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    first_starts: list[tuple[float, float]] = []
    idles_w: list[float] = []
    for place, one in enumerate(rounds):
        found = read_round(one)
        if IDLE not in found:
            continue
        idles_w.append(found[IDLE].mean_w)
        scale = idle_w / idles_w[-1]
        is_first = all(before.session != one.session for before in rounds[:place])
        for (state, kind), stretch in found.items():
            if kind == "hold":
                columns[state]["power_w"].append(scale * stretch.mean_w)
            elif (state, kind) == START and is_first:
                first_starts.append((stretch.seconds, scale * stretch.joules))
            else:
                columns[state][f"{kind}_s"].append(stretch.seconds)
                columns[state][f"{kind}_j"].append(scale * stretch.joules)
    if not columns["off"]["leave_s"]:
        columns["off"]["leave_s"] = [seconds for seconds, _ in first_starts]
        columns["off"]["leave_j"] = [joules for _, joules in first_starts]
    there = [state for state in STATES if all(columns[state][name] for name in NUMBERS)]
    states = {state: PowerState(*(fmean(columns[state][name]) for name in NUMBERS)) for state in there}
    notes = {
        "rounds": sum(one.is_whole for one in rounds),
        "idle_w": fmean(idles_w) if idles_w else None,
        "spread": {state: {name: _spread(columns[state][name]) for name in NUMBERS} for state in there},
        "failures": sorted({f"{state}: {why}" for one in rounds for state, why in one.failures.items()}),
    }
    return states, notes


def _spread(values: Sequence[float]) -> float | None:
    """Return the standard deviation over rounds, None of one."""
    return stdev(values) if len(values) > 1 else None
