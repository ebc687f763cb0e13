"""`replay doctor`: what this machine can do for a live replay."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from replay.output import output_options, tell

if TYPE_CHECKING:
    from backends.machine import Finding
    from replay.screen import View


@click.command(short_help="What this machine can do for a live replay.")
@output_options
def cli() -> None:
    """Look at what a live replay needs: GPUs and their meters, vLLM, libraries, meters of the host.

    Each line is ok, missing or a warning, with what to do. Reads only; nothing is changed. The exit code is 0
    whatever was found.
    """
    from backends.machine import examine

    findings = list(examine())
    tell(lambda: {"findings": [asdict(finding) for finding in findings]}, lambda: _view(findings))


def _view(findings: "Sequence[Finding]") -> "View":
    from replay.screen import bad, table

    rows = []
    for finding in findings:
        advice = "" if finding.advice is None else f" -> {finding.advice}"
        state = finding.state if finding.state == "ok" else bad(finding.state)
        rows.append((state, finding.subject, finding.finding + advice))
    return [table(rows, "lll")]
