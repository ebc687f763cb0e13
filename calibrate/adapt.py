"""Adapt a cost table to one card: fit what tells cards apart to a few loads, and leave the rest as it is."""

from collections.abc import Callable
from math import sqrt
from typing import Any

import numpy as np

from calibrate.card import CARD_WIDTHS, Factors, on_card
from calibrate.fit import SPENT_ON, Fit, errors_of, residual_of, search, spread_of, usable
from calibrate.raw import RawPoint
from calibrate.windows import Window, idle_power_w, windows
from sim.table import CostTable
from traces.trace import Floats

SAME = ("model", "dtype", "quantization", "kv_cache_dtype", "tensor_parallel_size")
"""Engine facts with which a step costs something else altogether."""


def adapt(points: list[RawPoint], facts: dict[str, Any], table: CostTable, say: Callable[[str], None]) -> Fit:
    """Return `table`'s numbers for the card that `points` were measured on.

    The `Factors` are fitted, each with the prior that it is near 1; power without work is read.

    Args:
        points: What `calibrate.measure` measured, of the grid `card` or a larger one.
        facts: What it wrote beside them: engine options and GPU.
        table: The table to adapt.
        say: Told what came of it, a line at a time.

    Raises:
        ValueError: The points are of another engine or GPU than the table, or do not suffice.
    """
    _ensure_alike(facts, table)
    points = usable(points, say)
    idle_w, idle_spread_w = idle_power_w(points)
    measured = windows(points)
    if not measured:
        raise ValueError("no point with work is there, only idle; let calibrate finish its grid")
    mean_card = table.coefficients._replace(idle_w=idle_w), table.host
    factors = _fitted(mean_card, measured)
    for name, factor in factors._asdict().items():
        say(f"{name:9} {100 * (factor - 1):+.1f} % on the table's")
    coefficients, host = on_card(*mean_card, factors)
    residuals = tuple(residual_of(coefficients, host, window) for window in measured)
    return Fit(
        coefficients=coefficients,
        host=host,
        parameters=factors._asdict(),
        residuals=residuals,
        idle_spread_w=idle_spread_w,
        spread=_widest(spread_of(residuals, idle_spread_w / idle_w), table),
    )


def _widest(spread: dict[str, float], table: CostTable) -> dict[str, float]:
    """Return the spread of a few loads on one card, at least that of the adapted table on its own cards."""
    errors = table.meta.get("errors", {})
    widest = dict(spread)
    for name, kinds in SPENT_ON.items():
        own = [errors[kind] for kind in kinds if kind in errors]
        if own:
            squares = sum(error["windows"] * error["joules_rms"] ** 2 for error in own)
            widest[name] = max(spread[name], sqrt(squares / sum(error["windows"] for error in own)))
    return widest


def _ensure_alike(facts: dict[str, Any], table: CostTable) -> None:
    here = {"gpu": facts["gpu"]["name"], "gpus": facts["gpu"]["gpus"]}
    wanted: dict[str, Any] = {"gpu": table.gpu, "gpus": table.gpus}
    here |= {name: facts["engine"].get(name) for name in SAME}
    wanted |= {name: table.engine.get(name) for name in SAME}
    for name, value in here.items():
        if value != wanted[name]:
            difference = f"{name} is {value} here, {wanted[name]} in table {table.name}"
            raise ValueError(f"{difference}; adapt a table of the same engine")


def _fitted(mean_card: tuple[Any, Any], measured: list[Window]) -> Factors:
    widths = np.array(list(CARD_WIDTHS.values()))

    def errors(log_factors: Floats) -> Floats:
        numbers = on_card(*mean_card, Factors(*np.exp(log_factors)))
        fitting = [error for window in measured for error in errors_of(*numbers, window)]
        return np.concatenate([fitting, log_factors / widths])

    found = search(errors, np.zeros(len(widths)))
    return Factors(*np.exp(found.x).tolist())
