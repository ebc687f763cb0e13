"""The command `replay`: a trace is replayed, anything else is a subcommand, loaded when called."""

from importlib import import_module
from typing import Any

import click
from click.shell_completion import CompletionItem

from replay.errors import BadInput, ReplayGroup

COMMANDS = {
    "run": "replay.run:cli",
    "trace": "replay.trace:cli",
    "sweep": "replay.sweep:cli",
    "optimize": "replay.optimize:cli",
    "estimate": "replay.estimate:cli",
    "compare": "replay.compare:cli",
    "report": "replay.report:cli",
    "explore": "replay.explore:cli",
    "export": "replay.export:cli",
    "import": "replay.imports:cli",
    "validate": "replay.validate:cli",
    "calibrate": "replay.calibrate:cli",
    "tables": "replay.tables:cli",
    "doctor": "replay.doctor:cli",
}


class MainGroup(ReplayGroup):
    """A group whose commands are imported when called, and whose default is to replay a trace."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Return the names, in the order shown."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import and return the command, None if there is none of that name."""
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Offer commands, else files: the first word may be a trace."""
        return super().shell_complete(ctx, incomplete) or [CompletionItem(incomplete, type="file")]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put in `run` where no command is named: the first word is then a trace or an option of `run`."""
        own_options = {name for parameter in self.get_params(ctx) for name in parameter.opts}
        if args and args[0] not in COMMANDS and args[0] not in own_options:
            args = ["run", *args]
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Invoke the command; wrong usage is one line too."""
        try:
            return super().invoke(ctx)
        except click.exceptions.NoArgsIsHelpError:
            raise
        except click.UsageError as error:
            path = error.ctx.command_path if error.ctx else ctx.command_path
            told = " ".join(error.format_message().split())
            end = "" if told.endswith((".", "?", "?)")) else "."
            raise BadInput(f"{told}{end} `{path} --help` tells more.") from error


@click.group(cls=MainGroup, subcommand_metavar="TRACE | COMMAND ...")
@click.version_option(package_name="replay")
def main() -> None:
    """Joules and latencies of serving a stream of LLM requests.

    `replay TRACE` replays a trace of requests, by simulation from a cost table measured on a real GPU; it is
    short for `replay run TRACE`, whose help lists its options.

    \b
      replay traces/chat.parquet --policy batch-window
      replay traces/chat.parquet --policy batch-window --set window_s=5 --engine max_num_seqs=128
      replay mine.csv --policy mine.py:MyPolicy --json
    """
