"""`replay calibrate`: measure a cost table on this machine's GPU."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from replay.output import output_options, say, tell

if TYPE_CHECKING:
    from calibrate.grid import GridName
    from calibrate.measure import Instruments, Plan
    from sim.table import CostTable

GRID_HELP = "Which loads.  [default: standard; with --adapt, card]"
ADAPT_HELP = "Fit no new table, but what tells this card from the mean card of that one."
STATES_HELP = "Measure the power states off, sleep-1 and sleep-2 of a table, not a grid."
TABLE_HELP = "With --states: whose states.  [default: the table in --out]"
OF_A_GRID = ("grid", "adapt", "hold_s", "seed", "measure_only")
HOLD = click.FloatRange(min=0.5)
"""A window is long against the counter's tick of 0.1 s."""


def parse_engine_options(pairs: tuple[str, ...]) -> dict[str, Any]:
    """Return `k=v` pairs as a mapping, values as JSON where they are JSON, else as text.

    Raises:
        ValueError: A pair has no `=`.
    """
    import json

    options: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise ValueError(f"--engine takes name=value, got {pair!r}")
        try:
            options[name.replace("-", "_")] = json.loads(value)
        except json.JSONDecodeError:
            options[name.replace("-", "_")] = value
    return options


@click.command()
@click.option("--model", help="Model name or folder; config.json alone runs on random weights.")
@click.option("--out", "out", type=click.Path(path_type=Path), help="Folder of the new table.")
@click.option("--engine", "engine", multiple=True, metavar="K=V", help="vLLM engine option; may be repeated.")
@click.option("--grid", type=click.Choice(["full", "standard", "card", "quick"]), help=GRID_HELP)
@click.option("--adapt", metavar="NAME|FILE", help=ADAPT_HELP)
@click.option("--states", is_flag=True, help=STATES_HELP)
@click.option("--table", metavar="NAME|FILE", help=TABLE_HELP)
@click.option("--repeats", type=click.IntRange(min=1), default=3, show_default=True)
@click.option("--hold-s", type=HOLD, default=1.5, show_default=True, help="Length of a point's window.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option(
    "--gpu", "gpus", multiple=True, type=int, help="NVML index to meter; default: the engine's GPUs."
)
@click.option("--stop-after", type=float, metavar="SECONDS", help="End cleanly then; run again to go on.")
@click.option("--measure-only", is_flag=True, help="Fit nothing; do that later with --fit-only.")
@click.option("--fit-only", is_flag=True, help="Measure nothing; fit the points that are in --out.")
@output_options
def cli(
    model: str | None,
    out: Path | None,
    engine: tuple[str, ...],
    grid: "GridName | None",
    adapt: str | None,
    states: bool,
    table: str | None,
    gpus: tuple[int, ...],
    measure_only: bool,
    fit_only: bool,
    stop_after: float | None,
    **plan: Any,
) -> None:
    """Measure what steps cost on this GPU and fit a cost table to it.

    Drives a real vLLM through a seeded, shuffled grid of loads under the GPU's energy counter. Every point is
    on disk as soon as it is done; a run that was stopped goes on where it was when the same command is given
    again. With --states it measures what the engine takes asleep, off, and on the ways there and back.
    """
    from importlib.util import find_spec

    if states:
        _refuse_grid_options()
        if not fit_only and model is None:
            raise ValueError("--model is missing: name the table's model, or give --fit-only")
        if out is None and table is None:
            raise ValueError(
                "--table is missing: name the table that gets the states, or its folder by --out"
            )
        from calibrate.states import StatesPlan
        from replay.calibrate_states import measure_into, write_states

        name, options = table or str(out), parse_engine_options(engine)
        if model is not None and not fit_only:
            measure_into(name, out, model, options, gpus, StatesPlan(plan["repeats"], stop_after), say)
        _tell(write_states(name, out, say), is_fitted=True)
        return
    if table is not None:
        raise click.UsageError("--table names the table of --states; give both, or --out alone")
    if out is None:
        raise click.UsageError("--out is missing: name the folder of the new table")
    if measure_only and fit_only:
        raise click.UsageError("--measure-only and --fit-only leave nothing to do")
    if find_spec("scipy") is None and not measure_only:
        raise ValueError("a fit needs SciPy, which is not installed; pip install 'replay[calibrate]'")
    if not fit_only:
        if model is None:
            raise ValueError("--model is missing: name what to measure, or give --fit-only")
        from calibrate.measure import Plan

        loads = Plan(grid=grid or ("card" if adapt else "standard"), stop_after_s=stop_after, **plan)
        measure_only |= not _is_measured(model, out, parse_engine_options(engine), gpus, loads)
    if not measure_only:
        fit_table(out, adapt)
    _tell(out, is_fitted=not measure_only)


def _refuse_grid_options() -> None:
    """Refuse options that --states has no use for.

    Raises:
        UsageError: One was given.
    """
    context = click.get_current_context()
    for name in OF_A_GRID:
        if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
            raise click.UsageError(
                f"--{name.replace('_', '-')} is for grids, not for --states; leave one out"
            )


def _is_measured(model: str, out: Path, options: dict[str, Any], gpus: tuple[int, ...], plan: "Plan") -> bool:
    """Measure what is left of the grid and return whether that was all."""
    from tempfile import TemporaryDirectory

    from calibrate.measure import Unfinished, measure

    if (out / "points.parquet").exists() and not (out / "points.jsonl").exists():
        raise ValueError(f"{out} holds a calibration that is finished; give --fit-only, or another --out")
    with TemporaryDirectory(prefix="replay-calibrate-") as scratch:
        tools = _instruments(model, options, gpus, Path(scratch))
        try:
            points = measure(out, plan, tools, say)
        except Unfinished as unfinished:
            say(f"{unfinished}; give the same command again to go on")
            return False
        except KeyboardInterrupt:
            say(f"interrupted; what was measured is in {out}: give the same command again to go on")
            raise
    say(f"all {len(points)} points are measured")
    return True


def fit_table(out: Path, adapted: str | None = None) -> None:
    """Fit a table to the points in `out` and write points.parquet, residuals.parquet and table.json there.

    The fit starts from the numbers of a table that is there, if it can be read.

    Args:
        out: The folder.
        adapted: The table to adapt to the points' card, None to fit all of the model.

    Raises:
        ValueError: There are no points in `out`, or none that do.
    """
    import json

    from calibrate.adapt import adapt
    from calibrate.fit import fit
    from calibrate.raw import read_lines, read_parquet, write_parquet
    from calibrate.table import make_table, write_residuals
    from sim.table_files import load_table, save_table

    points_file = out / "points.parquet"
    if (out / "points.jsonl").exists():
        points = read_lines(out / "points.jsonl")
        write_parquet(points_file, points, json.loads((out / "facts.json").read_text()))
    if not points_file.exists():
        raise ValueError(f"{out}: no points.jsonl and no points.parquet; measure first, without --fit-only")
    points, facts = read_parquet(points_file)
    base = load_table(adapted) if adapted else None
    if base is not None:
        facts = {"bare_idle_w": base.bare_idle_w, **facts}  # unknown where the engine was there before
    before = base or _readable_table_in(out)
    if base is not None:
        fitted = adapt(points, facts, base, say)
    else:
        fitted = fit(points, facts, say, before.meta.get("parameters") if before else None)
    table = make_table(out.resolve().name, fitted, facts, points_file, base.name if base else None)
    save_table(_with_states(table, before), out)
    write_residuals(fitted.residuals, out / "residuals.parquet")
    for kind, errors in table.meta["errors"].items():
        say(
            f"{kind:8} {errors['windows']:4} windows: seconds {100 * errors['seconds_rms']:.2f} % rms, "
            f"joules {100 * errors['joules_rms']:.2f} % rms"
        )
    say(f"the table is {out / 'table.json'}; use it with --table {out}")


def _table_in(out: Path) -> "CostTable | None":
    from sim.table_files import load_table

    return load_table(str(out)) if (out / "table.json").exists() else None


def _readable_table_in(out: Path) -> "CostTable | None":
    """Return the table in a folder, None if there is none or, which is said, one that cannot be read."""
    try:
        return _table_in(out)
    except ValueError as error:
        reason = str(error).rpartition(";")[0]
        say(f"{reason}; the table is made anew, without power states: measure those again with --states")
        return None


def _with_states(table: "CostTable", before: "CostTable | None") -> "CostTable":
    """Return a table with the power states of the one that is adapted, or of the one that is fitted again.

    Watts and joules are scaled from that one's idle power to the table's own, as in `calibrate.states_fit`.
    """
    from dataclasses import replace

    if before is None or not before.states:
        return table
    scale = table.coefficients.idle_w / before.coefficients.idle_w
    states = {name: state.scaled(scale) for name, state in before.states.items()}
    notes = {"states_notes": before.meta.get("states_notes")}
    return replace(table, states=states, meta={**table.meta, **notes})


def _tell(folder: Path, *, is_fitted: bool) -> None:
    """Tell of the table that is, or will be, in a folder."""
    from dataclasses import asdict

    table = _table_in(folder) if is_fitted else None
    states = {} if table is None else table.states
    values = {
        "table": None if table is None else table.name,
        "errors": None if table is None else table.meta.get("errors"),
        "states": {name: asdict(state) for name, state in states.items()},
    }
    tell(lambda: values, list, folder)


def _instruments(model: str, options: dict[str, Any], gpus: tuple[int, ...], scratch: Path) -> "Instruments":
    """Return the engine and the meter, neither started, the meter's samples and the step log in `scratch`.

    Raises:
        ValueError: There is no vLLM, no such model or no GPU that can be metered, or somebody computes on it.
    """
    from backends.meter import Meter
    from backends.step_log import read_steps
    from backends.vllm_engine import VllmEngine
    from calibrate.measure import Instruments
    from replay.calibrate_gpus import gpu_facts, watched_gpus

    if options.get("async_scheduling") is False:
        raise ValueError(
            "async_scheduling is off, but launch times are read from steps that overlap; leave it on"
        )
    step_log = scratch / "steps.bin"
    engine = VllmEngine(model, options, step_log)
    used, watch = watched_gpus(options, gpus)
    return Instruments(
        engine=engine,
        meter=Meter(scratch / "meter.bin", used),
        steps_since=lambda since_s: read_steps(step_log, since_s),
        watch=watch,
        gpu=gpu_facts(watch),
    )
