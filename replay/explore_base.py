"""What a page begins with: a run, the cells of a sweep, or a trace, and the replay that each comes to."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from replay.errors import one_line
from replay.explore_choice import kinds_of
from replay.explore_offer import Offer
from replay.explore_places import Places
from sim.options import EngineOptions, FleetOptions
from sim.report_runs import Reported, read_reported
from sim.settings import as_text
from sim.sweep import Case
from sim.sweep_key import sha256_of
from sim.sweep_ranking import Ranked
from sim.sweep_result import Result
from traces.record import Meta

MIXED = "a fleet of several pools is not simulated anew here; use replay run --fleet"
GIVEN = ("policy", "seed", "from_s", "to_s", "limit", "stretch", "length_prediction")


@dataclass(frozen=True, slots=True)
class Base:
    """What changes are compared with.

    Attributes:
        case: The replay, or why it cannot be simulated anew, in one line.
        name: Tells it from what it is compared with.
        sha256: Of the file of its trace, empty if it cannot be simulated anew.
        recorded: The run of a record; None for what has to be simulated first.
    """

    case: Case | str
    name: str
    sha256: str
    recorded: Reported | None

    def replay(self) -> Case:
        """Return the replay.

        Raises:
            ValueError: It cannot be simulated anew.
        """
        if isinstance(self.case, str):
            raise ValueError(self.case)
        return self.case

    def check(self) -> None:
        """Refuse a trace file that is gone, or not what it was.

        Raises:
            ValueError: It is.
        """
        path = self.replay().trace
        if not path.is_file():
            raise ValueError(f"{path}: the trace is gone; put it back, or give it by --trace FILE")
        if sha256_of(path) != self.sha256:
            raise ValueError(f"{path}: another trace by now, by its hash; give the old one by --trace FILE")


def base_of_trace(trace: Path, policy: str, table: str) -> Base:
    """Return a replay of a trace.

    Raises:
        OSError: The trace cannot be read.
    """
    return Base(Case(trace, policy=policy, table=table), policy, sha256_of(trace), None)


def base_of_run(folder: Path, places: Places, offered: Offer) -> Base:
    """Return the run in `folder`.

    Raises:
        OSError: The record cannot be read.
        ValueError: It is damaged.
    """
    (recorded,) = read_reported([folder])
    meta = recorded.run.meta
    return _attempt(lambda: _case_of_run(meta, places, offered), recorded.name, recorded)


def base_of_cell(cell: Ranked, places: Places, offered: Offer) -> Base:
    """Return a cell of a sweep."""
    return _attempt(lambda: _case_of_cell(cell.result, places, offered), cell.name, None)


def _attempt(make: Callable[[], Case], name: str, recorded: Reported | None) -> Base:
    try:
        case = make()
        return Base(case, name, sha256_of(case.trace), recorded)
    except (ValueError, OSError) as error:
        return Base(one_line(error), name, "", recorded)


def _case_of_run(meta: Meta, places: Places, offered: Offer) -> Case:
    if "pools" in meta.engine_options:
        raise ValueError(MIXED)
    if meta.table is None and meta.kind == "simulated":
        raise ValueError("the record names no cost table, so nothing is simulated")
    case = _case(
        places.find_trace(meta.trace_name, meta.trace_sha256),
        places.find_table(meta.table),
        {"policy": meta.policy, "seed": meta.seed, **meta.trace_options},
        meta.policy_options,
        meta.engine_options,
        offered,
    )
    requests = len(case.read_trace())
    if requests != meta.requests:
        raise ValueError(
            f"{case.trace}: {requests:,} of its requests are selected, the run had {meta.requests:,}"
        )
    return case


def _case_of_cell(result: Result, places: Places, offered: Offer) -> Case:
    inputs = result.inputs
    if inputs.get("fleet") is not None:
        raise ValueError(MIXED)
    engine, fleet, policy = (
        {name.removeprefix(what): value for name, value in inputs.items() if name.startswith(what)}
        for what in ("engine.", "fleet.", "policy.")
    )
    return _case(
        places.find_trace(inputs["trace"], inputs["trace_sha256"]),
        places.find_table(result.summary.table),
        inputs,
        policy,
        {**engine, **fleet},
        offered,
    )


def _case(
    trace: Path,
    table: str,
    given: Mapping[str, Any],
    policy: Mapping[str, Any],
    options: Mapping[str, Any],
    offered: Offer,
) -> Case:
    """Return a replay.

    Args:
        trace: Its file.
        table: Its cost table.
        given: Its policy's name, its seed and its selection, None where not given.
        policy: Options of the policy, and perhaps of others.
        options: Of the engine and of the fleet, and perhaps more.
        offered: What may be loaded.

    Raises:
        ValueError: The policy is not offered.
    """
    known = {name: given[name] for name in GIVEN if given.get(name) is not None}
    case = Case(trace, table=table, **known)
    offered.ensure(case)
    engine, fleet = (
        {one.name: as_text(options[one.name]) for one in fields(owner) if options.get(one.name) is not None}
        for owner in (EngineOptions, FleetOptions)
    )
    settings = {name: as_text(policy[name]) for name in kinds_of(case.policy) if name in policy}
    return replace(case, settings=settings, engine=engine, fleet=fleet)
