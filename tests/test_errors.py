"""What the library raises becomes one line on stderr and an exit code; nothing else is swallowed."""

import errno
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from replay.errors import Exit, Flawed, ReplayGroup, ensure_valid


def run_raising(error: BaseException) -> Result:
    @click.group(cls=ReplayGroup)
    def outer() -> None: ...

    @outer.group(cls=ReplayGroup)
    def inner() -> None: ...

    @inner.command()
    def fail() -> None:
        raise error

    return CliRunner().invoke(outer, ["inner", "fail"])


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda: ValueError("window_s must be >= 0, got -1"), "window_s must be >= 0, got -1"),
        (lambda: ValueError("two\n  lines"), "two lines"),
        (lambda: ValueError(), "ValueError"),
        (lambda: FileNotFoundError(errno.ENOENT, "No such file", "x.csv"), "x.csv: No such file"),
        (lambda: OSError("the disk is full"), "the disk is full"),
        (lambda: OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
    ],
)
def test_bad_input_is_one_line_without_a_traceback(make: Callable[[], Any], line: str) -> None:
    result = run_raising(make())
    assert result.exit_code == 2
    assert result.stderr == f"Error: {line}\n"
    assert result.stdout == ""


def test_a_fault_of_our_own_is_not_taken_for_bad_input() -> None:
    result = run_raising(KeyError("fault"))
    assert isinstance(result.exception, KeyError)
    assert result.exit_code == 1


def test_a_closed_pipe_is_not_bad_input() -> None:
    result = run_raising(BrokenPipeError(errno.EPIPE, "Broken pipe"))
    assert result.exit_code == Exit.UNREAD
    assert result.stderr == ""


@pytest.mark.parametrize("error", [KeyboardInterrupt(), click.Abort()])
def test_an_interruption_is_one_line_and_has_the_code_of_shells(error: BaseException) -> None:
    result = run_raising(error)
    assert result.exit_code == Exit.INTERRUPTED == 128 + signal.SIGINT
    assert result.stderr == "Error: interrupted\n"


def test_a_run_that_broke_guards_is_told_apart_from_bad_input() -> None:
    ensure_valid([])
    with pytest.raises(Flawed, match=r"^the run is not valid: guard 1: late \(and 1 more\)$") as raised:
        ensure_valid(["guard 1: late", "guard 2: hot"])
    assert (raised.value.exit_code, int(Exit.FLAWED)) == (Exit.FLAWED, 3)


def test_the_docs_name_every_exit_code() -> None:
    page = (Path(__file__).parents[1] / "docs" / "command.md").read_text()
    table = page.partition("## Exit codes")[2].partition("## ")[0]
    assert [int(code) for code in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)] == sorted([1, *Exit])


def test_a_reader_that_goes_away_ends_the_command_silently() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "replay", "tables"]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert done.stderr == ""
    assert done.returncode == Exit.UNREAD == 128 + signal.SIGPIPE
