"""Terminals to invoke commands on: what `CliRunner.invoke` takes as `env`."""

PLAIN_TERMINAL = {"FORCE_COLOR": "1", "TERM": "dumb"}
"""80 columns, without colour."""


def terminal(columns: int) -> dict[str, str]:
    """Return a terminal with colours."""
    return {"FORCE_COLOR": "1", "TERM": "xterm-256color", "COLUMNS": str(columns)}
