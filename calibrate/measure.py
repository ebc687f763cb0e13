"""Measure a grid: every point on disk as soon as it is done, and a stopped run goes on where it was."""

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from calibrate.grid import GridName, Limits, Point, loads, order
from calibrate.loads import LoadEngine, Loader, StartedEngine, Times
from calibrate.raw import STEP_COLUMNS, RawPoint, append, read_lines
from traces.whole_files import whole_file

BEFORE_S = 0.5
"""Readings kept before a load begins, so that the counter can be interpolated at its edges."""

AFTER_S = 0.25
"""Readings kept after a load has drained: how the power falls."""

POINTS_FILE = "points.jsonl"

SAME_GPU = ("name", "power_limit_w", "gpus")
"""What the GPUs of all sessions of a calibration must have in common."""


class Samples(Protocol):
    """A running meter."""

    def samples(self, since_s: float) -> NDArray[np.void]:
        """Return readings from `since_s` on, columns as in `backends.meter.SAMPLE`, in time order."""
        ...


class Lookout(Protocol):
    """Sees strangers on the metered GPUs of an engine that has started."""

    def foreign_process_ids(self) -> tuple[int, ...]:
        """Return who computes on the metered GPUs now and is not the engine."""
        ...


class Watch(Lookout, Protocol):
    """What is known of the metered GPUs: `backends.gpu_watch.GpuWatch` or a stand-in."""

    def engine_is_up(self) -> None:
        """Note who the engine is; raise ValueError if it computes on other GPUs than the metered ones."""
        ...


@dataclass(frozen=True, slots=True)
class Running:
    """A started engine and what reads it.

    Attributes:
        engine: Takes requests.
        meter: Runs.
        steps_since: Returns the engine's step log from a monotonic time on, columns as STEP_COLUMNS.
        watch: Sees who else computes on the metered GPUs.
        gpu: What NVML says about the metered GPUs: name, driver, power_limit_w, gpus, hashes.
    """

    engine: StartedEngine
    meter: Samples
    steps_since: Callable[[float], NDArray[np.void]]
    watch: Lookout
    gpu: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Instruments:
    """What a calibration drives and reads.

    Attributes:
        engine: The engine, not started.
        meter: Opens the running meter.
        steps_since, watch, gpu: As of `Running`.
    """

    engine: LoadEngine
    meter: AbstractContextManager[Samples]
    steps_since: Callable[[float], NDArray[np.void]]
    watch: Watch
    gpu: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Plan:
    """How a calibration runs.

    Attributes:
        grid: Which grid.
        repeats: Rounds through it.
        seed: Seed of order and tokens.
        hold_s: Length of a window.
        bare_idle_s: How long the GPU is metered before the engine starts.
        stop_after_s: End cleanly after the point that passes this time, None to run to the end.
    """

    grid: GridName = "standard"
    repeats: int = 3
    seed: int = 0
    hold_s: float = 1.5
    bare_idle_s: float = 10.0
    stop_after_s: float | None = None


class Unfinished(Exception):  # noqa: N818, not an error
    """The time was up before the grid was done; what was measured is kept."""


def measure(folder: Path, plan: Plan, tools: Instruments, say: Callable[[str], None]) -> list[RawPoint]:
    """Measure what is left of the grid into `folder` and return all points.

    Raises:
        ValueError: The folder holds a calibration of another engine, GPU or plan, the engine or the meter
            fails, or somebody else computes on the GPU. What was measured before is kept.
        Unfinished: `stop_after_s` has passed; call again to go on.
    """
    return asyncio.run(_measure(folder, plan, tools, say))


async def _measure(
    folder: Path, plan: Plan, tools: Instruments, say: Callable[[str], None]
) -> list[RawPoint]:
    end_s = float("inf") if plan.stop_after_s is None else time.monotonic() + plan.stop_after_s
    folder.mkdir(parents=True, exist_ok=True)
    with tools.meter as meter:
        facts = _read_facts(folder)
        if "bare_idle_w" not in facts:
            say(f"bare idle, {plan.bare_idle_s:g} s")
            facts["bare_idle_w"] = await _bare_idle_w(meter, plan.bare_idle_s)
        say("starting the engine")
        try:
            await tools.engine.start()
            tools.watch.engine_is_up()
            running = Running(tools.engine, meter, tools.steps_since, tools.watch, tools.gpu)
            return await _measure_left(folder, plan, running, facts, end_s, say)
        finally:
            tools.engine.stop()


async def measure_running(
    folder: Path, plan: Plan, running: Running, say: Callable[[str], None]
) -> list[RawPoint]:
    """Measure one more round of the grid, and what is left of those before, and return all points.

    The engine goes on. Bare idle is not measured.

    Raises:
        ValueError: As of `measure`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rounds = 1 + max((raw.point.repeat for raw in read_lines(folder / POINTS_FILE)), default=-1)
    another = replace(plan, repeats=rounds + 1)
    return await _measure_left(folder, another, running, _read_facts(folder), float("inf"), say)


async def measure_again(raw: RawPoint, plan: Plan, running: Running) -> RawPoint:
    """Measure the load of `raw` once more, in the same session, and return it; nothing is written.

    Raises:
        ValueError: The engine or the meter fails, or somebody else computes on the GPU.
    """
    loader = Loader(running.engine, plan.seed, plan.hold_s)
    await loader.warm_up()
    return await _measure_point(raw.point, raw.session, loader, running)


async def _measure_left(
    folder: Path,
    plan: Plan,
    running: Running,
    facts: dict[str, Any],
    end_s: float,
    say: Callable[[str], None],
) -> list[RawPoint]:
    done = read_lines(folder / POINTS_FILE)
    session = 1 + max((raw.session for raw in done), default=-1)
    facts = _agree(folder, facts, plan, running, session)
    todo = _left(done, plan, facts["engine"])
    loader = Loader(running.engine, plan.seed + len(done), plan.hold_s)
    await loader.warm_up()
    for number, point in enumerate(todo, start=1):
        raw = await _measure_point(point, session, loader, running)
        append(folder / POINTS_FILE, raw)
        done.append(raw)
        say(f"{number}/{len(todo)} {describe(raw)}")
        if time.monotonic() > end_s and number < len(todo):
            raise Unfinished(f"{len(done)} points are done, {len(todo) - number} are left")
    return done


async def _measure_point(point: Point, session: int, loader: Loader, running: Running) -> RawPoint:
    began_at = datetime.now(UTC).isoformat(timespec="seconds")
    times = await loader.run(point)
    raw = _collect(point, session, began_at, times, running)
    _check(raw, running.watch)
    return raw


def describe(raw: RawPoint) -> str:
    """Return one line: the load, and what its window showed."""
    begin_s, end_s = raw.window_s
    ended = (raw.steps["done_s"] > begin_s) & (raw.steps["done_s"] <= end_s)
    power_w = raw.energy_j(begin_s, end_s) / (end_s - begin_s)
    shape = " ".join(
        f"{name} {value}"
        for name, value in (
            ("batch", raw.point.batch),
            ("context", raw.point.context_tokens),
            ("chunk", raw.point.chunk_tokens),
            ("streams", raw.point.streams),
        )
        if value
    )
    return (
        f"{raw.point.kind} {shape}: {int(ended.sum())} steps in {end_s - begin_s:.2f} s, "
        f"{power_w:.0f} W, {raw.clock_mhz:.0f} MHz, {raw.temperature_c:.0f} C"
    )


def _check(raw: RawPoint, watch: Lookout) -> None:
    """Refuse a point whose energy cannot be trusted.

    Raises:
        ValueError: The counter stood still or went back, or somebody else computes on the GPU.
    """
    strangers = watch.foreign_process_ids()
    if strangers:
        raise ValueError(
            f"process {strangers[0]} has come to the GPU, whose energy would be counted too; "
            f"end it, and {raw.point.key} will be measured again"
        )
    if (np.diff(raw.counter[:, 1]) < 0).any():
        raise ValueError(f"the energy counter went back during {raw.point.key}: was the driver loaded again?")
    raw.energy_j(min(0.0, raw.window_s[0]), raw.window_s[1])


async def _bare_idle_w(meter: Samples, bare_idle_s: float) -> float:
    begin_s = time.monotonic()
    await asyncio.sleep(bare_idle_s)
    counter = counter_ticks(meter.samples(begin_s))
    if len(counter) < 2:
        raise ValueError(
            f"the energy counter did not tick within {bare_idle_s:g} s: this GPU cannot be metered"
        )
    return float((counter[-1, 1] - counter[0, 1]) / (counter[-1, 0] - counter[0, 0]))


def _left(done: Sequence[RawPoint], plan: Plan, engine: dict[str, Any]) -> list[Point]:
    limits = Limits(
        max_num_seqs=engine["max_num_seqs"],
        max_num_batched_tokens=engine["max_num_batched_tokens"],
        kv_tokens=(engine["num_gpu_blocks"] - 1) * engine["block_size"],
        max_model_len=engine["max_model_len"],
    )
    have = {raw.point.key for raw in done}
    everything = order(list(loads(limits, plan.grid)), plan.repeats, plan.seed)
    return [point for point in everything if point.key not in have]


def _read_facts(folder: Path) -> dict[str, Any]:
    path = folder / "facts.json"
    facts: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return facts


def _agree(folder: Path, facts: dict[str, Any], plan: Plan, running: Running, session: int) -> dict[str, Any]:
    """Write what this calibration is of, or check that it is the same as before.

    Another card of the same kind may go on; all of them are named.
    """
    engine = running.engine.facts()
    now = {
        "engine": engine,
        "gpu": running.gpu,
        "seed": plan.seed,
        "hold_s": plan.hold_s,
        "date": datetime.now(UTC).date().isoformat(),
    }
    for key in ("seed", "hold_s"):
        if key in facts and facts[key] != now[key]:
            raise ValueError(
                f"{folder} was begun with {key} = {facts[key]}, now {now[key]}; use another --out"
            )
    for key, value in facts.get("engine", {}).items():
        if key != "num_gpu_blocks" and engine.get(key) != value:
            raise ValueError(
                f"{folder} was begun on an engine with {key} = {value}, now {engine.get(key)}; "
                f"use another --out"
            )
    for key in SAME_GPU:
        before, here = facts.get("gpu", running.gpu)[key], running.gpu[key]
        if before != here:
            raise ValueError(
                f"{folder} was begun on a GPU with {key} = {before}, now {here}; use another --out"
            )
    facts = {**now, **facts}
    facts["gpu"]["hashes"] = sorted({*facts["gpu"]["hashes"], *running.gpu["hashes"]})
    cards = {**facts.get("session_cards", {}), str(session): "+".join(running.gpu["hashes"])}
    facts["session_cards"] = cards
    with whole_file(folder / "facts.json", overwrite=True) as part:
        part.write_text(json.dumps(facts, indent=1))
    return facts


def _collect(point: Point, session: int, began_at: str, times: Times, running: Running) -> RawPoint:
    zero_s = times.begin_s
    samples = running.meter.samples(zero_s - BEFORE_S)
    samples = samples[samples["time_s"] <= times.end_s + AFTER_S]
    steps = running.steps_since(zero_s)
    steps = steps[steps["scheduled_s"] >= zero_s]
    inside = (samples["time_s"] >= times.window_begin_s) & (samples["time_s"] <= times.window_end_s)
    context = samples[inside] if inside.any() else samples  # a meter kept from reading: what it read around
    counter, power = counter_ticks(samples), _power(samples)
    counter -= [zero_s, counter[0, 1] if len(counter) else 0.0]
    power[:, 0] -= zero_s
    columns = {name: steps[name].astype(np.float64) for name in STEP_COLUMNS}
    for name in ("scheduled_s", "done_s"):
        columns[name] -= zero_s
    return RawPoint(
        point=point,
        session=session,
        began_at=began_at,
        window_s=(times.window_begin_s - zero_s, times.window_end_s - zero_s),
        end_s=times.end_s - zero_s,
        steps=columns,
        counter=counter,
        power=power,
        requests=np.array(times.requests, dtype=np.float64).reshape(-1, 3) - zero_s,
        clock_mhz=float(context["clock_mhz"].mean()),
        temperature_c=float(context["temperature_c"].mean()),
        throttle_reasons=int(np.bitwise_or.reduce(context["throttle_reasons"])),
    )


def counter_ticks(samples: NDArray[np.void]) -> NDArray[np.float64]:
    """Return (time_s, energy_j) at each tick of the counter, GPUs summed.

    Of several GPUs, the ticks are those of the first; the others are interpolated there, where all are known.
    """
    ticks = []
    for gpu in np.unique(samples["gpu"]):
        own = samples[samples["gpu"] == gpu]
        changed = np.flatnonzero(np.diff(own["energy_j"]) != 0) + 1
        ticks.append(np.column_stack([own["time_s"][changed], own["energy_j"][changed]]))
    if not all(len(tick) for tick in ticks):
        return np.zeros((0, 2))
    from_s, to_s = max(tick[0, 0] for tick in ticks), min(tick[-1, 0] for tick in ticks)
    times = ticks[0][(ticks[0][:, 0] >= from_s) & (ticks[0][:, 0] <= to_s), 0]
    total_j = np.sum([np.interp(times, tick[:, 0], tick[:, 1]) for tick in ticks], axis=0)
    return np.column_stack([times, total_j])


def _power(samples: NDArray[np.void]) -> NDArray[np.float64]:
    """Return (time_s, power_w) wherever the instantaneous power changed, GPUs summed."""
    read = samples[np.isfinite(samples["power_w"])]
    gpus = np.unique(read["gpu"])
    rows = min(int((read["gpu"] == gpu).sum()) for gpu in gpus)
    by_gpu = [read[read["gpu"] == gpu][:rows] for gpu in gpus]
    times = by_gpu[0]["time_s"].astype(np.float64)
    watts = np.sum([own["power_w"].astype(np.float64) for own in by_gpu], axis=0)
    changed = np.concatenate([[True], np.diff(watts) != 0])
    return np.column_stack([times[changed], watts[changed]])
