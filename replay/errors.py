"""How the commands answer bad input: one line on stderr and exit code 2."""

import errno
from typing import Any

import click


class BadInput(click.ClickException):
    """What the user gave cannot be used; the message is one line: the value, the rule, the way out."""

    exit_code = 2


class ReplayGroup(click.Group):
    """A group whose commands turn ValueError and OSError into `Error: ...` on stderr and exit code 2."""

    def invoke(self, ctx: click.Context) -> Any:
        """Invoke the command, translating what the library raises."""
        try:
            return super().invoke(ctx)
        except (ValueError, OSError) as error:
            if isinstance(error, OSError) and error.errno == errno.EPIPE:
                raise  # the reader of a pipe has gone: click ends quietly
            raise BadInput(one_line(error)) from error


def one_line(error: Exception) -> str:
    """Return the message of `error` on one line, an OSError's as `file: reason`."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__
