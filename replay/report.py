"""`replay report`: runs and sweeps as one page of HTML that opens offline."""

from pathlib import Path

import click

from replay.output import output_options, tell

SLO_HELP = "Limit to draw and judge, in seconds: ttft=2, or of a percentile: tpot_p99=0.05; repeatable."


@click.command(short_help="Runs and sweeps as one page of HTML that opens offline.")
@click.argument("folders", metavar="RUN|SWEEP...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--out", type=click.Path(path_type=Path), default="report.html", show_default=True, metavar="FILE"
)
@click.option("--slo", "slos", multiple=True, metavar="LATENCY=S", help=SLO_HELP)
@click.option("--overwrite", is_flag=True, help="Replace FILE if it exists.")
@output_options
def cli(folders: tuple[Path, ...], out: Path, slos: tuple[str, ...], overwrite: bool) -> None:
    """Draw runs side by side, and sweeps, given as folders, into one file of HTML that needs no network.

    The first run is what the others are compared with. docs/report.md tells what the page shows.
    """
    from replay.report_page import page_of
    from replay.screen import unfolded
    from sim.report_runs import read_reported
    from sim.report_sweep import SWEEP_FILE, read_sweep
    from sim.slo import parse_slos
    from traces.whole_files import ensure_free, whole_file

    ensure_free(out, overwrite=overwrite)
    limits = parse_slos(slos)
    sweeps = [folder for folder in folders if (folder / SWEEP_FILE).is_file()]
    runs = read_reported([folder for folder in folders if folder not in sweeps])
    workloads = [workload for folder in sweeps for workload in read_sweep(folder, limits)]
    page = page_of(runs, workloads, limits)
    with whole_file(out, overwrite=overwrite) as part:
        part.write_text(page, encoding="utf-8")
    size_bytes = len(page.encode())
    tell(lambda: {"bytes": size_bytes}, lambda: [unfolded(f"{out}: {size_bytes / 1e6:.1f} MB")], out)
