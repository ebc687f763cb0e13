"""`replay compare`: a simulated run against measured ones."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from replay.completion import complete_table
from replay.footprint_options import footprint_options, take_rates
from replay.output import output_options, tell

if TYPE_CHECKING:
    from sim.step_cost import Coefficients
    from traces.record import Run

TABLE_HELP = "Split the measured energy by what this cost table says of the steps.  [default: as recorded]"


@click.command(short_help="How far a simulated run is from measured ones.")
@click.argument("simulated", metavar="RUN_SIM", type=click.Path(path_type=Path))
@click.argument(
    "measured", metavar="RUN_MEASURED...", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@click.option("--table", metavar="NAME|FILE", shell_complete=complete_table, help=TABLE_HELP)
@footprint_options
@click.option(
    "--markdown", type=click.Path(path_type=Path), metavar="FILE", help="Write it as Markdown, too."
)
@click.option("--plot", type=click.Path(path_type=Path), metavar="FILE", help="Draw it (.png, .svg, .pdf).")
@click.option("--overwrite", is_flag=True, help="Replace FILE if it exists.")
@click.option("--force", is_flag=True, help="Compare runs that broke a guard, too.")
@output_options
def cli(
    simulated: Path,
    measured: tuple[Path, ...],
    table: str | None,
    markdown: Path | None,
    plot: Path | None,
    overwrite: bool,
    force: bool,
    **footprint: Any,
) -> None:
    """Compare the simulated run in the folder RUN_SIM with measured runs of the same requests and policy.

    Several measured runs give the noise floor: what two measurements of the same differ by. docs/compare.md
    defines every number.
    """
    from dataclasses import asdict

    from replay.comparison_text import LABEL, comparison_markdown, comparison_view
    from replay.sparkline import power_view
    from sim.compare import compare
    from sim.compare_plot import plot_comparison
    from sim.footprint import with_footprint
    from sim.table_files import load_table
    from traces.record_files import read_run
    from traces.whole_files import whole_file

    rates = take_rates(footprint)
    costs = None if table is None else load_table(table).coefficients
    run = with_footprint(read_run(simulated), rates)
    runs = tuple(with_footprint(read_measured(folder, costs), rates) for folder in measured)
    comparison = compare(run, runs, force=force)
    if markdown is not None:
        with whole_file(markdown, overwrite=overwrite) as part:
            part.write_text(comparison_markdown(comparison))
    if plot is not None:
        plot_comparison(run, runs, plot, overwrite=overwrite)
    numbers = [f" {number}" for number in range(1, len(runs) + 1)] if len(runs) > 1 else [""]
    powers = [(f"{one.meta.kind}{number}", one.power) for one, number in zip(runs, numbers, strict=True)]
    tell(
        lambda: asdict(comparison),
        lambda: [*comparison_view(comparison), *power_view([("simulated", run.power), *powers], LABEL)],
        markdown or plot,
    )


def read_measured(folder: Path, costs: "Coefficients | None") -> "Run":
    """Return the measured run in `folder`, its energy split by a cost table if one is given.

    Raises:
        OSError: The record cannot be read.
        ValueError: It is damaged, or has no steps to split by.
    """
    from traces.record_files import read_run

    run = read_run(folder)
    return run if costs is None else split_measured(run, folder, costs)


def split_measured(run: "Run", folder: Path, costs: "Coefficients") -> "Run":
    """Return the measured run of `folder` with its energy split by a cost table.

    Raises:
        OSError: The steps cannot be read.
        ValueError: They are damaged or missing.
    """
    from backends.measured_split import split_by_table
    from traces.record_files import read_attachment

    steps = read_attachment(folder, "steps")
    if steps is None:
        raise ValueError(f"{folder}: has no steps.parquet to split the energy by; leave --table out")
    return split_by_table(run, steps, costs)
