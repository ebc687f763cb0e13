"""The measuring half of `replay validate`: cases back to back on one engine, each on disk when it is done."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from replay.cases import Case, read_case, write_case
from replay.output import say

if TYPE_CHECKING:
    from backends.rig import Rig
    from sim.policy import Policy
    from sim.step_cost import Coefficients
    from sim.table import CostTable
    from traces.record import Run
    from traces.trace import Trace

AROUND_S = 6.0
"""What a replay takes besides the span of its trace: idle before, waiting after, its last requests."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One replay of a case.

    Attributes:
        case: The case.
        number: Which of its repeats, from 1.
        trace: Its requests.
        folder: Folder of its record.
    """

    case: Case
    number: int
    trace: "Trace"
    folder: Path


@dataclass(frozen=True, slots=True)
class Terms:
    """How turns are measured.

    Attributes:
        seed: Seed of prompts and policies.
        costs: Shares steps' energy; None for the rule without a table.
        end_by_s: Begin no turn that would go on beyond this monotonic time, None for no such time.
        table: What a policy that asks for costs is told.
        cards: A folder for each replica, for what tells its card from others, measured before the turns;
            empty to measure none.
    """

    seed: int
    costs: "Coefficients | None"
    end_by_s: float | None
    table: "CostTable"
    cards: tuple[Path, ...] = ()


def turns_left(cases: Sequence[Case], out: Path, seed: int) -> list[Turn]:
    """Return the turns that have no valid record yet, the first of each case first; write down each case.

    Raises:
        ValueError: A trace cannot be read, a policy is unknown, or a folder holds the record of another case.
    """
    from sim.arrivals import ensure_predicted
    from traces.parquet import write_trace

    turns = []
    for case in cases:
        trace = case.read_trace()
        predicted = case.predict(trace, seed)
        ensure_predicted(predicted, case.make_policy(seed))
        folder = out / case.name
        folder.mkdir(parents=True, exist_ok=True)
        _ensure_same(case, folder)
        write_trace(trace, folder / "trace.parquet", overwrite=True)
        write_case(case, folder / "case.json")
        for number in range(1, case.repeats + 1):
            record = folder / f"measured-{number}"
            if not _is_done(record):
                turns.append(Turn(case, number, predicted, record))
    return sorted(turns, key=lambda turn: turn.number)


def measure_turns(turns: Sequence[Turn], rig: "AbstractAsyncContextManager[Rig]", terms: Terms) -> int:
    """Measure turns on one engine, in order; return how many were left when the time was up.

    Raises:
        KeyboardInterrupt: Interrupted; the turn under way is on disk as far as it got, marked invalid.
    """
    left, interrupted = asyncio.run(_measure_turns(turns, rig, terms))
    if interrupted:
        raise KeyboardInterrupt
    return left


async def _measure_turns(
    turns: Sequence[Turn], rig: "AbstractAsyncContextManager[Rig]", terms: Terms
) -> tuple[int, bool]:
    """Measure the cards, if asked for, then the turns, then whether the cards' pace is still the same."""
    say("starting the engine")
    async with rig as running:
        if not terms.cards:
            return await _replay_turns(turns, running, terms)
        from replay.validate_card import check_pace, measure_card

        replicas = list(zip(running.parts or (running,), terms.cards, strict=True))
        before = [await measure_card(replica, card, terms.seed) for replica, card in replicas]
        left, is_interrupted = await _replay_turns(turns, running, terms)
        if left < len(turns) and not is_interrupted:
            for (replica, card), point in zip(replicas, before, strict=True):
                await check_pace(replica, card, terms.seed, point)
        return left, is_interrupted


async def _replay_turns(turns: Sequence[Turn], rig: "Rig", terms: Terms) -> tuple[int, bool]:
    """Measure turns until the time is up; return how many are left, and whether an interrupt ended them."""
    from backends.measured_record import Replay
    from backends.measured_run import measure_replay
    from traces.record_files import write_run

    for place, turn in enumerate(turns):
        policy = turn.case.make_policy(terms.seed)
        if terms.end_by_s is not None and time.monotonic() + _span_s(turn.trace, policy) > terms.end_by_s:
            return len(turns) - place, False
        what = Replay(
            name=f"{turn.case.name}-{turn.number}-{time.time_ns()}",
            trace=turn.trace,
            policy=policy,
            trace_options=turn.case.selection,
            seed=terms.seed,
            costs=terms.costs,
            policy_name=turn.case.policy,
            table=terms.table,
        )
        measured = await measure_replay(what, rig)
        write_run(measured.run, turn.folder, overwrite=True, attachments=measured.attachments)
        say(_describe(turn, measured.run))
        if measured.ending.is_interrupted:
            return len(turns) - place, True
        if measured.ending.is_engine_dead:
            raise ValueError(f"{turn.folder}: the engine died; give the same command again to go on")
    return 0, False


def _describe(turn: Turn, run: "Run") -> str:
    """Return one line on a turn that is done."""
    from replay.printing import quantity
    from sim.summary import summarize

    summary = summarize(run)
    numbers = (
        f"{summary.served} of {summary.requests} served in {summary.makespan_s:.1f} s",
        f"{quantity(summary.total_energy_j, 'J')} at {quantity(summary.mean_power_w, 'W')}",
        f"TTFT p50 {quantity(summary.ttft_p50_s, 's')}, TPOT p50 {quantity(summary.tpot_p50_s, 's')}",
    )
    faults = [f"NOT VALID: {reason}" for reason in summary.invalid_reasons]
    return f"{turn.case.name} #{turn.number}: " + "; ".join([*numbers, *faults])


def _span_s(trace: "Trace", policy: "Policy") -> float:
    """Return how long a replay takes at least."""
    from sim.arrivals import as_offered

    return float(as_offered(trace, policy).arrival_s[-1]) + AROUND_S


def _is_done(record: Path) -> bool:
    from traces.record_files import read_run

    return record.exists() and read_run(record).meta.energy_valid


def _ensure_same(case: Case, folder: Path) -> None:
    """Refuse a folder with the records of a case that only shares the name."""
    path = folder / "case.json"
    if path.exists() and replace(read_case(path), repeats=case.repeats, trace=case.trace) != case:
        raise ValueError(f"{folder}: holds another case of that name; rename it, or use another --out")
