"""The type of a command's TRACE: a file, or the name of a public trace that was fetched."""

import os
from pathlib import Path
from typing import Any

import click


class TracePath(click.Path):
    """A path, which need not exist; the name of a public trace stands for the file that was fetched."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Return the path.

        Raises:
            ValueError: It is the name of a public trace that was not fetched.
        """
        path = Path(os.fsdecode(super().convert(value, param, ctx)))
        if path.exists():
            return path
        from traces.fetch import located  # it loads an HTTP client

        return located(path)


TRACE = TracePath()
