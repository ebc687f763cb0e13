"""How a command ends that cannot do as asked: one line on stderr, and an exit code (docs/command.md)."""

import errno
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from enum import IntEnum
from typing import Any

import click


class Exit(IntEnum):
    """Exit codes of the command; 1 is Python's own, a traceback: a fault of ours."""

    DONE = 0
    REFUSED = 2
    FLAWED = 3
    INTERRUPTED = 130
    UNREAD = 141


class BadInput(click.ClickException):
    """What the user gave cannot be used; the message is one line: the value, the rule, the way out."""

    exit_code = Exit.REFUSED


class Flawed(click.ClickException):
    """The work is done and what came of it is printed or kept, but it is not valid or not whole."""

    exit_code = Exit.FLAWED


class Interrupted(click.ClickException):
    """Somebody pressed Ctrl-C."""

    exit_code = Exit.INTERRUPTED


class ReplayGroup(click.Group):
    """A group whose commands turn ValueError and OSError into `Error: ...` on stderr and exit code 2."""

    def invoke(self, ctx: click.Context) -> Any:
        """Invoke the command, translating what the library raises."""
        try:
            return super().invoke(ctx)
        except (KeyboardInterrupt, click.Abort) as error:
            raise Interrupted("interrupted") from error
        except (ValueError, OSError) as error:
            if isinstance(error, OSError) and error.errno == errno.EPIPE:
                _drop_output()
                raise SystemExit(Exit.UNREAD) from error
            raise BadInput(one_line(error)) from error


def ensure_valid(reasons: Sequence[str]) -> None:
    """End with exit code 3 if a run broke guards.

    Args:
        reasons: Which ones, as its record says.
    """
    if reasons:
        more = f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else ""
        raise Flawed(f"the run is not valid: {reasons[0]}{more}")


def one_line(error: Exception) -> str:
    """Return the message of `error` on one line, an OSError's as `file: reason`."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror if error.filename is None else f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__


def _drop_output() -> None:
    """Let Python flush at its end although the reader of a pipe has gone."""
    with suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
