"""Measure power states: rounds of an engine that starts, idles, sleeps, wakes and stops, metered."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from calibrate.measure import AFTER_S, BEFORE_S, Samples, Unfinished, Watch, counter_ticks
from calibrate.states_file import Kind, Phase, Readings, Round, read_readings, write_readings
from calibrate.states_fit import SETTLE_S, read_round
from sim.table import CostTable

LEAD_S = 0.5
"""The counter ticks before the engine starts."""

HOLD_S = 3.5
"""How long a state's settled power is metered; the counter ticks each 0.1 s."""

SAME_MODEL = ("model", "dtype", "quantization", "tensor_parallel_size")
"""What an engine has in common with the table that gets its power states."""


class StatesEngine(Protocol):
    """An engine with a process of its own: `backends.engine_process.EngineProcess` or a stand-in.

    Each call raises ValueError where the engine refuses and ConnectionError where it has gone.
    """

    async def start(self) -> dict[str, Any]:
        """Start the process and return the engine options in force when it is ready."""
        ...

    async def answer(self) -> None:
        """Serve one short request."""
        ...

    async def sleep(self, level: int) -> None:
        """Go to vLLM's sleep level."""
        ...

    async def wake(self, level: int) -> None:
        """Come back from that level, weights and all."""
        ...

    async def ensure_awake(self) -> None:
        """Refuse if it sleeps; it may have no weights."""
        ...

    async def stop(self) -> None:
        """Shut down and return when the process has gone."""
        ...

    async def end(self) -> None:
        """End the process if there is one, whatever it does."""
        ...


@dataclass(frozen=True, slots=True)
class StatesTools:
    """What is driven and read.

    Attributes:
        engine: Not started.
        meter: Opens the running meter.
        watch: Sees who else computes on the metered GPUs.
        gpu: What NVML says about these: name, driver, power_limit_w, gpus, hashes.
        options: Engine options as given.
    """

    engine: StatesEngine
    meter: AbstractContextManager[Samples]
    watch: Watch
    gpu: dict[str, Any]
    options: dict[str, Any]


@dataclass(frozen=True, slots=True)
class StatesPlan:
    """How much is measured.

    Attributes:
        rounds: How many whole rounds there are in the end.
        stop_after_s: Begin no round that ends later if it takes as long as the last, None to run to the end.
    """

    rounds: int = 3
    stop_after_s: float | None = None


def measure_states(
    path: Path, plan: StatesPlan, tools: StatesTools, table: CostTable, say: Callable[[str], None]
) -> list[Round]:
    """Measure the rounds that are left into `path` and return all.

    Each round is on disk as soon as it ends, however it ends, with what came to its end.

    Args:
        path: The file of readings; goes on if it is there.
        plan: How much.
        tools: Engine and meter.
        table: Has to be of the same model and GPU.
        say: Is told of each round.

    Raises:
        ValueError: The engine or the GPU is not the table's or not that of the rounds before, the engine or
            the meter fails, or somebody else computes on the GPU.
        ConnectionError: The engine has died.
        Unfinished: The time is up; call again to go on.
    """
    return asyncio.run(_measure(path, plan, tools, table, say))


async def _measure(
    path: Path, plan: StatesPlan, tools: StatesTools, table: CostTable, say: Callable[[str], None]
) -> list[Round]:
    end_s = float("inf") if plan.stop_after_s is None else time.monotonic() + plan.stop_after_s
    readings = read_readings(path)
    _agree("GPU", tools.gpu, {"name": table.gpu, "power_limit_w": table.power_limit_w, "gpus": table.gpus})
    path.parent.mkdir(parents=True, exist_ok=True)
    session, last_s = len(readings.sessions), 0.0
    done = sum(one.is_whole for one in readings.rounds)
    with tools.meter as meter:
        for number in range(done + 1, plan.rounds + 1):
            begun_s = time.monotonic()
            if last_s and begun_s + last_s > end_s:
                raise Unfinished(f"{number - 1} of {plan.rounds} rounds are done")
            say(f"round {number} of {plan.rounds}: the engine starts")
            one = await _measure_round(path, readings, session, tools, meter, table)
            last_s = time.monotonic() - begun_s
            for line in describe(one):
                say(line)
    return readings.rounds


async def _measure_round(
    path: Path, readings: Readings, session: int, tools: StatesTools, meter: Samples, table: CostTable
) -> Round:
    """Measure one round and write the readings with it, also if it is cut off."""
    log = PhaseLog(began_at=datetime.now(UTC).isoformat(timespec="seconds"))

    async def begin() -> None:
        facts = await tools.engine.start()
        tools.watch.engine_is_up()
        _agree("engine", facts, {name: table.engine.get(name) for name in SAME_MODEL})
        _begin_session(readings, session, facts, tools)

    try:
        await _play(log, tools.engine, begin)
    finally:
        await tools.engine.end()
        await asyncio.sleep(AFTER_S)  # the counter ticks past the last phase
        one = _collect(log, session, tools.watch, meter)
        if one.phases:
            readings.rounds.append(one)
            write_readings(path, readings)
    return one


class PhaseLog:
    """Notes what an engine did when, in seconds since this was made."""

    def __init__(self, began_at: str) -> None:
        self.zero_s = time.monotonic()
        self.began_at = began_at
        self.phases: list[Phase] = []
        self.failures: dict[str, str] = {}

    async def note(self, state: str, kind: Kind, *acts: Callable[[], Awaitable[Any]]) -> None:
        """Do one act after the other, and note when if none fails."""
        begin_s = time.monotonic() - self.zero_s
        for act in acts:
            await act()
        self.phases.append(Phase(state, kind, begin_s, time.monotonic() - self.zero_s))

    async def hold(self, state: str) -> None:
        """Do nothing until the power has settled and is metered."""
        await self.note(state, "hold", lambda: asyncio.sleep(SETTLE_S[state] + HOLD_S))


async def _play(log: PhaseLog, engine: StatesEngine, begin: Callable[[], Awaitable[None]]) -> None:
    """Lead an engine through all states; a sleep that fails is noted, and others go on if it is awake."""
    await asyncio.sleep(LEAD_S)
    await log.note("off", "leave", begin, engine.answer)
    await log.hold("idle")
    for level in (1, 2):
        await _play_sleep(log, engine, level)
        await log.hold("idle")
    await log.note("off", "enter", engine.stop)
    await log.hold("off")


async def _play_sleep(log: PhaseLog, engine: StatesEngine, level: int) -> None:
    state = f"sleep-{level}"
    try:
        await log.note(state, "enter", lambda: engine.sleep(level))
        await log.hold(state)
        await log.note(state, "leave", lambda: engine.wake(level), engine.answer)
    except ValueError as error:
        log.failures[state] = str(error)
        await engine.ensure_awake()


def _collect(log: PhaseLog, session: int, watch: Watch, meter: Samples) -> Round:
    """Return what the meter has read of the phases that it has read to their end.

    Raises:
        ValueError: The counter went back, or somebody else computes on the GPU.
    """
    counter = counter_ticks(meter.samples(log.zero_s - BEFORE_S))
    counter -= [log.zero_s, counter[0, 1] if len(counter) else 0.0]
    last_s = counter[-1, 0] if len(counter) else 0.0
    phases = tuple(phase for phase in log.phases if phase.end_s <= last_s)
    strangers = watch.foreign_process_ids() if phases else ()
    if strangers:
        raise ValueError(
            f"process {strangers[0]} has come to the GPU, whose energy would be counted too; "
            "end it, and the round will be measured again"
        )
    if (np.diff(counter[:, 1]) < 0).any():
        raise ValueError("the energy counter went back during a round: was the driver loaded again?")
    return Round(session, log.began_at, phases, log.failures, counter)


def _begin_session(readings: Readings, session: int, facts: dict[str, Any], tools: StatesTools) -> None:
    """Note what this session is of, or check that it is the same as before.

    Another card of the same kind may go on, and may hold another number of blocks.
    """
    if readings.sessions:
        before = readings.sessions[0]["engine"]
        _agree("engine", facts, {name: before[name] for name in before if name != "num_gpu_blocks"})
    if len(readings.sessions) == session:
        date = datetime.now(UTC).date().isoformat()
        readings.sessions.append({"date": date, "gpu": tools.gpu, "options": tools.options, "engine": facts})


def _agree(what: str, now: dict[str, Any], wanted: dict[str, Any]) -> None:
    for name, value in wanted.items():
        if now.get(name) != value:
            raise ValueError(
                f"the {what} has {name} = {now.get(name)}, but the table or the rounds before have {value}; "
                "use the same, or another --table and --out"
            )


def describe(one: Round) -> list[str]:
    """Return a line for each thing that a round has told."""
    ways = {"enter": "to", "leave": "from"}
    lines = []
    for (state, kind), (seconds, joules) in read_round(one).items():
        if kind == "hold":
            lines.append(f"  {state}: {joules / seconds:.1f} W")
        else:
            lines.append(f"  {ways[kind]} {state}: {seconds:.2f} s, {joules:.0f} J")
    return lines + [f"  {state} failed: {why}" for state, why in one.failures.items()]
