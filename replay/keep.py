"""Keeping a run that cannot be had again, also where its folder takes no more."""

from collections.abc import Mapping
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any

from replay.errors import one_line
from replay.output import warn

if TYPE_CHECKING:
    from traces.record import Run


RUNS = Path("runs")
"""Where records go unless told otherwise."""


def make_runs(directory: Path) -> None:
    """Make the folder RUNS if `directory` is to lie in it; any other has to be there."""
    if directory.parent == RUNS:
        RUNS.mkdir(exist_ok=True)


def keep_run(run: "Run", directory: Path, attachments: Mapping[str, Mapping[str, Any]]) -> Path:
    """Write the record of a run and return its folder: `directory`, or for a live run another if that fails.

    Raises:
        OSError: The record cannot be written.
        ValueError: `directory` exists.
    """
    from traces.record_files import write_run

    try:
        write_run(run, directory, attachments=attachments)
    except OSError as error:
        if run.meta.kind == "simulated":
            raise
        rescue = Path(mkdtemp(prefix="replay-")) / directory.name
        write_run(run, rescue, attachments=attachments)
        warn(f"{one_line(error)}: the record is in {rescue} instead of {directory}")
        return rescue
    return directory
