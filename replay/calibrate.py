"""`replay calibrate`: measure a cost table on this machine's GPU."""

from pathlib import Path
from typing import Any

import click


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
@click.option("--out", "out", required=True, type=click.Path(path_type=Path), help="Folder of the new table.")
@click.option("--engine", "engine", multiple=True, metavar="K=V", help="vLLM engine option; may be repeated.")
@click.option("--grid", type=click.Choice(["full", "quick"]), default="full", show_default=True)
@click.option("--repeats", type=click.IntRange(min=1), default=3, show_default=True)
@click.option("--hold-s", type=float, default=1.5, show_default=True, help="Length of a point's window.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--gpu", "gpus", multiple=True, type=int, help="NVML index of a GPU of the engine; default 0.")
@click.option("--stop-after", type=float, metavar="SECONDS", help="End cleanly then; run again to go on.")
@click.option("--fit-only", is_flag=True, help="Measure nothing; fit the points that are in --out.")
def cli(
    model: str | None,
    out: Path,
    engine: tuple[str, ...],
    grid: Any,
    repeats: int,
    hold_s: float,
    seed: int,
    gpus: tuple[int, ...],
    stop_after: float | None,
    fit_only: bool,
) -> None:
    """Measure what steps cost on this GPU and fit a cost table to it.

    Drives a real vLLM through a seeded, shuffled grid of loads under the GPU's energy counter. Every point is
    on disk as soon as it is done; a run that was stopped goes on where it was when the same command is given
    again.
    """
    if fit_only:
        fit_table(out)
        return
    if model is None:
        raise ValueError("--model is missing: name what to measure, or give --fit-only")

    from calibrate.measure import Plan, Unfinished, measure

    tools = _instruments(model, out, parse_engine_options(engine), gpus or (0,))
    plan = Plan(grid=grid, repeats=repeats, seed=seed, hold_s=hold_s, stop_after_s=stop_after)
    try:
        points = measure(out, plan, tools, _say)
    except Unfinished as unfinished:
        _say(f"{unfinished}; give the same command again to go on")
        return
    _say(f"all {len(points)} points are measured; fitting")
    fit_table(out)


def fit_table(out: Path) -> None:
    """Fit a table to the points in `out` and write points.parquet, residuals.parquet and table.json there.

    Raises:
        ValueError: There are no points in `out`.
    """
    import json

    from calibrate.fit import fit
    from calibrate.raw import read_lines, read_parquet, write_parquet
    from calibrate.table import make_table, write_residuals
    from sim.table_files import save_table

    points_file = out / "points.parquet"
    if (out / "points.jsonl").exists():
        points = read_lines(out / "points.jsonl")
        write_parquet(points_file, points, json.loads((out / "facts.json").read_text()))
    if not points_file.exists():
        raise ValueError(f"{out}: no points.jsonl and no points.parquet; measure first, without --fit-only")
    points, facts = read_parquet(points_file)
    fitted = fit(points, facts, _say)
    table = make_table(out.resolve().name, fitted, facts, points_file)
    save_table(table, out)
    write_residuals(fitted.residuals, out / "residuals.parquet")
    for kind, errors in table.meta["errors"].items():
        _say(
            f"{kind:8} {errors['windows']:4} windows: seconds {100 * errors['seconds_rms']:.2f} % rms, "
            f"joules {100 * errors['joules_rms']:.2f} % rms"
        )
    _say(f"the table is {out / 'table.json'}; use it with --table {out}")


def _say(text: str) -> None:
    click.echo(text, err=True)


def _instruments(model: str, out: Path, options: dict[str, Any], gpus: tuple[int, ...]) -> Any:
    import hashlib

    from backends.meter import Meter
    from backends.nvml import open_gpus
    from backends.step_log import read_steps
    from backends.vllm_engine import VllmEngine
    from calibrate.measure import Instruments

    out.mkdir(parents=True, exist_ok=True)
    step_log = out / "steps.bin"
    step_log.write_bytes(b"")
    with open_gpus(gpus) as opened:
        facts = [gpu.facts() for gpu in opened]
    if any(fact.mig for fact in facts):
        raise ValueError(
            "MIG is on: an instance reports its whole GPU's energy; measure on a GPU without MIG"
        )
    for fact in facts:
        if fact.process_ids:
            raise ValueError(
                f"process {fact.process_ids[0]} computes on the GPU; its energy would be counted too"
            )
    return Instruments(
        engine=VllmEngine(model, options, step_log),
        meter=Meter(out / "meter.bin", gpus),
        steps_since=lambda since_s: read_steps(step_log, since_s),
        gpu={
            "name": facts[0].name,
            "driver": facts[0].driver,
            "power_limit_w": facts[0].power_limit_w,
            "gpus": len(facts),
            "hashes": [hashlib.sha256(fact.uuid.encode()).hexdigest()[:16] for fact in facts],
        },
    )
