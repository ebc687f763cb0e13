"""`replay report`: runs as one page of HTML that opens offline."""

from pathlib import Path

import click

SLO_HELP = "Limit to draw and judge, in seconds: ttft=2, or of a percentile: tpot_p99=0.05; repeatable."


@click.command(short_help="Runs as one page of HTML that opens offline.")
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--out", type=click.Path(path_type=Path), default="report.html", show_default=True, metavar="FILE"
)
@click.option("--slo", "slos", multiple=True, metavar="LATENCY=S", help=SLO_HELP)
@click.option("--overwrite", is_flag=True, help="Replace FILE if it exists.")
def cli(runs: tuple[Path, ...], out: Path, slos: tuple[str, ...], overwrite: bool) -> None:
    """Draw the runs in the folders RUN, side by side, into one file of HTML that needs no network.

    The first run is what the others are compared with. docs/report.md tells what the page shows.
    """
    from replay.report_page import page_of
    from sim.report_curves import over_time
    from sim.report_energy import energy_by_tokens, energy_split
    from sim.report_latency import latencies
    from sim.report_phases import power_by_phase
    from sim.report_replicas import replica_use
    from sim.report_runs import read_reported
    from sim.report_slo import parse_slos
    from sim.report_time import series, stretch_s
    from traces.whole_files import ensure_free, whole_file

    ensure_free(out, overwrite=overwrite)
    limits, reported = parse_slos(slos), read_reported(runs)
    width_s = stretch_s([one.run.meta.makespan_s for one in reported])
    curves = [series(one.run, one.steps, width_s) for one in reported]
    figures = (
        energy_split(reported),
        over_time(reported, curves, width_s),
        power_by_phase(reported, curves, width_s),
        replica_use(reported),
        latencies(reported, limits),
        energy_by_tokens(reported),
    )
    page = page_of(reported, [figure for figure in figures if figure is not None], limits)
    with whole_file(out, overwrite=overwrite) as part:
        part.write_text(page, encoding="utf-8")
    click.echo(f"{out}: {len(page) / 1e6:.1f} MB")
