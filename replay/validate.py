"""`replay validate`: the same replay simulated and measured, and the difference."""

import re
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from replay.cases import Case, read_plan
from replay.completion import complete_policy, complete_router, complete_table
from replay.live_engine import LiveEngine, StartedVllm, TwinVllm
from replay.output import output_options, say, tell
from replay.replay_options import selection_options
from replay.trace_path import TRACE

if TYPE_CHECKING:
    from replay.screen import View
    from replay.validate_measure import Terms
    from sim.compare import Comparison
    from sim.options import FleetOptions
    from sim.table import CostTable

PLAN_HELP = "Several cases on one engine: a JSON list, see docs/live.md."
MODEL_HELP = "Model name or folder; config.json alone runs on random weights."
TABLE_HELP = "Cost table to validate, by name or as a file; `replay tables` lists those that ship."
OUT_HELP = "Folder of the records; what is there already is not measured again."
DEVICE_HELP = "Real GPUs, or a twin, whose steps take the time and power of --table."
REPLICAS_HELP = "Equal engines, each on GPUs of its own."
ROUTER_HELP = "Which of several replicas a request goes to."
ADAPT_HELP = "Adapt --table to each replica's card and its host first: 13 loads each, about a minute."
ADAPTED = "adapted"
"""Folder in --out of what --adapt measures, and name of its table; several replicas have one each."""
STOP_HELP = "Begin no replay that would end later; run again to go on."


@click.command(short_help="Measure a replay, simulate it, and compare.")
@click.argument("trace", required=False, type=TRACE)
@click.option("--plan", type=click.Path(path_type=Path), metavar="FILE", help=PLAN_HELP)
@click.option(
    "--policy",
    default="immediate",
    show_default=True,
    metavar="P",
    shell_complete=complete_policy,
    help="Policy, without a plan.",
)
@click.option("--set", "settings", multiple=True, metavar="K=V", help="Option of the policy; repeatable.")
@selection_options
@click.option("--repeats", type=click.IntRange(min=1), default=1, show_default=True, help="Without a plan.")
@click.option("--model", metavar="DIR|NAME", help=MODEL_HELP)
@click.option("--engine", multiple=True, metavar="K=V", help="vLLM engine option; repeatable.")
@click.option("--gpu", "gpus", multiple=True, type=int, metavar="N", help="NVML index to meter; repeatable.")
@click.option("--replicas", type=click.IntRange(min=1), default=1, show_default=True, help=REPLICAS_HELP)
@click.option(
    "--router",
    default="round-robin",
    show_default=True,
    metavar="R",
    shell_complete=complete_router,
    help=ROUTER_HELP,
)
@click.option(
    "--device", type=click.Choice(["gpu", "twin"]), default="gpu", show_default=True, help=DEVICE_HELP
)
@click.option("--table", metavar="NAME|FILE", shell_complete=complete_table, help=TABLE_HELP)
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), metavar="DIR", help="Folder of the records."
)
@click.option("--seed", type=int, default=0, show_default=True, metavar="N", help="Seed of what is drawn.")
@click.option("--adapt", is_flag=True, help=ADAPT_HELP)
@click.option("--stop-after", type=float, metavar="SECONDS", help=STOP_HELP)
@click.option("--measure-only", is_flag=True, help="Simulate nothing; do that later with --compare-only.")
@click.option("--compare-only", is_flag=True, help="Measure nothing; compare what is in --out.")
@output_options
def cli(
    trace: Path | None,
    plan: Path | None,
    model: str | None,
    engine: tuple[str, ...],
    gpus: tuple[int, ...],
    replicas: int,
    router: str,
    device: str,
    table: str | None,
    out: Path,
    seed: int,
    adapt: bool,
    stop_after: float | None,
    measure_only: bool,
    compare_only: bool,
    **case: Any,
) -> None:
    """Replay TRACE, or a plan's cases, on vLLM under the GPU's energy counter; simulate the same; compare.

    Every record is on disk as soon as its replay is done; cases whose records are in --out and valid are not
    measured again. The records of a case are in --out/NAME.
    """
    began_s = time.monotonic()
    if measure_only and compare_only:
        raise click.UsageError("--measure-only and --compare-only leave nothing to do")
    if adapt and device == "twin":
        raise click.UsageError("--adapt measures a card; a twin has none: leave it out")
    left = 0
    if not compare_only:
        from replay.validate_measure import Terms
        from sim.options import FleetOptions

        costs = _load(table)
        # The energy of several replicas can be divided now, not later.
        is_divided_later = measure_only and table is None and replicas == 1
        if device == "twin":
            live = _twin(model, engine, gpus, costs, FleetOptions(replicas, router))
        else:
            live = _vllm(model, engine, gpus, FleetOptions(replicas, router))
        cases = _cases(trace, plan, **case)
        terms = Terms(
            seed=seed,
            costs=None if is_divided_later else costs.coefficients,
            end_by_s=None if stop_after is None else began_s + stop_after,
            table=costs,
            cards=_cards(out, replicas) if adapt else (),
        )
        left = _measure(cases, out, live, terms)
        if left:
            say(f"{left} replays are left; give the same command again to go on")
    compared = []
    if not measure_only:
        from replay.validate_compare import compare_cases

        compared = compare_cases(out, _adapted(table, out) if adapt else [_load(table)])
    tell(
        lambda: {"left": left, "cases": {name: asdict(comparison) for name, comparison in compared}},
        lambda: [part for one in compared for part in _case_view(*one)],
        out,
    )


def _case_view(name: str, comparison: "Comparison") -> "View":
    from replay.comparison_text import comparison_view
    from replay.screen import heading

    return [heading(name), *comparison_view(comparison), ""]


def _vllm(
    model: str | None, options: tuple[str, ...], gpus: tuple[int, ...], fleet: "FleetOptions"
) -> LiveEngine:
    if model is None:
        raise click.UsageError("--model names what to measure: a model's name or folder")
    if gpus and fleet.replicas > 1:
        raise click.UsageError("--gpu would meter other GPUs than the replicas'; leave it out")
    return StartedVllm(model, options, gpus, fleet.replicas, fleet.router)


def _twin(
    model: str | None,
    options: tuple[str, ...],
    gpus: tuple[int, ...],
    table: "CostTable",
    fleet: "FleetOptions",
) -> LiveEngine:
    if gpus:
        raise click.UsageError("--gpu names a GPU to meter; a twin has none: leave it out")
    return TwinVllm(table, model, options, fleet.replicas, fleet.router)


def _cases(trace: Path | None, plan: Path | None, **given: Any) -> list[Case]:
    if (trace is None) == (plan is None):
        raise click.UsageError("give a TRACE or a --plan, one of them")
    if plan is not None:
        return read_plan(plan)
    from sim.settings import split_pair

    given["settings"] = dict(split_pair(pair, "--set") for pair in given["settings"])
    name = re.sub(r"[^\w.-]+", "-", f"{Path(str(trace)).stem}-{Path(given['policy']).stem}")
    known = {option: value for option, value in given.items() if value is not None}
    return [Case(name=name, trace=str(trace), **known)]


def _load(table: str | None) -> "CostTable":
    from sim.table_files import DEFAULT, load_table

    return load_table(table or DEFAULT)


def _cards(out: Path, replicas: int) -> tuple[Path, ...]:
    """Return the folder of the card of each replica."""
    if replicas == 1:
        return (out / ADAPTED,)
    return tuple(out / f"{ADAPTED}-{number}" for number in range(replicas))


def _adapted(table: str | None, out: Path) -> "list[CostTable]":
    """Return the table, adapted to what was measured of each card."""
    from replay.calibrate import fit_table
    from sim.table_files import DEFAULT

    cards = _cards(out, len(list(out.glob(f"{ADAPTED}-*"))) or 1)
    for card in cards:
        fit_table(card, table or DEFAULT)
    return [_load(str(card)) for card in cards]


def _measure(cases: list[Case], out: Path, engine: LiveEngine, terms: "Terms") -> int:
    """Measure what is left of `cases`, and return how many replays are left still."""
    from replay.validate_measure import measure_turns, turns_left

    turns = turns_left(cases, out, terms.seed)
    if not turns:
        say("every replay is on disk already; nothing to measure")
        return 0
    return measure_turns(turns, engine.rig(terms.seed), terms)
