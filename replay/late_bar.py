"""A progress bar on stderr for what takes longer than a second."""

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING

from replay.output import is_watched

if TYPE_CHECKING:
    from rich.progress import Progress

PATIENCE_S = 1.0
REDRAWS = 200


class LateBar:
    """Counts what is done, and shows it once a second has passed, if somebody can be looking."""

    def __init__(self, length: int | None, label: str, patience_s: float = PATIENCE_S) -> None:
        """Prepare a bar of `length` steps, None for not known yet, that shows itself after `patience_s`."""
        self._length = length
        self._label = label
        self._shown_from_s = time.monotonic() + patience_s
        self._done = self._drawn = 0
        self._bar: Progress | None = None

    def __enter__(self) -> "LateBar":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._draw()
            self._bar.stop()

    def advance(self, count: int) -> None:
        """Note that `count` further steps are done."""
        self.reach(self._done + count, self._length)

    def reach(self, done: int, length: int | None) -> None:
        """Note that `done` steps of `length` are done, None for not known."""
        self._done, self._length = done, length
        if self._bar is None and time.monotonic() >= self._shown_from_s and is_watched():
            self._bar = _new_bar(self._label)
            self._bar.start()
            self._draw()
        elif self._bar is not None and done - self._drawn >= (length or 0) / REDRAWS:
            self._draw()

    def _draw(self) -> None:
        assert self._bar is not None
        self._drawn = self._done
        self._bar.update(self._bar.task_ids[0], completed=self._done, total=self._length)


def _new_bar(label: str) -> "Progress":
    from rich.console import Console
    from rich.progress import Progress

    bar = Progress(console=Console(file=sys.stderr, markup=False), transient=True)
    bar.add_task(label)
    return bar
