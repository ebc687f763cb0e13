"""`replay trace`: look at traces, convert, fetch, describe, draw and compare them."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from replay.errors import ReplayGroup

if TYPE_CHECKING:
    from traces.trace import Trace

FILE = click.Path(path_type=Path)


@click.group(cls=ReplayGroup)
def cli() -> None:
    """Look at traces, convert, fetch, describe, draw and compare them."""


@cli.command()
@click.argument("file", type=FILE)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--plot", "picture", type=FILE, metavar="FILE", help="Draw it too: .png, .svg or .pdf.")
@click.option("--format", "form", metavar="NAME", help="The file's format, where its content does not tell.")
@click.option("--overwrite", is_flag=True, help="Replace the picture if it exists.")
def info(file: Path, as_json: bool, picture: Path | None, form: str | None, overwrite: bool) -> None:
    """Print what FILE holds: counts, rates, burstiness, lengths, shared prefixes."""
    from dataclasses import asdict
    from json import dumps

    from replay.trace_text import info_text
    from traces.info import inspect
    from traces.reading import read_trace

    trace = read_trace(file, form=form)
    found = inspect(trace)
    if picture is not None:
        from traces.plot import plot

        plot(trace, picture, overwrite=overwrite)
    click.echo(dumps(asdict(found), indent=2) if as_json else info_text(found))
    if picture is not None:
        click.echo(f"drawn into {picture}", err=True)


@cli.command()
@click.argument("source", metavar="IN", type=FILE)
@click.argument("target", metavar="OUT.parquet", type=FILE)
@click.option("--format", "form", metavar="NAME", help="The format of IN, where its content does not tell.")
@click.option("--spread", "spread_s", type=float, metavar="SECONDS", help="Spread ticks of a coarse clock.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the spread.")
@click.option("--leave-out-zero", is_flag=True, help="Leave out and count rows with zero tokens.")
@click.option("--from-s", type=float, help="Leave out what arrives before; this becomes time 0.")
@click.option("--to-s", type=float, help="Leave out what arrives at or after this time.")
@click.option("--limit", type=int, help="Keep at most this many requests.")
@click.option("--stretch", type=float, default=1.0, show_default=True, help="Factor on arrival times.")
@click.option("--overwrite", is_flag=True, help="Replace OUT.parquet if it exists.")
def convert(source: Path, target: Path, overwrite: bool, **options: Any) -> None:
    """Write IN, of any known format, as the project's Parquet."""
    from traces.parquet import write_trace
    from traces.reading import read_trace
    from traces.selection import select
    from traces.whole_files import ensure_free

    ensure_free(target, overwrite=overwrite)
    reading = {name: options.pop(name) for name in ("form", "spread_s", "seed", "leave_out_zero")}
    _say(_write(select(read_trace(source, **reading), **options), target, overwrite, write_trace))


@cli.command()
@click.argument("name", required=False)
@click.option("--from", "from_file", type=FILE, metavar="FILE", help="Take this file; no network is needed.")
@click.option("--sha256", metavar="HEX", help="Hash of the file, where no published one is known.")
@click.option("--cache", type=FILE, metavar="FOLDER", help="Keep it here and not in the user's cache.")
def fetch(name: str | None, from_file: Path | None, sha256: str | None, cache: Path | None) -> None:
    """Fetch the public trace NAME and print where it lies; without NAME, list them."""
    from traces.fetch import cache_folder
    from traces.fetch import fetch as fetch_trace
    from traces.public import PUBLIC_TRACES, public_trace

    if name is None:
        from replay.trace_text import public_text

        click.echo(public_text(PUBLIC_TRACES))
        return
    from replay.late_bar import LateBar

    trace = public_trace(name)
    with LateBar(None, trace.name, patience_s=0) as bar:
        path = fetch_trace(
            trace, cache or cache_folder(), sha256=sha256, from_file=from_file, progress=bar.reach
        )
    click.echo(f"{trace.title}; licence {trace.licence}, cite its authors", err=True)
    click.echo(path)


@cli.command()
@click.argument("file", type=FILE)
@click.option(
    "--out", "target", type=FILE, required=True, metavar="STATISTICS.json", help="Where to write them."
)
@click.option("--name", help="Name of the statistics; the trace's own by default.")
@click.option(
    "--arrivals", type=click.Choice(["auto", "profile", "on-off"]), default="auto", show_default=True
)
@click.option("--format", "form", metavar="NAME", help="The file's format, where its content does not tell.")
@click.option("--overwrite", is_flag=True, help="Replace STATISTICS.json if it exists.")
def describe(
    file: Path, target: Path, name: str | None, arrivals: str, form: str | None, overwrite: bool
) -> None:
    """Write statistics of FILE that hold none of its rows, for `synthesize`."""
    from traces.describe import describe as describe_trace
    from traces.reading import read_trace
    from traces.shape import write_shape
    from traces.whole_files import ensure_free

    ensure_free(target, overwrite=overwrite)
    shape = describe_trace(read_trace(file, form=form), name=name, arrivals=arrivals)
    write_shape(shape, target, overwrite=overwrite)
    click.echo(f"statistics of {shape.name} ({shape.arrivals.model} arrivals) are in {target}", err=True)


@cli.command()
@click.option(
    "--statistics", required=True, metavar="NAME|FILE", help="`chat`, `code`, or made by `describe`."
)
@click.option("--out", "target", type=FILE, required=True, metavar="OUT.parquet", help="Where to write it.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option(
    "--duration", "duration_s", type=float, metavar="SECONDS", help="As long as the original by default."
)
@click.option("--overwrite", is_flag=True, help="Replace OUT.parquet if it exists.")
def synthesize(statistics: str, target: Path, seed: int, duration_s: float | None, overwrite: bool) -> None:
    """Draw a trace from statistics and write it as Parquet."""
    from traces.parquet import write_trace
    from traces.shape import read_shape
    from traces.synthesize import synthesize as draw
    from traces.whole_files import ensure_free

    ensure_free(target, overwrite=overwrite)
    shape, sha256 = read_shape(statistics)
    _say(_write(draw(shape, sha256, seed=seed, duration_s=duration_s), target, overwrite, write_trace))


@cli.command()
@click.argument("one", type=FILE)
@click.argument("other", type=FILE)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def compare(one: Path, other: Path, as_json: bool) -> None:
    """Print how alike the traces ONE and OTHER are: distances and ratios, ONE by OTHER."""
    from dataclasses import asdict
    from json import dumps

    from replay.trace_text import likeness_text
    from traces.comparison import compare as compare_traces
    from traces.reading import read_trace

    likeness = compare_traces(read_trace(one), read_trace(other))
    click.echo(dumps(asdict(likeness), indent=2) if as_json else likeness_text(likeness))


def _write(trace: "Trace", target: Path, overwrite: bool, write: Any) -> tuple["Trace", Path]:
    write(trace, target, overwrite=overwrite)
    return trace, target


def _say(written: tuple["Trace", Path]) -> None:
    trace, target = written
    click.echo(f"{len(trace):,} requests of {trace.name} are in {target}", err=True)
    for note in trace.notes:
        click.echo(f"note: {note}", err=True)
