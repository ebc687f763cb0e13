"""What a figure of a report is, its colours and its units."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, Final

import numpy as np

from sim.report_time import PHASES
from traces.trace import Floats

RUN_COLORS: Final = ("#1a7fc4", "#d55e00", "#009e73", "#c468a0", "#8f6fd8", "#9a7a1c")
PHASE_COLORS: Final = dict(zip(PHASES, ("#e69f00", "#56b4e9", "#b9bec6"), strict=True))
"""After Okabe and Ito: told apart without seeing red or green, and on white as on black."""
SLO_COLOR: Final = "#d0343a"
GREY: Final = "#5f6670"
DASHES: Final = ("solid", "dash", "longdashdot")
PREFIXES: Final = ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""), (1e-3, "m"))
NARROW_DECADES, FEW_DECADES, MANY = 0.1, 3.2, 1e6

Trace = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure and what it shows.

    Attributes:
        key: Its name in the page.
        title: What it shows, in a few words.
        caption: How to read it, and what of the runs it leaves out.
        data, layout: As Plotly takes them; the colours of paper, text and grid are the page's.
        height_px: Its height.
    """

    key: str
    title: str
    caption: str
    data: list[Trace]
    layout: dict[str, Any]
    height_px: int


def color_of(number: int) -> str:
    """Return the colour of run `number`; where runs are many, colours come again."""
    return RUN_COLORS[number % len(RUN_COLORS)]


def line_of(number: int) -> dict[str, Any]:
    """Return how the line of run `number` looks; the first shows below others that agree with it."""
    dash = DASHES[number // len(RUN_COLORS) % len(DASHES)]
    return {"color": color_of(number), "dash": dash, "width": 2.8 if number == 0 else 1.4}


def text_of(name: str) -> str:
    """Return a name as Plotly shows it letter by letter; it takes some tags otherwise."""
    return escape(name, quote=False)


def scaled(largest: float, unit: str) -> tuple[float, str]:
    """Return what to divide by, and the prefixed unit, for an axis up to `largest`."""
    factor, prefix = next(((f, p) for f, p in PREFIXES if largest >= f), (1.0, ""))
    return factor, prefix + unit


def log_axis(title: str, values: Sequence[Floats]) -> dict[str, Any]:
    """Return a logarithmic axis with round numbers at its ticks.

    Args:
        title: With the unit.
        values: What is drawn along it, in parts; what is not above 0 is not drawn.
    """
    known = np.concatenate([np.zeros(0), *(part[part > 0] for part in values)])
    low, high = np.log10([known.min(), known.max()]) if len(known) else (0.0, 1.0)
    digits = (1, 2, 5) if high - low < FEW_DECADES else (1,)
    decades = range(int(np.floor(low)) - 1, int(np.ceil(high)) + 1)
    ticks = [float(f"{digit}e{decade}") for decade in decades for digit in digits]
    texts = [f"{tick:,g}" if tick < MANY else f"{tick:.0e}".replace("e+0", "e") for tick in ticks]
    axis = {"type": "log", "title": {"text": title}, "tickvals": ticks, "ticktext": texts}
    return axis if high - low > NARROW_DECADES else {**axis, "range": [low - 0.5, high + 0.5]}
