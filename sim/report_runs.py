"""The runs of a report: what their records hold, and names that tell them apart."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sim.report_guards import Judgement, invalid_reasons, judge
from sim.summary import Summary, summarize
from traces.record import Meta, Run
from traces.record_files import META_FILE, read_attachment, read_run

LONGEST_NAME = 60


@dataclass(frozen=True, slots=True, eq=False)
class Reported:
    """A run in a report.

    Attributes:
        name: Tells it from the others of the report.
        run: The run.
        facts: Its run.json.
        steps: Columns of its engine's steps, None if the record has none.
        summary: Its numbers.
        judgements: What the guards say.
    """

    name: str
    run: Run
    facts: dict[str, Any]
    steps: dict[str, Any] | None
    summary: Summary
    judgements: tuple[Judgement, ...]

    @property
    def invalid_reasons(self) -> tuple[str, ...]:
        """Why the run is not valid, by its record or by the guards checked again; nothing if it is."""
        return invalid_reasons(self.judgements)


def read_reported(folders: Sequence[Path]) -> tuple[Reported, ...]:
    """Return the runs in `folders`.

    Raises:
        OSError: A record cannot be read.
        ValueError: A record is damaged, or a run took no time, so that nothing can be drawn.
    """
    runs = [read_run(folder) for folder in folders]
    for folder, run in zip(folders, runs, strict=True):
        if not run.meta.makespan_s > 0:
            raise ValueError(f"{folder}: its makespan is {run.meta.makespan_s} s; there is nothing to draw")
    names = names_of([run.meta for run in runs], [folder.resolve() for folder in folders])
    return tuple(
        Reported(
            name=name,
            run=run,
            facts=json.loads((folder / META_FILE).read_text()),
            steps=read_attachment(folder, "steps"),
            summary=summarize(run),
            judgements=judge(run),
        )
        for name, folder, run in zip(names, folders, runs, strict=True)
    )


def names_of(metas: Sequence[Meta], folders: Sequence[Path]) -> list[str]:
    """Return short names that tell runs apart: by policy, kind, options or trace, else by folder."""
    ways = (
        [meta.policy for meta in metas],
        [f"{meta.policy}, {meta.kind}" for meta in metas],
        [f"{meta.policy}{_differing_options(meta, metas)}" for meta in metas],
        [f"{meta.policy}{_differing_options(meta, metas)}, {meta.kind}" for meta in metas],
        [f"{meta.trace_name}, {meta.policy}" for meta in metas],
        [f"{meta.trace_name}, {meta.policy}, {meta.kind}" for meta in metas],
        [folder.name for folder in folders],
        ["/".join(folder.parts[-2:]) for folder in folders],
    )
    short = ([shortened(name) for name in names] for names in ways)
    numbered = [shortened(f"{number}: {folder.name}") for number, folder in enumerate(folders, 1)]
    return next((names for names in short if len(set(names)) == len(names)), numbered)


def _differing_options(meta: Meta, metas: Sequence[Meta]) -> str:
    differing = [
        f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}"
        for name, value in meta.policy_options.items()
        if any(other.policy_options.get(name) != value for other in metas if other.policy == meta.policy)
    ]
    return f" ({', '.join(differing)})" if differing else ""


def shortened(name: str) -> str:
    """Return a name that is not too long for a legend."""
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"
