"""`replay tables`: which cost tables there are, and what they say."""

from pathlib import Path

import click

from replay.completion import complete_table
from replay.output import output_options, say, tell

FILE = click.Path(dir_okay=False, path_type=Path)


@click.command()
@click.argument("names", nargs=-1, shell_complete=complete_table)
@click.option("--plot", "picture", type=FILE, metavar="FILE", help="Draw its points: .png, .svg or .pdf.")
@click.option("--overwrite", is_flag=True, help="Replace the plot if it is there.")
@output_options
def cli(names: tuple[str, ...], picture: Path | None, overwrite: bool) -> None:
    """List the cost tables that ship, or show NAMES (or folders) in full.

    With --plot, draws the measured points of the one table that is named, and what the fitted model makes of
    them.
    """
    from replay.tables_text import list_view, table_view, tables_values
    from sim.table_files import find_table, load_table, shipped

    if picture is not None and len(names) != 1:
        raise ValueError(f"--plot draws one table, got {len(names)}; name one that `replay tables` lists")
    tables = {name: load_table(name) for name in names or shipped()}
    if picture is not None:
        from calibrate.plot import plot_table

        ((name, table),) = tables.items()
        plot_table(table, find_table(name).parent, picture, overwrite=overwrite)
        say(f"The plot is in {picture}")
    tell(
        lambda: tables_values([*tables.values()]),
        lambda: (
            [part for name, table in tables.items() for part in table_view(name, table)]
            if names
            else list_view([*tables.values()])
        ),
        picture,
    )
