"""Where the trace and the cost table lie that a record names."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import traces
from sim.sweep_key import sha256_of
from sim.table_files import DEFAULT, load_table
from traces.fetch import located
from traces.reading import read_trace

SHIPPED = Path(traces.__path__[0])
ENDINGS = (".parquet", ".csv", ".jsonl", ".gz")


@dataclass(frozen=True, slots=True)
class Places:
    """Where things are that a record names.

    Attributes:
        trace: The trace, as the command line gives it; None to look for it.
        folders: Where to look for it, besides the current folder and the shipped traces.
        tables: Cost tables that do not ship, as the command line gives them.
    """

    trace: Path | None
    folders: tuple[Path, ...]
    tables: tuple[str, ...]

    def find_trace(self, name: str, sha256: str) -> Path:
        """Return the file of a trace.

        Raises:
            ValueError: It is not there.
        """
        folders = [*self.folders, Path(), Path("traces"), SHIPPED]
        there = [
            path
            for folder in dict.fromkeys(folders)
            for path in (sorted(folder.iterdir()) if folder.is_dir() else ())
            if path.suffix in ENDINGS and Path(path.name.removesuffix(".gz")).stem == name
        ]
        if self.trace is not None:
            there = [self.trace]
        else:
            with suppress(ValueError):  # a public trace that was not fetched
                there += filter(Path.exists, [located(name)])
        found = next((path for path in there if is_of(path, sha256)), None)
        if found is not None:
            return found
        why = f"{there[0]} is another, by its hash" if there else f"no file {name}.* is here or in traces/"
        raise ValueError(f"the trace {name} cannot be replayed anew: {why}; give --trace FILE")

    def find_table(self, name: str | None) -> str:
        """Return what the table of this name is loaded by; of no name, the first given or the default."""
        if name is None:
            return next(iter(self.tables), DEFAULT)
        return next((path for path in self.tables if load_table(path).name == name), name)


def is_of(path: Path, sha256: str) -> bool:
    """Say whether there is a file with this hash, or a trace that says that its source has it."""
    try:
        return sha256_of(path) == sha256 or read_trace(path).sha256 == sha256
    except (ValueError, OSError):
        return False
