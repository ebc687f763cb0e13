"""The lines that begin with `replay` in the code of docs/ and README.md."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = (*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md")
FENCE = re.compile(r"^ *```(\w*)")
SHELLS = ("", "console", "bash", "sh", "shell")


@dataclass(frozen=True, slots=True)
class DocCommand:
    """One command as a page gives it.

    Attributes:
        page: Name of the page's file.
        line: Where it stands, counted from 1.
        text: The whole command, continued lines joined, without comment.
        shown: The block without language that follows an indented one, blank lines between or none, or "".
        shown_line: Line of the page where the text of that block begins, counted from 1.
    """

    page: str
    line: int
    text: str
    shown: str = ""
    shown_line: int = 0

    @property
    def arguments(self) -> list[str]:
        """What follows `replay`."""
        return shlex.split(self.text)[1:]

    def __str__(self) -> str:
        return f"{self.page}:{self.line} {self.text}"


def commands(path: Path) -> Iterator[DocCommand]:
    """Yield the commands of a page: of its indented blocks, and of those fenced as shell or as nothing."""
    fence, lines = None, path.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines):
        if found := FENCE.match(line):
            fence = found[1] if fence is None else None
            continue
        if fence not in SHELLS if fence is not None else not line.startswith("    "):
            continue
        end = number
        while lines[end].endswith("\\"):
            end += 1
        whole = " ".join(part.strip().rstrip("\\") for part in lines[number : end + 1])
        for part in re.split(r"&&|\s\|\s", re.sub(r"\s#.*", "", whole.removeprefix("$ "))):
            if found := re.match(r"\s*(?:[A-Z_]+=\S+ )*(?:\S*/)?(replay\s.*)", part):
                text = " ".join(found[1].split())
                shown = _block(lines, end + 1) if fence is None else ("", 0)
                yield DocCommand(path.name, number + 1, text, *shown)


def spans(path: Path) -> Iterator[DocCommand]:
    """Yield the commands named in a page's prose, between backticks."""
    prose = re.sub(
        r"^ *```.*?^ *```", lambda block: "\n" * block[0].count("\n"), path.read_text(), flags=re.S | re.M
    )
    for found in re.finditer(r"`(replay\s[^`]+)`", prose):
        line = prose.count("\n", 0, found.start()) + 1
        yield DocCommand(path.name, line, " ".join(found[1].replace("\\|", "|").split()))


def saved(path: Path) -> dict[str, str]:
    """Return the files that a page shows, each above the words "Saved as `NAME`"."""
    return {
        name: text
        for text, name in re.findall(
            r"```\w*\n((?:(?!```).)*?)```\s+Saved as `([\w.]+)`", path.read_text(), re.S
        )
    }


def _block(lines: list[str], begin: int) -> tuple[str, int]:
    """Return the block that is next from the line `begin` on, and the number of its first line."""
    while begin < len(lines) and not lines[begin].strip():
        begin += 1
    found = re.match(r"```\n(.*?)^```", "\n".join(lines[begin:]), re.DOTALL | re.MULTILINE)
    return (found[1], begin + 2) if found else ("", 0)
