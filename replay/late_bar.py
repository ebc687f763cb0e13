"""A progress bar on stderr for what takes longer than a second."""

import sys
import time
from types import TracebackType
from typing import Any

import click

PATIENCE_S = 1.0
REDRAWS = 200


class LateBar:
    """Counts what is done, and shows it once a second has passed, if somebody can be looking."""

    def __init__(self, length: int, label: str, patience_s: float = PATIENCE_S) -> None:
        """Prepare a bar of `length` steps that shows itself after `patience_s`."""
        self._length = length
        self._label = label
        self._shown_from_s = time.monotonic() + patience_s
        self._done = 0
        self._bar: Any = None

    def __enter__(self) -> "LateBar":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.__exit__(kind, error, trace)

    def advance(self, count: int) -> None:
        """Note that `count` further steps are done."""
        self._done += count
        if self._bar is not None:
            self._bar.update(count)
        elif time.monotonic() >= self._shown_from_s and sys.stderr.isatty():
            redraw = max(1, self._length // REDRAWS)
            self._bar = click.progressbar(
                length=self._length, label=self._label, file=sys.stderr, update_min_steps=redraw
            )
            self._bar.__enter__()
            self._bar.update(self._done)
