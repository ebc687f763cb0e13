"""The comparing half of `replay validate`: simulate each case under the options it ran with."""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from replay.cases import Case, read_case

if TYPE_CHECKING:
    from sim.options import EngineOptions
    from sim.table import CostTable
    from traces.record import Run

SIMULATED = "simulated"


@dataclass(frozen=True, slots=True)
class MeasuredCase:
    """A case and its measured runs.

    Attributes:
        case: The case.
        folder: Where its records are.
        runs: Its measured runs, valid or not, in order.
    """

    case: Case
    folder: Path
    runs: "tuple[Run, ...]"


def measured_cases(out: Path) -> Iterator[MeasuredCase]:
    """Yield the cases in `out` that have a measured run, by name; a run under way is not there yet.

    Raises:
        OSError: A record cannot be read.
        ValueError: A record is damaged.
    """
    from traces.record_files import read_run

    for path in sorted(out.glob("*/case.json")):
        records = sorted(path.parent.glob("measured-*"), key=lambda record: int(record.name.split("-")[1]))
        if records:
            yield MeasuredCase(read_case(path), path.parent, tuple(map(read_run, records)))


def simulate_case(measured: MeasuredCase, table: "CostTable") -> "Run":
    """Simulate the requests of a case under the options of the engine that served them, and keep the record.

    Raises:
        ValueError: The requests cannot be simulated.
    """
    from sim.simulate import simulate
    from traces.reading import read_trace
    from traces.record_files import write_run

    meta = measured.runs[0].meta
    trace = read_trace(measured.folder / "trace.parquet")
    policy = measured.case.make_policy(meta.seed)
    run = simulate(trace, policy, options_in_force(measured.runs[0]), table, seed=meta.seed)
    run = replace(run, meta=replace(run.meta, policy=meta.policy, trace_options=meta.trace_options))
    write_run(run, measured.folder / SIMULATED, overwrite=True)
    return run


def options_in_force(run: "Run") -> "EngineOptions":
    """Return the options that the engine of a measured run had, as far as the simulated engine has them."""
    from sim.options import EngineOptions

    known = {field.name for field in fields(EngineOptions)}
    return EngineOptions(**{name: value for name, value in run.meta.engine_options.items() if name in known})
