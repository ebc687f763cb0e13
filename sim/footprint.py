"""What the energy of a run emits and costs: the grid's intensity and the price, constant or over time."""

import hashlib
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from sim.series import Series, read_series
from traces.record import Footprint, Meta, Power, Run, total_energy_j

INTENSITY, PRICE = "g_per_kwh", "price_per_kwh"
"""Columns of a file, and names of a constant."""

J_PER_KWH = 3.6e6
PERIOD = ":period_s="


@dataclass(frozen=True, slots=True)
class Rate:
    """So much a kWh, and where that comes from.

    Attributes:
        series: The rate over the time of the replay.
        origin: The constant by its name, or the file's name, its sha256, and its `period_s`.
    """

    series: Series
    origin: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Rates:
    """What a run's energy is to be turned into.

    Attributes:
        intensity: Grams of CO2 equivalent a kWh, None if not asked for.
        tariff: Price a kWh, None if not asked for.
        currency: Label of the price.
        pue: Energy of the whole site per energy of the GPUs, at least 1.

    Raises:
        ValueError: The intensity is negative somewhere, or `pue` is not a finite number of at least 1.
    """

    intensity: Rate | None = None
    tariff: Rate | None = None
    currency: str | None = None
    pue: float = 1.0

    def __post_init__(self) -> None:
        if not 1 <= self.pue < math.inf:
            raise ValueError(f"pue must be >= 1 and finite, got {self.pue}")
        if self.intensity is not None and self.intensity.series.value.min() < 0:
            raise ValueError(f"{INTENSITY} must be >= 0, got {self.intensity.series.value.min():g}")


def read_rate(text: str, column: str) -> Rate:
    """Return the rate that `text` gives: a number, or a CSV file with the columns `time_s` and `column`.

    `FILE:period_s=86400` begins again after a day.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is neither a finite number nor such a file.
    """
    try:
        constant = float(text)
    except ValueError:
        return _read_file(text, column)
    if not math.isfinite(constant):
        raise ValueError(f"{column} must be finite, got {text}")
    return Rate(Series(np.zeros(1), np.array([constant])), {column: constant})


def read_rates(
    grid_intensity: str | None, price: str | None, currency: str | None, pue: float | None
) -> Rates:
    """Return the rates that a user gives, each as `read_rate` takes it, None where not asked for.

    Raises:
        OSError: A file cannot be read.
        ValueError: A value or a file is refused, or belongs to another one that is not given.
    """
    if currency is not None and price is None:
        raise ValueError("a currency is of a price: give the price, too")
    if pue is not None and grid_intensity is None and price is None:
        raise ValueError("pue acts on carbon and price: give the grid's intensity or a price, too")
    return Rates(
        intensity=None if grid_intensity is None else read_rate(grid_intensity, INTENSITY),
        tariff=None if price is None else read_rate(price, PRICE),
        currency=currency,
        pue=1.0 if pue is None else pue,
    )


def with_footprint(run: Run, rates: Rates) -> Run:
    """Return the run with what its energy emits and costs, as it is if nothing was asked for."""
    footprint = footprint_of(run.meta, run.power, rates)
    return run if footprint is None else replace(run, meta=replace(run.meta, footprint=footprint))


def footprint_of(meta: Meta, power: Power, rates: Rates) -> Footprint | None:
    """Return what the energy of a run emits and costs, None if nothing was asked for.

    energy * PUE * the rate's mean over the energy as it was drawn.
    """
    if rates.intensity is None and rates.tariff is None:
        return None
    total_j = total_energy_j(meta, power)
    kwh = None if total_j is None else total_j * rates.pue / J_PER_KWH
    return Footprint(
        carbon_g=_times(kwh, rates.intensity, power),
        price=_times(kwh, rates.tariff, power),
        currency=rates.currency,
        pue=rates.pue,
        grid_intensity=None if rates.intensity is None else rates.intensity.origin,
        tariff=None if rates.tariff is None else rates.tariff.origin,
    )


def _times(kwh: float | None, rate: Rate | None, power: Power) -> float | None:
    mean = None if rate is None else rate.series.mean_over(power)
    return None if kwh is None or mean is None else kwh * mean


def _read_file(text: str, column: str) -> Rate:
    name, has_period, period = text.partition(PERIOD)
    path = Path(name)
    if not path.is_file():
        raise ValueError(f"{column}: {name!r} is neither a number nor a file; give one of them")
    try:
        period_s = float(period) if has_period else None
    except ValueError:
        raise ValueError(f"period_s must be a number of seconds, got {period!r}") from None
    origin = {
        "file": path.name,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "period_s": period_s,
    }
    return Rate(read_series(path, column, period_s), origin)
