"""`replay doctor`: what this machine can do for a live replay."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from backends.machine import Finding


@click.command(short_help="What this machine can do for a live replay.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list instead.")
def cli(as_json: bool) -> None:
    """Look at what a live replay needs: GPUs and their meters, vLLM, libraries, meters of the host.

    Each line is ok, missing or a warning, with what to do. Reads only; nothing is changed. The exit code is 0
    whatever was found.
    """
    from backends.machine import examine

    findings = list(examine())
    if as_json:
        click.echo(json.dumps([asdict(finding) for finding in findings]))
        return
    width = max(len(finding.subject) for finding in findings)
    for finding in findings:
        click.echo(_line(finding, width))


def _line(finding: "Finding", width: int) -> str:
    advice = "" if finding.advice is None else f" -> {finding.advice}"
    return f"{finding.state:<8} {finding.subject:<{width}}  {finding.finding}{advice}"
