"""`replay estimate`: what quick estimates make of a trace's energy, beside the replay's."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from replay.errors import ensure_valid
from replay.output import output_options, say, tell
from replay.replay_options import (
    IN_FILE,
    announce_compilation,
    engine_options,
    fleet_option,
    policy_option,
    priced_options,
    read_requests,
    selection_options,
)

if TYPE_CHECKING:
    from sim.pools import Pools
    from sim.serving import Setup

BATCH_HELP = "Requests of a batch in the binned estimates.  [default: as many as the engine holds]"


@click.command()
@click.argument("trace", type=click.Path(path_type=Path))
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
    from replay.estimate_text import estimates_values, estimates_view
    from replay.estimates import binned, by_flops, by_utilisation, parts_of
    from sim.pools import Pools
    from sim.registry import make_policy
    from sim.settings import split_pair
    from sim.simulate import simulate_fleet

    setup = _setup(table, engine, fleet)
    pools = setup if isinstance(setup, Pools) else setup.pools
    chosen = make_policy(policy, dict(split_pair(pair, "--set") for pair in settings), seed)
    given = {name: value for name, value in selection.items() if value is not None}
    requests = read_requests(trace, given, chosen, seed)
    announce_compilation()
    run = simulate_fleet(requests, chosen, setup, seed=seed)
    parts = parts_of(requests, run, pools)
    estimates = [*binned(parts, batch), *by_flops(parts), *by_utilisation(run, pools)]
    for note in run.meta.notes:
        say(f"note: {note}")
    tell(lambda: estimates_values(run, estimates), lambda: estimates_view(run, policy, estimates))
    ensure_valid(run.meta.invalid_reasons)


def _setup(table: str | None, engine: tuple[str, ...], fleet: Path | None) -> "Setup | Pools":
    from sim.fleet_file import read_fleet
    from sim.options import FleetOptions
    from sim.serving import Setup
    from sim.table_files import DEFAULT, load_table

    if fleet is None:
        costs = load_table(table or DEFAULT)
        return Setup(engine_options(engine, costs), FleetOptions(), costs)
    for option, value in (("--table", table), ("--engine", engine)):
        if value:
            raise click.UsageError(f"{option} {IN_FILE}")
    return read_fleet(fleet)
