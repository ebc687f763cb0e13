"""What the shell is offered when somebody presses Tab (docs/command.md)."""

from collections.abc import Iterable

import click
from click.shell_completion import CompletionItem

Items = list[CompletionItem]


def complete_policy(ctx: click.Context, param: click.Parameter, incomplete: str) -> Items:  # noqa: ARG001
    """Offer policies by name, also behind the `+` of policies in a row, else files."""
    from sim.registry import policy_names

    before, plus, last = incomplete.rpartition("+")
    names = [before + plus + name for name in policy_names() if name.startswith(last)]
    return _names(names) or [CompletionItem(incomplete, type="file")]


def complete_table(ctx: click.Context, param: click.Parameter, incomplete: str) -> Items:  # noqa: ARG001
    """Offer the cost tables that ship, else files."""
    from sim.table_files import shipped

    names = (name for name in shipped() if name.startswith(incomplete))
    return _names(names) or [CompletionItem(incomplete, type="file")]


def complete_router(ctx: click.Context, param: click.Parameter, incomplete: str) -> Items:  # noqa: ARG001
    """Offer routers by name."""
    from sim.router_registry import ROUTERS

    return _names(name for name in ROUTERS if name.startswith(incomplete))


def _names(names: Iterable[str]) -> Items:
    return [CompletionItem(name) for name in names]
