"""What the commands that replay have in common: options, the trace that they select, the engine's options."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from replay.completion import complete_policy, complete_table
from replay.output import Command, is_watched, say

if TYPE_CHECKING:
    from sim.options import EngineOptions
    from sim.policy import Policy
    from sim.table import CostTable
    from traces.trace import Trace

POLICY_HELP = "Name of a policy, FILE.py:CLASS, or several in a row: A+B."
TABLE_HELP = "Cost table, by name or as a file; `replay tables` lists those that ship."
FLEET_HELP = "Pools of replicas that differ, as YAML, and their router (docs/fleet.md)."
IN_FILE = "goes into the file that --fleet names; leave it out"
LENGTHS_HELP = "What the policy is told of output lengths: none, oracle, or noisy:cv=F."


def with_options(command: Command, *options: Callable[[Command], Command]) -> Command:
    """Give a command options, or groups of them, in this order."""
    for option in reversed(options):
        command = option(command)
    return command


def policy_option(command: Command) -> Command:
    """Give a command the option that names the policy."""
    return click.option(
        "--policy",
        default="immediate",
        show_default=True,
        metavar="P",
        shell_complete=complete_policy,
        help=POLICY_HELP,
    )(command)


def table_option(command: Command) -> Command:
    """Give a command the option that names the cost table."""
    return click.option("--table", metavar="NAME|FILE", shell_complete=complete_table, help=TABLE_HELP)(
        command
    )


def engine_option(command: Command) -> Command:
    """Give a command the options of the engine."""
    return click.option(
        "--engine", multiple=True, metavar="K=V", help="Engine option, vLLM's name; repeatable."
    )(command)


def fleet_option(command: Command) -> Command:
    """Give a command the option that names the file of the fleet's pools."""
    return click.option("--fleet", type=click.Path(path_type=Path), metavar="FILE", help=FLEET_HELP)(command)


def priced_options(command: Command) -> Command:
    """Give a command the options of the policy, the cost table and the engine."""
    return with_options(
        command,
        click.option(
            "--set", "settings", multiple=True, metavar="K=V", help="Option of the policy; repeatable."
        ),
        table_option,
        engine_option,
    )


def selection_options(command: Command) -> Command:
    """Give a command the options that say which requests are replayed, None where not given."""
    return with_options(
        command,
        click.option(
            "--stretch", type=float, metavar="F", help="Multiply arrival times: 0.5 is twice as fast."
        ),
        click.option("--limit", type=int, metavar="N", help="Keep the first N requests."),
        click.option(
            "--from-s", type=float, metavar="A", help="Leave out what arrives before; A becomes time 0."
        ),
        click.option("--to-s", type=float, metavar="B", help="Leave out what arrives at B or later."),
        click.option("--length-prediction", metavar="P", help=LENGTHS_HELP + "  [default: none]"),
    )


def engine_options(pairs: tuple[str, ...], table: "CostTable") -> "EngineOptions":
    """Return the options of the table's engine, changed as given; a flag may stand without a value.

    Raises:
        ValueError: An unknown name, a value that does not parse, or options that vLLM refuses.
    """
    from sim.options import from_strings, options_among

    given: dict[str, str] = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        given[name] = value
    return from_strings(given, options_among(table.engine))


def read_requests(path: Path, given: dict[str, Any], policy: "Policy", seed: int) -> "Trace":
    """Return the requests of the trace at `path` that the options of `selection_options` leave.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is no trace, nothing of it is left, or the policy needs a prediction of lengths.
    """
    from sim.arrivals import ensure_predicted
    from sim.sweep import Case

    if path.is_dir() or not path.exists():
        what = "a folder, not a trace" if path.is_dir() else "no such file"
        raise ValueError(f"{path}: {what}; give a trace, or a command that `replay --help` lists")
    trace = Case(path, seed=seed, **given).read_trace()
    ensure_predicted(trace, policy)
    return trace


def announce_compilation() -> None:
    """Tell somebody at a terminal why the first replay shows nothing for a while."""
    from sim.compiled import cache_folder

    if is_watched() and not any(Path(cache_folder()).iterdir()):
        say("Compiling the simulator, some 15 s; only the first replay does this.")
