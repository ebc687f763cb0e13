"""`replay tables`: which cost tables there are, and what they say."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from replay.completion import complete_table

if TYPE_CHECKING:
    from sim.table import CostTable

FILE = click.Path(dir_okay=False, path_type=Path)


@click.command()
@click.argument("names", nargs=-1, shell_complete=complete_table)
@click.option("--plot", "picture", type=FILE, metavar="FILE", help="Draw its points: .png, .svg or .pdf.")
@click.option("--overwrite", is_flag=True, help="Replace the plot if it is there.")
def cli(names: tuple[str, ...], picture: Path | None, overwrite: bool) -> None:
    """List the cost tables that ship, or show NAMES (or folders) in full.

    With --plot, draws the measured points of the one table that is named, and what the fitted model makes of
    them.
    """
    from sim.table_files import find_table, load_table, shipped

    if picture is not None and len(names) != 1:
        raise ValueError(f"--plot draws one table, got {len(names)}; name one that `replay tables` lists")
    for name in names or tuple(shipped()):
        table = load_table(name)
        _list(table)
        if names:
            _show(table)
            _show_validation(find_table(name).parent)
        if picture is not None:
            from calibrate.plot import plot_table

            plot_table(table, find_table(name).parent, picture, overwrite=overwrite)
            click.echo(f"The plot is in {picture}", err=True)


def _list(table: "CostTable") -> None:
    from sim.table_files import DEFAULT

    default = ", the default" if table.name == DEFAULT else ""
    click.echo(f"{table.name} ({table.source}{default})")
    click.echo(f"  {table.measured_on}")


def _show(table: "CostTable") -> None:
    import json
    from math import isinf

    c = table.coefficients
    cap = "not capped" if isinf(c.cap_w) else f"held at {c.cap_w:.0f} W in all"
    click.echo(f"  power limit {table.power_limit_w:.0f} W a GPU, {cap}")
    click.echo(f"  idle {c.idle_w:.0f} W loaded, {table.bare_idle_w:.0f} W bare")
    prefill, seqs, kv, pairs = c.limits
    click.echo(
        f"  measured up to {prefill:,.0f} prefill tokens, {seqs:,.0f} sequences, {kv:,.0f} KV tokens, "
        f"{pairs:.3g} query-key pairs in a step"
    )
    click.echo(f"  engine: {json.dumps(table.engine)}")
    for kind, errors in table.meta.get("errors", {}).items():
        click.echo(
            f"  {kind:8} {errors['windows']:4.0f} windows: seconds {100 * errors['seconds_rms']:.2f} % rms, "
            f"joules {100 * errors['joules_rms']:.2f} % rms"
        )


def _show_validation(folder: Path) -> None:
    from replay.validation import MEANING, read_validation, validation_lines

    entries = read_validation(folder)
    if entries:
        click.echo(f"  live replays, {MEANING}:")
        for line in validation_lines(entries):
            click.echo(line)
