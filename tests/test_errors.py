"""What the library raises becomes one line on stderr and exit code 2; nothing else is swallowed."""

import errno
from collections.abc import Callable
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from replay.errors import ReplayGroup


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
    assert result.exit_code == 1
    assert result.stderr == ""
