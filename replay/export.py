"""`replay export`: a run in a format that other tools read."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from replay.output import ensure_no_json, output_options, tell, warn

if TYPE_CHECKING:
    from traces.record import Run

FORMAT_HELP = "vLLM's benchmark JSON, Prometheus' text, or OpenTelemetry's OTLP JSON."


@click.command(short_help="A run as vLLM's benchmark JSON, for Prometheus or OpenTelemetry.")
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "form",
    type=click.Choice(["vllm-bench", "prometheus", "otel"]),
    required=True,
    help=FORMAT_HELP,
)
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="[default: standard output]")
@click.option("--overwrite", is_flag=True, help="Replace FILE if it exists.")
@output_options
def cli(run: Path, form: str, out: Path | None, overwrite: bool) -> None:
    """Write the run in the folder RUN, simulated or measured, as other tools read it.

    docs/export.md says which field is what.
    """
    from traces.record_files import read_run
    from traces.whole_files import ensure_free, whole_file

    if out is None:
        ensure_no_json("without --out the export itself goes to standard output")
    else:
        ensure_free(out, overwrite=overwrite)
    record = read_run(run)
    text = {"vllm-bench": _vllm_bench, "prometheus": _prometheus, "otel": _otel}[form](record)
    for reason in record.meta.invalid_reasons:
        warn(f"the run is not valid: {reason}")
    if out is None:
        click.echo(text, nl=False)
        return
    with whole_file(out, overwrite=overwrite) as part:
        part.write_text(text, encoding="utf-8")
    tell(lambda: {"run": run, "format": form}, list, out)


def _vllm_bench(run: "Run") -> str:
    import json

    from replay.export_bench import bench_result

    return json.dumps(bench_result(run), allow_nan=False) + "\n"


def _prometheus(run: "Run") -> str:
    from replay.export_prometheus import prometheus_text

    return prometheus_text(run)


def _otel(run: "Run") -> str:
    import json

    from replay.export_otel import otlp_metrics

    return json.dumps(otlp_metrics(run), allow_nan=False) + "\n"
