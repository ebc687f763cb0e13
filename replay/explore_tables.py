"""The tables of the page as Dash components: those of the report, and a small one above the figures."""

from collections.abc import Sequence
from typing import Any

from dash import html

from replay.report_table import Cell, Line, fact_lines, guard_lines, summary_lines
from sim.report_figure import color_of
from sim.report_runs import Reported
from sim.slo import Slo

FEW = (
    "energy",
    "per request",
    *(f"{name} {level}" for name in ("TTFT", "TPOT", "E2E") for level in ("p50", "p99")),
)
"""What stands above the figures, by its label in the report."""


def numbers_of(runs: Sequence[Reported], slos: Sequence[Slo]) -> list[Any]:
    """Return what is wrong with the runs, and few numbers of each."""
    alarms = [
        html.Section(
            [html.H2(f"{one.name}: NOT VALID"), html.Ul([html.Li(text) for text in one.invalid_reasons])],
            className="alarm",
        )
        for one in runs
        if one.invalid_reasons
    ]
    lines = summary_lines(runs, slos)
    few = [line for line in lines if line.label in FEW or line.label in {slo.words for slo in slos}]
    return [*alarms, html.H2("In numbers"), _across(few, runs)]


def facts_of(runs: Sequence[Reported], slos: Sequence[Slo]) -> list[Any]:
    """Return all numbers of the runs, their notes, the guards' verdicts, and how they were made."""
    notes = [
        html.P([html.B(one.name), ": " + " ".join(one.run.meta.notes)], className="caption")
        for one in runs
        if one.run.meta.notes
    ]
    made = html.Details([html.Summary("All facts of run.json"), _table(fact_lines(runs), runs, "facts")])
    return [
        html.H2("All numbers"),
        _table(summary_lines(runs, slos), runs, "numbers"),
        *notes,
        html.H2("Guards"),
        _table(guard_lines(runs), runs, "guards"),
        html.H2("How the runs were made"),
        made,
    ]


def _table(lines: Sequence[Line], runs: Sequence[Reported], name: str) -> html.Div:
    """Return a table with a row a line and a column a run."""
    heads: list[Any] = [html.Th(_name(one, number), scope="col") for number, one in enumerate(runs)]
    rows: list[Any] = [
        html.Tr(
            [html.Th(line.label, scope="row"), *map(_cell, line.cells)],
            className="group" if line.begins_group else "",
        )
        for line in lines
    ]
    table = html.Table([html.Thead(html.Tr([html.Td(), *heads])), html.Tbody(rows)], className=name)
    return html.Div(table, className="wide")


def _across(lines: Sequence[Line], runs: Sequence[Reported]) -> html.Div:
    """Return a table with a column a line and a row a run."""
    heads: list[Any] = [html.Th(line.label, scope="col") for line in lines]
    rows: list[Any] = [
        html.Tr([html.Th(_name(one, number), scope="row"), *(_cell(line.cells[number]) for line in lines)])
        for number, one in enumerate(runs)
    ]
    table = html.Table([html.Thead(html.Tr([html.Td(), *heads])), html.Tbody(rows)], className="few")
    return html.Div(table, className="wide")


def _name(one: Reported, number: int) -> list[Any]:
    return [html.Span(className="swatch", style={"background": color_of(number)}), one.name]


def _cell(cell: Cell) -> Any:
    note: list[Any] = [" ", html.Small(cell.note)] if cell.note else []
    return html.Td([cell.text, *note], className=cell.mark)
