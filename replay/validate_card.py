"""The card under `replay validate --adapt`: its loads before the replays, and its pace after them."""

from dataclasses import replace
from pathlib import Path

from backends.rig import Rig
from calibrate.grid import ONE_SEQUENCE
from calibrate.measure import Plan, Running, measure_again, measure_running
from calibrate.raw import RawPoint, append
from calibrate.windows import windows
from replay.calibrate_gpus import gpu_facts
from replay.errors import one_line
from replay.output import say, warn
from replay.printing import quantity

PACE_TOLERANCE = 0.01
"""Largest change of a step's time without a warning; nine in ten loads repeat within half of it."""

AFTER_FILE = "after.jsonl"
"""What was measured after the replays, beside the points that the table is adapted to."""


async def measure_card(rig: Rig, folder: Path, seed: int) -> RawPoint | None:
    """Measure one round of the loads that tell a card and its host from others.

    Return that of one sequence that decodes, None if the round has no such load.
    """
    say(f"the card's loads go to {folder}")
    points = await measure_running(folder, _plan(seed), _running(rig), say)
    now = [raw for raw in points if raw.session == points[-1].session]
    return next((raw for raw in reversed(now) if replace(raw.point, repeat=0) == ONE_SEQUENCE), None)


async def check_pace(rig: Rig, folder: Path, seed: int, before: RawPoint | None) -> None:
    """Measure the load of `before` again, which the table is not adapted to, and tell how the pace changed.

    Without such a load there is nothing to tell. The replays are done: a failure is told and not raised.
    """
    if before is None:
        return
    try:
        after = await measure_again(before, _plan(seed), _running(rig))
    except ValueError as error:
        warn(f"the engine's pace after the replays is unknown: {one_line(error)}")
        return
    append(folder / AFTER_FILE, after)
    tell_pace(before, after)


def tell_pace(before: RawPoint, after: RawPoint) -> None:
    """Say what a step took before and after the replays, nothing if either is unknown; warn if it changed."""
    found = windows([before, after])
    if len(found) < 2:
        return
    before_s, after_s = (window.step_s for window in found)
    change = after_s / before_s - 1
    steps = f"{quantity(before_s, 's')} before the replays and {quantity(after_s, 's')} after them"
    line = f"a step of one sequence took {steps} ({100 * change:+z.1f} %)"
    if abs(change) <= PACE_TOLERANCE:
        say(line)
        return
    warn(
        f"{line}; the engine's pace changed: did something else start on this host? "
        "replays before and after the change differ by up to that much (docs/calibrate.md)"
    )


def _plan(seed: int) -> Plan:
    return Plan(grid="card", seed=seed)


def _running(rig: Rig) -> Running:
    assert rig.steps_since is not None
    return Running(rig.engine, rig.meter, rig.steps_since, rig.gpus, gpu_facts(rig.gpus))
