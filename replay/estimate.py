"""`replay estimate`: what quick estimates make of a trace's energy, beside the replay's."""

from pathlib import Path
from typing import Any

import click

from replay.errors import ensure_valid
from replay.output import output_options, say, tell
from replay.replay_options import (
    announce_compilation,
    fleet_option,
    policy_option,
    priced_options,
    selection_options,
)
from replay.trace_path import TRACE

BATCH_HELP = "Requests of a batch in the binned estimates.  [default: as many as the engine holds]"


@click.command()
@click.argument("trace", type=TRACE)
@policy_option
@priced_options
@fleet_option
@click.option("--batch", type=click.IntRange(min=1), metavar="B", help=BATCH_HELP)
@selection_options
@click.option("--seed", type=int, default=0, show_default=True, metavar="N", help="Seed of what is drawn.")
@output_options
def cli(
    trace: Path,
    policy: str,
    settings: tuple[str, ...],
    table: str | None,
    engine: tuple[str, ...],
    fleet: Path | None,
    batch: int | None,
    seed: int,
    **selection: Any,
) -> None:
    """Estimate the energy of TRACE in the usual quick ways, and simulate it to tell how far these are off.

    docs/estimate.md defines the estimates: by bins of lengths, by FLOPs and by utilisation. No record is
    kept.
    """
    from dataclasses import replace

    from replay.estimate_text import estimates_values, estimates_view
    from replay.estimates import binned, by_flops, by_utilisation, parts_of
    from replay.sweep_case import common_case
    from sim.pools import Pools
    from sim.settings import split_pair
    from sim.simulate import simulate_fleet

    base = common_case(trace, table=table, engine=engine, fleet=fleet, seed=seed, **selection)
    case = replace(base, policy=policy, settings=dict(split_pair(pair, "--set") for pair in settings))
    setup, chosen, requests = case.setup(), case.make_policy(), case.read_trace()
    pools = setup if isinstance(setup, Pools) else setup.pools
    announce_compilation()
    run = simulate_fleet(requests, chosen, setup, seed=seed)
    parts = parts_of(requests, run, pools)
    estimates = [*binned(parts, batch), *by_flops(parts), *by_utilisation(run, pools)]
    for note in run.meta.notes:
        say(f"note: {note}")
    tell(lambda: estimates_values(run, estimates), lambda: estimates_view(run, policy, estimates))
    ensure_valid(run.meta.invalid_reasons)
