"""Pictures: a matplotlib figure that is written whole or not at all."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from traces.whole_files import whole_file

ENDINGS = (".png", ".svg", ".pdf")


@contextmanager
def picture(path: Path, size: tuple[float, float], *, overwrite: bool = False) -> Iterator[Any]:
    """Give an empty figure to draw on, and write it into the file `path` afterwards.

    Args:
        path: Ends in .png, .svg or .pdf.
        size: Width and height in inches.
        overwrite: Whether an existing file may be replaced.

    Raises:
        ValueError: matplotlib is missing, the ending is another, or `path` exists and may not be replaced.
    """
    if path.suffix.lower() not in ENDINGS:
        raise ValueError(f"{path}: a plot ends in {', '.join(ENDINGS)}")
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ValueError(
            "plots need matplotlib, which is not installed; pip install 'replay[plot]'"
        ) from error
    figure: Any = Figure(figsize=size, layout="constrained", dpi=150)
    yield figure
    with whole_file(path, overwrite=overwrite) as part:
        figure.savefig(part, format=path.suffix.lower()[1:])
