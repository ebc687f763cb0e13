"""The options that turn a run's energy into carbon and money."""

from typing import TYPE_CHECKING, Any

import click

from replay.replay_options import Command, with_options

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
    """Remove the options of `footprint_options` from a command's, and return what they say.

    Raises:
        OSError: A file cannot be read.
        ValueError: A value or a file is refused.
        click.UsageError: An option lacks the one that it belongs to.
    """
    intensity, price, currency, pue = (
        options.pop(name) for name in ("grid_intensity", "price", "currency", "pue")
    )
    if currency is not None and price is None:
        raise click.UsageError("--currency is of a price: give --price, too")
    if pue is not None and intensity is None and price is None:
        raise click.UsageError("--pue acts on carbon and price: give --grid-intensity or --price, too")
    from sim.footprint import INTENSITY, PRICE, Rates, read_rate

    return Rates(
        intensity=None if intensity is None else read_rate(intensity, INTENSITY),
        tariff=None if price is None else read_rate(price, PRICE),
        currency=currency,
        pue=1.0 if pue is None else pue,
    )
