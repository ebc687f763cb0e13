"""What a search does not vary: the options of `replay run` that its replays have in common."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from replay.completion import complete_router
from replay.footprint_options import footprint_options, take_rates
from replay.output import Command
from replay.replay_options import IN_FILE, engine_option, selection_options, table_option, with_options

if TYPE_CHECKING:
    from sim.sweep import Case

SLO_HELP = "Upper limit in seconds on a percentile, ttft_p99=2, or on each request's, ttft=2; repeatable."
ATTAINMENT_HELP = "Of the requests, so many should keep all limits of each request at once.  [default: 1]"
LATENCY_HELP = "Latency that the front weighs energy against."
SEED_HELP = "Seed of what is drawn."
FLEET_HELP = "As of `replay run`, where it is not varied."


def case_options(command: Command) -> Command:
    """Give a command these options; `common_case` takes what comes of them."""
    return with_options(
        command,
        table_option,
        engine_option,
        click.option("--replicas", metavar="N", help=FLEET_HELP),
        click.option("--router", metavar="R", shell_complete=complete_router, help=FLEET_HELP),
        selection_options,
        footprint_options,
        click.option("--seed", type=int, default=0, show_default=True, metavar="N", help=SEED_HELP),
    )


def slo_options(command: Command) -> Command:
    """Give a command the limits on latency; `sim.sweep_slos.parse_sweep_slos` takes what comes of them."""
    return with_options(
        command,
        click.option("--slo", "slos", multiple=True, metavar="LATENCY=S", help=SLO_HELP),
        click.option("--attainment", type=float, metavar="F", help=ATTAINMENT_HELP),
    )


def common_case(
    trace: Path, *, table: str | None, engine: tuple[str, ...], fleet: Path | None, **given: Any
) -> "Case":
    """Return the replay that all the others are changes of.

    Args:
        trace: File of the requests.
        table: As given.
        engine: As given; a flag may stand without a value.
        fleet: File of the pools, if it is given.
        given: The other options of the fleet, the selection, carbon and price, and the seed, None where not
            given.

    Raises:
        OSError: A file of rates cannot be read.
        ValueError: A rate is refused.
        click.UsageError: The table is given, though the file of the pools names tables.
    """
    from sim.sweep import Case
    from sim.table_files import DEFAULT

    if table is not None and fleet is not None:
        raise click.UsageError(f"--table {IN_FILE}")
    rates = take_rates(given)
    known = {name: value for name, value in given.items() if value is not None}
    pairs = (pair.partition("=") for pair in engine)
    return Case(
        trace,
        engine={name.replace("-", "_"): value for name, _, value in pairs},
        fleet={name: known.pop(name) for name in ("replicas", "router") if name in known},
        table=table or DEFAULT,
        fleet_file=fleet,
        rates=rates,
        **known,
    )
