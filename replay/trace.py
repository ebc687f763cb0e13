"""`replay trace`: look at traces, convert, fetch, describe, draw and compare them."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from replay.errors import ReplayGroup
from replay.output import output_options, say, tell
from replay.trace_path import TRACE

if TYPE_CHECKING:
    from traces.trace import Trace

FILE = click.Path(path_type=Path)


@click.group(cls=ReplayGroup)
def cli() -> None:
    """Look at traces, convert, fetch, describe, draw and compare them."""


@cli.command()
@click.argument("file", type=TRACE)
@click.option("--plot", "picture", type=FILE, metavar="FILE", help="Draw it too: .png, .svg or .pdf.")
@click.option("--format", "form", metavar="NAME", help="The file's format, where its content does not tell.")
@click.option("--overwrite", is_flag=True, help="Replace the picture if it exists.")
@output_options
def info(file: Path, picture: Path | None, form: str | None, overwrite: bool) -> None:
    """Print what FILE holds: counts, rates, burstiness, lengths, shared prefixes."""
    from dataclasses import asdict

    from replay.trace_text import info_view
    from traces.info import inspect
    from traces.reading import read_trace

    trace = read_trace(file, form=form)
    found = inspect(trace)
    if picture is not None:
        from traces.plot import plot

        plot(trace, picture, overwrite=overwrite)
        say(f"drawn into {picture}")
    tell(lambda: asdict(found), lambda: info_view(found), picture)


@cli.command()
@click.argument("source", metavar="IN", type=TRACE)
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
@output_options
def convert(source: Path, target: Path, overwrite: bool, **options: Any) -> None:
    """Write IN, of any known format, as the project's Parquet."""
    from traces.parquet import write_trace
    from traces.reading import read_trace
    from traces.selection import select
    from traces.whole_files import ensure_free

    ensure_free(target, overwrite=overwrite)
    reading = {name: options.pop(name) for name in ("form", "spread_s", "seed", "leave_out_zero")}
    trace = select(read_trace(source, **reading), **options)
    write_trace(trace, target, overwrite=overwrite)
    _tell(trace, target)


@cli.command()
@click.argument("name", required=False)
@click.option("--from", "from_file", type=FILE, metavar="FILE", help="Take this file; no network is needed.")
@click.option("--sha256", metavar="HEX", help="Hash of the file, where no published one is known.")
@click.option("--cache", type=FILE, metavar="FOLDER", help="Keep it here and not in the user's cache.")
@output_options
def fetch(name: str | None, from_file: Path | None, sha256: str | None, cache: Path | None) -> None:
    """Fetch the public trace NAME and print where it lies; without NAME, list them."""
    from traces.fetch import cache_folder
    from traces.fetch import fetch as fetch_trace
    from traces.public import PUBLIC_TRACES, public_trace

    if name is None:
        from dataclasses import asdict

        from replay.trace_text import public_view

        tell(lambda: {"traces": [asdict(each) for each in PUBLIC_TRACES]}, lambda: public_view(PUBLIC_TRACES))
        return
    from replay.late_bar import LateBar
    from replay.screen import unfolded

    trace = public_trace(name)
    with LateBar(None, trace.name, patience_s=0) as bar:
        path = fetch_trace(
            trace, cache or cache_folder(), sha256=sha256, from_file=from_file, progress=bar.reach
        )
    say(f"{trace.title}; licence {trace.licence}, cite its authors")
    about = {"name": trace.name, "title": trace.title, "licence": trace.licence}
    tell(lambda: about, lambda: [unfolded(str(path))], path)


@cli.command()
@click.argument("file", type=TRACE)
@click.option(
    "--out", "target", type=FILE, required=True, metavar="STATISTICS.json", help="Where to write them."
)
@click.option("--name", help="Name of the statistics; the trace's own by default.")
@click.option(
    "--arrivals", type=click.Choice(["auto", "profile", "on-off"]), default="auto", show_default=True
)
@click.option("--format", "form", metavar="NAME", help="The file's format, where its content does not tell.")
@click.option("--overwrite", is_flag=True, help="Replace STATISTICS.json if it exists.")
@output_options
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
    say(f"statistics of {shape.name} ({shape.arrivals.model} arrivals) are in {target}")
    tell(lambda: {"name": shape.name, "arrivals": shape.arrivals.model}, list, target)


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
@output_options
def synthesize(statistics: str, target: Path, seed: int, duration_s: float | None, overwrite: bool) -> None:
    """Draw a trace from statistics and write it as Parquet."""
    from traces.parquet import write_trace
    from traces.shape import read_shape
    from traces.synthesize import synthesize as draw
    from traces.whole_files import ensure_free

    ensure_free(target, overwrite=overwrite)
    shape, sha256 = read_shape(statistics)
    trace = draw(shape, sha256, seed=seed, duration_s=duration_s)
    write_trace(trace, target, overwrite=overwrite)
    _tell(trace, target)


@cli.command()
@click.argument("one", type=TRACE)
@click.argument("other", type=TRACE)
@output_options
def compare(one: Path, other: Path) -> None:
    """Print how alike the traces ONE and OTHER are: distances and ratios, ONE by OTHER."""
    from dataclasses import asdict

    from replay.trace_text import likeness_view
    from traces.comparison import compare as compare_traces
    from traces.reading import read_trace

    likeness = compare_traces(read_trace(one), read_trace(other))
    tell(lambda: asdict(likeness), lambda: likeness_view(likeness))


def _tell(trace: "Trace", target: Path) -> None:
    """Tell of a trace that was written."""
    say(f"{len(trace):,} requests of {trace.name} are in {target}")
    for note in trace.notes:
        say(f"note: {note}")
    tell(lambda: {"name": trace.name, "requests": len(trace), "notes": trace.notes}, list, target)
