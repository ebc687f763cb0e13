"""`replay optimize`: search the numeric options of a policy for the least energy that keeps the SLOs."""

from pathlib import Path
from typing import Any

import click

from replay.output import output_options, say, tell
from replay.replay_options import announce_compilation, fleet_option, policy_option
from replay.sweep_case import LATENCY_HELP, case_options, slo_options
from replay.trace_path import TRACE

OVER_HELP = "Number to search, NAME=A..B: whole numbers, or 0.0..30.0 for any; repeatable."
TRIALS_HELP = "Replays to try, those of earlier calls included."
OUT_HELP = "Folder of the search; given again, it goes on."


@click.command(short_help="Search a policy's options for the least energy within SLOs.")
@click.argument("trace", type=TRACE)
@policy_option
@click.option(
    "--set", "settings", multiple=True, metavar="K=V", help="Option of the policy that is not searched."
)
@click.option("--over", multiple=True, required=True, metavar="NAME=A..B", help=OVER_HELP)
@slo_options
@click.option(
    "--trials", type=click.IntRange(min=1), default=50, show_default=True, metavar="N", help=TRIALS_HELP
)
@click.option("--latency", default="e2e_p99", show_default=True, metavar="LATENCY", help=LATENCY_HELP)
@case_options
@fleet_option
@click.option("--out", required=True, type=click.Path(path_type=Path), metavar="DIR", help=OUT_HELP)
@output_options
def cli(
    trace: Path,
    policy: str,
    settings: tuple[str, ...],
    over: tuple[str, ...],
    slos: tuple[str, ...],
    attainment: float | None,
    trials: int,
    latency: str,
    out: Path,
    **common: Any,
) -> None:
    """Search the ranges given by --over for the least energy per request that keeps every --slo.

    The trials go one after the other, each chosen from what those before it came to. Each is kept, as a sweep
    keeps its results. docs/sweep.md tells more.
    """
    from dataclasses import replace

    from replay.late_bar import LateBar
    from replay.optimum import optimum_of, optimum_values, optimum_view
    from replay.study import Problem, search
    from replay.sweep_case import common_case
    from replay.sweep_run import result_of
    from replay.sweep_text import write_sweep
    from sim.settings import split_pair
    from sim.sweep_front import known_latency
    from sim.sweep_grid import parse_span
    from sim.sweep_slos import parse_sweep_slos

    limits = parse_sweep_slos(slos, attainment)
    base = replace(
        common_case(trace, **common),
        policy=policy,
        settings=dict(split_pair(pair.replace("-", "_"), "--set") for pair in settings),
        limits=limits.of_requests,
    )
    problem = Problem(base, [parse_span(text) for text in over], limits)
    problem.check()
    against = known_latency(latency)
    announce_compilation()
    default = result_of(base, out)
    with LateBar(trials, "searching") as bar:
        results = []
        for result in search(problem, trials, out, lambda case: result_of(case, out)):
            results.append(result)
            bar.advance(1)
    optimum = optimum_of(default, results, against, problem.slos)
    write_sweep(optimum.sweep, out)
    tell(lambda: optimum_values(optimum), lambda: optimum_view(optimum), out)
    say(f"All trials are in {out}")
