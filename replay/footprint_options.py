"""The options that turn a run's energy into carbon and money."""

from typing import TYPE_CHECKING, Any

import click

from replay.output import Command
from replay.replay_options import with_options

if TYPE_CHECKING:
    from sim.footprint import Rates

INTENSITY_HELP = "Tell gCO2e: the grid's g/kWh, or a CSV file of time_s and g_per_kwh."
PRICE_HELP = "Tell the price of the energy: a price per kWh, or a CSV file of time_s and price_per_kwh."
CURRENCY_HELP = "Label of the price, like EUR."
PUE_HELP = "Of both: energy of the whole site per energy of the GPUs.  [default: 1]"


def footprint_options(command: Command) -> Command:
    """Give a command the options of carbon and price, None where not given; `take_rates` takes them."""
    return with_options(
        command,
        click.option("--grid-intensity", metavar="G|FILE", help=INTENSITY_HELP),
        click.option("--price", metavar="P|FILE", help=PRICE_HELP),
        click.option("--currency", metavar="C", help=CURRENCY_HELP),
        click.option("--pue", type=float, metavar="F", help=PUE_HELP),
    )


def take_rates(options: dict[str, Any]) -> "Rates":
    """Remove those options of `footprint_options` that a command has, and return what they say.

    Raises:
        OSError: A file cannot be read.
        ValueError: A value or a file is refused, or lacks the one that it belongs to.
    """
    from sim.footprint import read_rates

    return read_rates(
        **{name: options.pop(name, None) for name in ("grid_intensity", "price", "currency", "pue")}
    )
