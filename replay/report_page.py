"""A report as one page of HTML that needs nothing else: Plotly draws, Jinja fills in and escapes."""

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from replay.report_sweep_table import sweep_headings, sweep_lines, sweep_note
from replay.report_table import Line, fact_lines, guard_lines, summary_lines
from sim.report_figure import Figure, color_of
from sim.report_figures import figures_of
from sim.report_runs import Reported
from sim.report_sweep import Workload, sweep_figure
from sim.slo import Slo

HERE = Path(__file__).parent
MISSING_EXTRA = "reports need plotly and jinja2, which are not installed; pip install 'replay[report]'"


@dataclass(frozen=True, slots=True)
class Column:
    """A run in the page: its name, its colour, its notes, and why it is not valid."""

    name: str
    color: str
    notes: tuple[str, ...]
    invalid_reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SweepPart:
    """A workload of a sweep in the page: its figure and its table, and what that leaves out."""

    figure: Figure
    headings: tuple[str, ...]
    lines: list[Line]
    note: str


def page_of(runs: Sequence[Reported], workloads: Sequence[Workload], slos: Sequence[Slo]) -> str:
    """Return the page with `runs` and the `workloads` of sweeps, the same bytes for the same records.

    Raises:
        ValueError: Plotly or Jinja is missing.
    """
    try:
        from jinja2 import Environment, StrictUndefined
        from markupsafe import Markup
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise ValueError(MISSING_EXTRA) from error
    plotly, script, style = get_plotlyjs(), _part("js"), _part("css")
    figures = figures_of(runs, slos)
    sweeps = [_sweep(workload, number) for number, workload in enumerate(workloads)]
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    page: str = environment.from_string(_part("html")).render(
        title=title_of(runs, workloads),
        subtitle=subtitle_of(runs),
        runs=[
            Column(one.name, color_of(number), one.run.meta.notes, one.invalid_reasons)
            for number, one in enumerate(runs)
        ],
        figures=figures,
        sweeps=sweeps,
        **_tables(runs, slos),
        version=_version(),
        style=Markup(style),
        plotly=Markup(plotly),
        script=Markup(script),
        script_hashes=" ".join(map(script_hash, (plotly, script))),
        figures_json=Markup(figures_json([*figures, *(sweep.figure for sweep in sweeps)])),
    )
    return page


def _tables(runs: Sequence[Reported], slos: Sequence[Slo]) -> dict[str, list[Line]]:
    if not runs:
        return {}
    return {"summary": summary_lines(runs, slos), "guards": guard_lines(runs), "facts": fact_lines(runs)}


def _sweep(workload: Workload, number: int) -> SweepPart:
    figure = sweep_figure(workload, f"sweep{number}")
    return SweepPart(figure, sweep_headings(), sweep_lines(workload), sweep_note(workload))


def title_of(runs: Sequence[Reported], workloads: Sequence[Workload]) -> str:
    """Return what a page is about."""
    if not runs:
        return f"Sweep of {', '.join(workload.name for workload in workloads)}"
    traces = dict.fromkeys(one.run.meta.trace_name for one in runs)
    names = " against ".join(one.name for one in runs) if len(runs) < 4 else f"{len(runs)} runs"
    return f"{', '.join(traces)}: {names}"


def subtitle_of(runs: Sequence[Reported]) -> str:
    """Return how many requests the runs have, on which GPUs, by which tables."""
    metas = [one.run.meta for one in runs]
    facts = [
        *(f"{meta.requests:,} requests" for meta in metas),
        *(f"{meta.gpus} x {meta.gpu}" if meta.gpus > 1 else meta.gpu for meta in metas if meta.gpu),
        *(f"table {meta.table}" for meta in metas if meta.table),
    ]
    return ", ".join(dict.fromkeys(facts))


def figures_json(figures: Sequence[Figure]) -> str:
    """Return the figures as JSON that may stand in a page: Plotly checks them, and escapes every `<`."""
    from plotly.graph_objects import Figure as Checked

    parts = []
    for figure in figures:
        checked: Any = Checked({"data": figure.data, "layout": {**figure.layout, "template": {}}})
        parts.append(f'"{figure.key}":{checked.to_json()}')
    return "{" + ",".join(parts) + "}"


def _part(ending: str) -> str:
    return (HERE / f"report_page.{ending}").read_text(encoding="utf-8")


def script_hash(script: str) -> str:
    """Return what a content policy calls a script that may run."""
    return f"'sha256-{b64encode(sha256(script.encode()).digest()).decode()}'"


def _version() -> str:
    try:
        return version("replay")
    except PackageNotFoundError:
        return "from a checkout"
