"""How all commands answer: results on standard output, talk on standard error; --json and --quiet."""

import json
import math
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from replay.screen import View

Command = Callable[..., Any]

ASKED = "replay.output."
"""Begins the keys, in a context's meta, of what was asked for."""
JSON_HELP = "Print the result as one JSON object."
QUIET_HELP = "Print no more than the path of what was written."


def output_options(command: Command) -> Command:
    """Give a command --json and --quiet, which the functions below obey."""
    return _flag("--json", JSON_HELP)(_flag("--quiet", QUIET_HELP)(command))


def tell(
    values: Callable[[], Mapping[str, Any]], view: Callable[[], "View"], out: Path | None = None
) -> None:
    """Print what a command came to.

    Args:
        values: Makes the JSON object; what is no finite number becomes null.
        view: Makes what a person reads, nothing if the files are all there is.
        out: What was written: `out` of the JSON object, and all there is under --quiet.
    """
    if _is_asked("json"):
        place = {} if out is None else {"out": str(out)}
        click.echo(json.dumps(_finite({**values(), **place}), allow_nan=False))
    elif not is_quiet():
        from replay.screen import shown

        if lines := view():
            click.echo(shown(lines), color=True)
    elif out is not None:
        click.echo(out)


def say(text: str) -> None:
    """Say something on standard error that nobody has to know."""
    if not is_quiet():
        click.echo(text, err=True)


def warn(text: str) -> None:
    """Say something on standard error that must be known."""
    click.echo(f"warning: {text}", err=True)


def ensure_no_json(reason: str) -> None:
    """Refuse --json.

    Raises:
        UsageError: It was given.
    """
    if _is_asked("json"):
        raise click.UsageError(f"--json prints what came of it, but {reason}; give one of them")


def is_quiet() -> bool:
    """Tell whether the command runs under --quiet."""
    return _is_asked("quiet")


def is_watched() -> bool:
    """Tell whether somebody may be looking at standard error for signs of progress."""
    return sys.stderr.isatty() and not is_quiet()


def _flag(name: str, text: str) -> Callable[[Command], Command]:
    return click.option(name, is_flag=True, expose_value=False, callback=_remember, help=text)


def _is_asked(name: str) -> bool:
    context = click.get_current_context(silent=True)
    return context is not None and bool(context.meta.get(ASKED + name))


def _remember(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    context.meta[f"{ASKED}{parameter.name}"] = value


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: _finite(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return str(value) if isinstance(value, Path) else value
