"""The comparing half of `replay validate`: simulate each case under the options it ran with."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from replay.cases import Case, read_case
from replay.compare import read_measured, split_measured
from replay.output import warn

if TYPE_CHECKING:
    from replay.step_errors import ReplayedLog
    from sim.compare import Comparison, LoggedEnergy
    from sim.options import EngineOptions, FleetOptions
    from sim.pools import Pools
    from sim.serving import Setup
    from sim.step_cost import Coefficients
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
        folders: Their records.
    """

    case: Case
    folder: Path
    runs: "tuple[Run, ...]"
    folders: tuple[Path, ...]


def compare_cases(out: Path, tables: "Sequence[CostTable]") -> "list[tuple[str, Comparison]]":
    """Simulate the measured cases in `out` with `tables`, compare, write what comes of it and return it.

    Each case's folder gets `simulated`, `comparison.json`, `comparison.md` and, where there is matplotlib,
    `comparison.png`; `out` gets `overview.md`, `validation.json` and `validation.png`. A case without a
    valid measured run is said and left out.

    Args:
        out: Folder of `replay validate`.
        tables: One for all replicas, or one for each.

    Raises:
        OSError: A file cannot be read or written.
        ValueError: There is nothing to compare, or a case cannot be simulated.
    """
    from replay.comparison_text import overview_markdown
    from replay.validation import write_validation
    from sim.compare_plot import plot_validation

    compared: list[tuple[Case, Comparison]] = []
    for measured in measured_cases(out, tables[0].coefficients):
        valid = [
            pair for pair in zip(measured.runs, measured.folders, strict=True) if pair[0].meta.energy_valid
        ]
        for run in measured.runs:
            if not run.meta.energy_valid:
                warn(f"{measured.case.name}: left out: {'; '.join(run.meta.invalid_reasons)}")
        if valid:
            runs, folders = zip(*valid, strict=True)
            compared.append(
                (measured.case, _compare_case(replace(measured, runs=runs, folders=folders), tables))
            )
    if not compared:
        raise ValueError(
            f"{out}: no case in it has a valid measured run; measure first, without --compare-only"
        )
    named = [(case.name, comparison) for case, comparison in compared]
    (out / "overview.md").write_text(overview_markdown(named))
    write_validation(compared, out)
    if find_spec("matplotlib") is not None:
        names = " + ".join(table.name for table in tables)
        plot_validation(named, names, out / "validation.png", overwrite=True)
    return named


def _compare_case(measured: MeasuredCase, tables: "Sequence[CostTable]") -> "Comparison":
    from replay.comparison_text import comparison_json, comparison_markdown
    from replay.step_errors import replayed_logs, step_errors
    from sim.compare import compare
    from sim.compare_plot import plot_comparison

    simulated = simulate_case(measured, tables)
    logs = replayed_logs(measured.folders[0], tables)
    comparison = replace(
        compare(simulated, measured.runs, force=True),
        steps=step_errors(logs),
        logged=_logged_energy(measured.runs[0], logs),
    )
    (measured.folder / "comparison.json").write_text(comparison_json(comparison) + "\n")
    (measured.folder / "comparison.md").write_text(comparison_markdown(comparison))
    if find_spec("matplotlib") is not None:
        plot_comparison(simulated, measured.runs, measured.folder / "comparison.png", overwrite=True)
    return comparison


def _logged_energy(run: "Run", logs: "Sequence[ReplayedLog]") -> "LoggedEnergy | None":
    """Return the energy of a measured run, by the tables of its logged steps and as it was."""
    from replay.step_errors import logged_energy_j
    from sim.compare import LoggedEnergy

    by_table_j = logged_energy_j(logs, run.meta.makespan_s, fleet_in_force(run).replicas)
    if by_table_j is None or run.total_energy_j is None:
        return None
    return LoggedEnergy(by_table_j, run.total_energy_j)


def measured_cases(out: Path, costs: "Coefficients") -> Iterator[MeasuredCase]:
    """Yield the cases in `out` that have a measured run, by name; a run under way is not there yet.

    Args:
        out: Folder of `replay validate`.
        costs: Splits the measured energy.

    Raises:
        OSError: A record cannot be read.
        ValueError: A record is damaged.
    """
    for path in sorted(out.glob("*/case.json")):
        records = sorted(path.parent.glob("measured-*"), key=lambda record: int(record.name.split("-")[1]))
        if records:
            runs = tuple(_read(record, costs) for record in records)
            yield MeasuredCase(read_case(path), path.parent, runs, tuple(records))


def _read(record: Path, costs: "Coefficients") -> "Run":
    """Return a measured run, its energy split by `costs`; a fleet's was split when measured."""
    run = read_measured(record, None)
    return run if fleet_in_force(run).replicas > 1 else split_measured(run, record, costs)


def simulate_case(measured: MeasuredCase, tables: "Sequence[CostTable]") -> "Run":
    """Simulate the requests of a case under the options of the engine that served them, and keep the record.

    Args:
        measured: The case.
        tables: One for all replicas, or one for each.

    Raises:
        ValueError: The requests cannot be simulated, or another number of replicas served them.
    """
    from sim.simulate import simulate_fleet
    from traces.reading import read_trace
    from traces.record_files import write_run

    meta = measured.runs[0].meta
    trace = measured.case.predict(read_trace(measured.folder / "trace.parquet"), meta.seed)
    policy = measured.case.make_policy(meta.seed)
    run = simulate_fleet(trace, policy, _setup(measured, tables), seed=meta.seed)
    run = replace(run, meta=replace(run.meta, policy=meta.policy, trace_options=meta.trace_options))
    write_run(run, measured.folder / SIMULATED, overwrite=True)
    return run


def _setup(measured: MeasuredCase, tables: "Sequence[CostTable]") -> "Setup | Pools":
    """Return the engines that served a case, each with its own table if there are several."""
    from sim.pools import Pool, Pools
    from sim.serving import Setup

    options, fleet = options_in_force(measured.runs[0]), fleet_in_force(measured.runs[0])
    if len(tables) == 1:
        return Setup(options, fleet, tables[0])
    if len(tables) != fleet.replicas:
        ran = "1 replica" if fleet.replicas == 1 else f"{fleet.replicas} replicas"
        raise ValueError(
            f"case {measured.case.name} ran on {ran}, but {len(tables)} cards were measured; "
            f"compare it without --adapt"
        )
    pools = (Pool(f"replica-{number}", 1, options, table) for number, table in enumerate(tables))
    return Pools(tuple(pools), fleet.router, fleet.scaling)


def options_in_force(run: "Run") -> "EngineOptions":
    """Return the options that the engine of a measured run had, as far as the simulated engine has them."""
    from sim.options import EngineOptions

    return EngineOptions(**_known(run, EngineOptions))


def fleet_in_force(run: "Run") -> "FleetOptions":
    """Return how many engines served a measured run, and how its requests were shared among them."""
    from sim.options import FleetOptions

    return FleetOptions(**_known(run, FleetOptions))


def _known(run: "Run", options: type) -> dict[str, Any]:
    names = {field.name for field in fields(options)}
    return {name: value for name, value in run.meta.engine_options.items() if name in names}
