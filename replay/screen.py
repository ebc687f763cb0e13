"""What a person reads: tables and lines, folded and in modest colour on a terminal, plain where piped."""

import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import StringIO
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

View = Sequence[RenderableType]
"""Strings, texts and tables, one below the other."""

GAP = 2
"""Spaces between columns."""
UNFOLDED = 1_000_000
NARROWEST = 56
"""A terminal that is narrower breaks lines by itself."""
LEAST_NAME = 20
"""Characters that a name behind numbers has at least."""
ASCII = str.maketrans(dict(zip("▁▂▃▄▅▆▇█µ±≤", (*".:-=+*#@u", "+-", "<="), strict=True)))
"""What stands for our symbols where only ASCII can be printed."""
CONTROLS = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")
"""What would steer a terminal, in a trace's name say."""


class Literal(Console):
    """A console that takes nothing in a text for markup."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Return a text as it is drawn."""
        return super().render_str(_harmless(text), **options)


@dataclass(frozen=True, slots=True)
class Together:
    """Words of one cell that do not break: side by side, or one below the other where there is no room.

    Attributes:
        parts: The words.
        between: What is between them side by side.
    """

    parts: tuple[str, ...]
    between: str = " "

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(max(len(part.strip()) for part in self.parts), len(self.between.join(self.parts)))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        line = self.between.join(self.parts)
        yield Text(line if len(line) <= options.max_width else "\n".join(part.strip() for part in self.parts))


Cell = str | Text | Together


def heading(text: str) -> Text:
    """Return a line that stands out."""
    return Text(_harmless(text), style="bold")


def bad(text: str) -> Text:
    """Return what must not be overlooked: a guard that failed, a limit that is violated."""
    return Text(_harmless(text), style="red")


def faint(text: str) -> Text:
    """Return what may be overlooked."""
    return Text(_harmless(text), style="dim")


def indented(text: str) -> Padding:
    """Return a line that belongs to one above it."""
    return Padding(text, (0, 0, 0, GAP), expand=False)


def unfolded(text: str) -> Text:
    """Return what has to stay on one line to be of use, such as a path."""
    return Text(_harmless(text), no_wrap=True, overflow="ignore")


def table(
    rows: Iterable[Sequence[Cell]],
    align: str,
    *,
    heads: Sequence[str] = (),
    widths: Sequence[int] = (),
) -> Table:
    """Return a table that folds its widest cells where it does not fit.

    Args:
        rows: Cells of each line.
        align: For each column l or r.
        heads: Of the columns, none for a table without.
        widths: Least widths of the first columns, in characters.
    """
    made = Table(
        box=None, show_header=bool(heads), header_style="bold", pad_edge=False, padding=(0, GAP, 0, 0)
    )
    for place, side in enumerate(align):
        made.add_column(
            heads[place] if heads else "",
            justify="right" if side == "r" else "left",
            min_width=widths[place] if place < len(widths) else None,
            overflow="fold",
        )
    for row in rows:
        made.add_row(*row)
    return made


@dataclass(frozen=True, slots=True)
class NamedRows:
    """Numbers with names behind them, which fold; where there is little room, each stands above its numbers.

    Attributes:
        heads: Of the numbers' columns; the first is of a mark.
        rows: Mark and numbers of each line.
        names: Of the lines.
    """

    heads: tuple[str, ...]
    rows: list[tuple[str | Text, ...]]
    names: list[str]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        align = "l" + "r" * (len(self.heads) - 1)
        widths = [max(map(len, cells)) for cells in zip(self.heads, *self.rows, strict=True)]
        room = options.max_width - sum(widths) - GAP * len(widths)
        if -GAP <= room < min(LEAST_NAME, max(map(len, self.names), default=0)):
            yield table([], align, heads=self.heads, widths=widths)
            for row, name in zip(self.rows, self.names, strict=True):
                yield name
                yield table([row], align, widths=widths)
        else:
            rows = [(*row, name) for row, name in zip(self.rows, self.names, strict=True)]
            yield table(rows, f"{align}l", heads=(*self.heads, ""), widths=widths if room > 0 else ())


def plain(view: View) -> str:
    """Return a view without colour, each row on one line, however long."""
    return _drawn(view, Literal(file=StringIO(), width=UNFOLDED, force_terminal=False, color_system=None))


def shown(view: View) -> str:
    """Return a view as standard output takes it: a terminal's width and colours, or plain."""
    console = Literal(file=sys.stdout)
    console.width = max(console.width, NARROWEST)
    text = _drawn(view, console) if console.is_terminal else plain(view)
    return encodable(text, sys.stdout.encoding or "utf-8")


def encodable(text: str, encoding: str) -> str:
    """Return `text` with what the encoding lacks replaced, our symbols by ASCII that looks like them."""
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return text.translate(ASCII).encode(encoding, "replace").decode(encoding)
    return text


def _harmless(text: str) -> str:
    return CONTROLS.sub("?", text)


def _drawn(view: View, console: Console) -> str:
    with console.capture() as capture:
        for part in view:
            console.print(part)
    return "\n".join(line.rstrip() for line in capture.get().rstrip("\n").split("\n"))
