"""A measured run: a trace through a policy and a real engine, with the energy counter read around it."""

import asyncio
import gc
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from backends.live import LiveReplay
from backends.measured_record import Ending, Measured, Replay, Seen, make_record
from backends.nvml import MeterError
from backends.prompted_engine import FAILURES_IN_A_ROW, PromptedEngine, id_of
from backends.prompts import SAFE_VOCABULARY, make_prompts
from backends.replicas import Replicas
from backends.rig import Rig
from sim.options import options_among
from sim.told_costs import ToldCosts, asking, tell_costs

IDLE_BEFORE_S = 2.0
"""Known idle before time 0; its power is the run's `idle_w`."""

WAIT_AFTER_S = 1.5
"""Readings go on that long after the last completion."""


async def measure_replay(what: Replay, rig: Rig, progress: Callable[[int], None] | None = None) -> Measured:
    """Replay in real time on `rig`, and return what happened, however it ended.

    A replay that is cancelled after its time 0 does not raise: what was measured is in the run, and
    `ending.is_interrupted` tells the caller to stop.

    Args:
        what: The replay.
        rig: An engine without work, and its meter.
        progress: Called with the number of requests just finished.

    Raises:
        ValueError: The trace is empty, or the policy breaks a rule.
    """
    if not len(what.trace):
        raise ValueError(f"trace {what.trace.name} has no requests; a replay needs at least 1")
    facts = rig.engine.facts()
    _tell_costs(what, facts)
    vocabulary = int(facts.get("vocabulary", SAFE_VOCABULARY))
    prompts = make_prompts(what.trace, vocabulary, what.seed, what.name)
    if isinstance(rig.engine, Replicas):
        rig.engine.expect(what.trace)
    engine = PromptedEngine(rig.engine, prompts, what.name)
    live = LiveReplay(what.trace, what.policy, engine, progress)
    # The loop's time is the monotonic clock, as are the meter's and the step log's.
    clock = asyncio.get_running_loop()
    gc.collect()
    gc.freeze()  # a collection that walked millions of prompt tokens would stop the event loop
    try:
        idle_from_s, started_at = clock.time(), datetime.now(UTC)
        ending = await _idle_and_replay(live, engine)
        end_s = clock.time()
        await asyncio.sleep(WAIT_AFTER_S)
    finally:
        gc.unfreeze()
    assert live.zero_s is not None
    try:
        samples = rig.meter.samples(idle_from_s)
    except MeterError as error:
        samples, ending = rig.last_samples(idle_from_s), ending.because(str(error))
    seen = Seen(
        live=live,
        facts=facts,
        ending=ending,
        started_at=started_at,
        idle_from_s=idle_from_s,
        end_s=end_s,
        samples=samples,
        steps=None if rig.steps_since is None else rig.steps_since(live.zero_s),
        gpus=rig.gpus,
        notes=rig.notes,
        twin=rig.twin,
        replica=_replicas(what, rig),
    )
    return make_record(what, seen)


def _tell_costs(what: Replay, facts: Mapping[str, Any]) -> None:
    if asking(what.policy):
        table, replicas = what.table, int(facts.get("replicas", 1))
        options = options_among({} if table is None else {**table.engine, **facts})
        tell_costs(what.policy, None if table is None else ToldCosts(table, options, replicas))


def _replicas(what: Replay, rig: Rig) -> list[int | None] | None:
    if rig.replica_of is None:
        return None
    return [rig.replica_of(id_of(what.name, row)) for row in range(len(what.trace))]


async def _idle_and_replay(live: LiveReplay, engine: PromptedEngine) -> Ending:
    """Idle, then replay until the last finish, an interrupt, or an engine that only fails."""
    await asyncio.sleep(IDLE_BEFORE_S)
    replaying = asyncio.ensure_future(live.run())
    giving_up = asyncio.ensure_future(engine.is_given_up.wait())
    try:
        await asyncio.wait((replaying, giving_up), return_when=asyncio.FIRST_COMPLETED)
        if replaying.done():
            replaying.result()
            return Ending()
        reason = f"the engine failed {FAILURES_IN_A_ROW} requests in a row, so the replay was ended"
        return Ending((reason,), is_engine_dead=True)
    except asyncio.CancelledError:
        if live.zero_s is None:
            raise
        return Ending(("the replay was interrupted",), is_interrupted=True)
    finally:
        replaying.cancel()
        giving_up.cancel()
        await asyncio.gather(replaying, giving_up, return_exceptions=True)
