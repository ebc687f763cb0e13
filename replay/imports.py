"""`replay import`: what other tools measured, as runs."""

from pathlib import Path

import click

from replay.errors import ensure_valid
from replay.output import output_options

OUT_HELP = "Folder for the run's record; it must not exist."


@click.group(short_help="What another tool measured, as a run.")
def cli() -> None:
    """Make a run record of what another tool measured."""


@cli.command("vllm-bench", short_help="A result that `vllm bench serve` saved in detail.")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, metavar="RUN", help=OUT_HELP)
@output_options
def vllm_bench(file: Path, out: Path) -> None:
    """Import FILE, which `vllm bench serve --save-result --save-detailed` wrote, as a measured run.

    The run has latencies and no energy. docs/export.md says what is read from which field.
    """
    from replay.bench_result import read_bench
    from replay.keep import make_runs
    from replay.run import print_summary
    from sim.summary import summarize
    from traces.record_files import ensure_record_free, write_run

    make_runs(out)
    ensure_record_free(out)
    run = read_bench(file)
    write_run(run, out)
    print_summary(run.meta, summarize(run), run.power, out)
    ensure_valid(run.meta.invalid_reasons)
