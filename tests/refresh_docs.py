"""Writes what the commands of docs/ and README.md print into the pages anew: `python tests/refresh_docs.py`.

A block that shows a part of an output is found by its first word and stays as long as it is. It says which
blocks are left to be looked at by hand. Pages may be named: `python tests/refresh_docs.py tutorial.md`.
"""

import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from doc_commands import PAGES
from doc_runs import ALL, SHOW_REAL_OUTPUT, fill, is_run, run_page

WRITTEN = (*SHOW_REAL_OUTPUT, "fleet.md", "sweep.md")
"""Pages written here; those that no test compares take too long for one, or show parts."""


def part_like(shown: list[str], printed: list[str]) -> list[str]:
    """Return all that was printed, or the part that a block shows now."""
    first = shown[0].split()[:1]
    begin = next(place for place, line in enumerate(printed) if line.split()[:1] == first)
    return printed if begin == 0 else printed[begin : begin + len(shown)]


def refresh(page: Path) -> int:
    """Write the page anew and return how many of its blocks changed."""
    with TemporaryDirectory() as scratch:
        os.chdir(scratch)
        fill(Path(scratch))
        printed = [(command, lines) for command, lines in run_page(page, WRITTEN) if command.shown]
    changed = 0
    text = page.read_text(encoding="utf-8").splitlines()
    for command, lines in reversed(printed):
        shown = command.shown.splitlines()
        begin, end = command.shown_line - 1, command.shown_line - 1 + len(shown)
        if text[begin:end] != shown:
            raise SystemExit(f"{page}: changed while its commands ran; run this again")
        lines = part_like(shown, lines)
        changed += shown != lines
        text[begin:end] = lines
    if changed:
        page.write_text("\n".join(text) + "\n", encoding="utf-8")
    return changed


def main(names: list[str]) -> None:
    """Write the pages of these names, or all."""
    os.environ["NO_COLOR"] = "1"
    for page in PAGES:
        if page.name in (names or WRITTEN):
            print(f"{page.name}: {refresh(page)} blocks changed")
    for command in ALL:
        if command.shown and is_run(command) and command.page not in WRITTEN:
            print(f"by hand: {command}")


if __name__ == "__main__":
    main(sys.argv[1:])
