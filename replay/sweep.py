"""`replay sweep`: all combinations of policies and options, and which to choose."""

import os
from pathlib import Path
from typing import Any

import click

from replay.completion import complete_policy
from replay.errors import Flawed
from replay.output import output_options, say, tell
from replay.replay_options import POLICY_HELP, announce_compilation
from replay.sweep_case import LATENCY_HELP, case_options, slo_options
from replay.trace_path import TRACE

GRID_HELP = "Input to vary, NAME=V1,V2,... or NAME=A..B; repeatable: all combinations are simulated."
FLEETS_HELP = "Fleet as a file of pools (docs/fleet.md); repeatable: each is combined with the others."
ON_HELP = "Where replays run: on this machine's cores, or on a Ray cluster."
JOBS_HELP = "Replays at a time.  [default: as many as processors]"
OUT_HELP = "Folder of the results; those in it are not simulated again."


@click.command(short_help="Replay all combinations of policies and options; show the trade-off.")
@click.argument("traces", nargs=-1, required=True, metavar="TRACE...", type=TRACE)
@click.option(
    "--policy",
    "policies",
    multiple=True,
    default=["immediate"],
    metavar="P",
    shell_complete=complete_policy,
    help=POLICY_HELP,
)
@click.option("--grid", multiple=True, metavar="NAME=VALUES", help=GRID_HELP)
@slo_options
@click.option("--latency", default="e2e_p99", show_default=True, metavar="LATENCY", help=LATENCY_HELP)
@case_options
@click.option(
    "--fleet", "fleets", multiple=True, type=click.Path(path_type=Path), metavar="FILE", help=FLEETS_HELP
)
@click.option("--on", type=click.Choice(["cores", "ray"]), default="cores", show_default=True, help=ON_HELP)
@click.option("--jobs", type=click.IntRange(min=1), metavar="N", help=JOBS_HELP)
@click.option("--out", required=True, type=click.Path(path_type=Path), metavar="DIR", help=OUT_HELP)
@output_options
def cli(
    traces: tuple[Path, ...],
    policies: tuple[str, ...],
    grid: tuple[str, ...],
    slos: tuple[str, ...],
    attainment: float | None,
    latency: str,
    fleets: tuple[Path, ...],
    on: str,
    jobs: int | None,
    out: Path,
    **common: Any,
) -> None:
    """Simulate every TRACE under every policy and every combination of the values given by --grid.

    Each result is on disk as soon as it is there: the same command goes on where it was interrupted. --out
    gets sweep.parquet, sweep.md and sweep.png. docs/sweep.md tells more.
    """
    from dataclasses import replace

    from replay.sweep_case import common_case
    from replay.sweep_jobs import on_ray, over_cores
    from replay.sweep_run import run_cases
    from replay.sweep_text import Sweep, sweep_values, sweep_view, write_sweep
    from sim.sweep_combinations import combinations
    from sim.sweep_front import known_latency
    from sim.sweep_grid import parse_axis
    from sim.sweep_ranking import rank
    from sim.sweep_slos import parse_sweep_slos

    against, limits = known_latency(latency), parse_sweep_slos(slos, attainment)
    axes = [parse_axis(text) for text in grid]
    base = common_case(traces[0], fleet=next(iter(fleets), None), **common)
    base = replace(base, limits=limits.of_requests)
    cases = list(combinations(base, traces, policies, axes, fleets))
    announce_compilation()
    run = on_ray if on == "ray" else over_cores(jobs or len(os.sched_getaffinity(0)))
    results, failures = run_cases(cases, out, run)
    sweep = Sweep(rank(results, against, limits), against, limits, failures)
    write_sweep(sweep, out)
    tell(lambda: sweep_values(sweep), lambda: sweep_view(sweep), out)
    say(f"The results are in {out}")
    if failures:
        raise Flawed(f"{len(failures)} combinations could not be simulated, the first: {failures[0].reason}")
