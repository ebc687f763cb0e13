"""The page as a Dash app: its address says what is chosen, and all that it shows follows from the address."""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from shlex import join
from typing import Any
from urllib.parse import parse_qsl, urlencode

from dash import ALL, ClientsideFunction, Dash, Input, Output, State, ctx, no_update, set_props

from replay.errors import one_line
from replay.explore_choice import SHARED
from replay.explore_command import command_of
from replay.explore_controls import choice_of, controls_of
from replay.explore_page import FIGURES, control_of, layout_of, option_controls
from replay.explore_runs import Picture, Runs
from replay.explore_subject import Subject
from replay.explore_tables import facts_of, numbers_of
from replay.report_page import figures_json, subtitle_of
from sim.report_figure import Figure
from sim.report_figures import figures_of

HERE = Path(__file__).parent
CELL = "cell"
"""In the address: which cell of a sweep is looked at."""


def make_app(subject: Subject) -> Dash:
    """Return the app; it neither listens nor opens anything."""
    app = Dash(
        "replay",
        title="replay explore",
        update_title="",
        index_string=_frame(),
        assets_folder=str(HERE / "no-assets"),
        serve_locally=True,
        enable_mcp=False,
        add_log_handler=False,
        on_error=tell_fault,
    )
    app.layout = layout_of(subject.title, pictures_of(subject.sweeps), subject.offered)
    runs = Runs(subject.offered)
    app.callback(
        output=(
            Output("url", "search"),
            Output("options", "children"),
            Output(control_of("policy"), "options"),
            [Output(control_of(name), "value") for name in SHARED],
        ),
        inputs={
            "search": Input("url", "search"),
            "texts": [Input(control_of(name), "value") for name in SHARED],
            "option_texts": Input({"type": "option", "name": ALL}, "value"),
            "option_ids": State({"type": "option", "name": ALL}, "id"),
            "clicks": [Input(key, "clickData") for key in subject.keys],
        },
    )(lambda **given: settle(subject, ctx.triggered_id, **given))
    app.callback(
        output={
            "pictures": Output("pictures", "data"),
            "subtitle": Output("subtitle", "children"),
            "numbers": Output("numbers", "children"),
            "facts": Output("facts", "children"),
            "notice": Output("notice", "children"),
            "waits_not": Output("simulate", "disabled"),
            "command": Output("command", "children"),
            "has_no_controls": Output("controls", "hidden"),
        },
        inputs={"search": Input("url", "search"), "pressed": Input("simulate", "n_clicks")},
    )(lambda search, **_: show(subject, runs, search, is_asked=ctx.triggered_id == "simulate"))
    for key in (*subject.keys, *FIGURES):
        app.clientside_callback(  # type: ignore[no-untyped-call]
            ClientsideFunction("explore", "draw"),
            Output(key, "figure"),
            Output(key, "style"),
            Output(f"{key}-title", "children"),
            Output(f"{key}-caption", "children"),
            Output(f"{key}-place", "hidden"),
            Input("sweeps" if key in subject.keys else "pictures", "data"),
            Input(key, "relayoutData"),
            Input("scheme", "data"),
            State(key, "id"),
        )
    return app


def settle(
    subject: Subject,
    trigger: str | Mapping[str, str] | None,
    search: str | None,
    texts: Sequence[str | None],
    option_texts: Sequence[str | None],
    option_ids: Sequence[Mapping[str, str]],
    clicks: Sequence[Any],
) -> tuple[Any, Any, Any, list[Any]]:
    """Return the address, the controls of the policy's options, the menu of policies, and SHARED's texts.

    Args:
        subject: What the page is about.
        trigger: What changed, None when the page opens.
        search: The address.
        texts: What stands in the controls of SHARED.
        option_texts, option_ids: What stands in those of the policy's options, and whose they are.
        clicks: On the figures of a sweep, the last on each.
    """
    unchanged = [no_update] * len(SHARED)
    cell, choice = _parsed(search)
    if trigger in subject.keys:
        cell, choice = subject.clicked(str(trigger), clicks[subject.keys.index(str(trigger))]), {}
    case = subject.case(cell)
    if case is None:
        return no_update, [], no_update, unchanged
    is_opened = trigger in (None, "url")
    if not is_opened and trigger not in subject.keys:
        shared = {name: text or "" for name, text in zip(SHARED, texts, strict=True)}
        options = {one["name"]: text or "" for one, text in zip(option_ids, option_texts, strict=True)}
        is_policy = trigger == control_of("policy")
        choice = choice_of(case, shared, {} if is_policy else options, subject.offered)
        if not is_policy:
            return _address(cell, choice), no_update, no_update, unchanged
    shared, shown = controls_of(case, choice, subject.offered)
    menu = list(dict.fromkeys((*subject.offered.policies, shared["policy"])))
    address = no_update if is_opened else _address(cell, choice)
    return address, option_controls(shown), menu, [shared[name] for name in SHARED]


def show(subject: Subject, runs: Runs, search: str | None, *, is_asked: bool) -> dict[str, Any]:
    """Return all that the page shows of an address, by what it is.

    Args:
        subject: What the page is about.
        runs: Simulates.
        search: The address.
        is_asked: Whether somebody pressed the button.
    """
    cell, choice = _parsed(search)
    try:
        picture = runs.picture(subject.base(cell), choice, is_asked=is_asked)
    except ValueError as error:
        picture = Picture(notice=one_line(error))
    return {
        "pictures": pictures_of(figures_of(picture.runs, subject.slos)),
        "subtitle": subtitle_of(picture.runs),
        "numbers": numbers_of(picture.runs, subject.slos) if picture.runs else [],
        "facts": facts_of(picture.runs, subject.slos) if picture.runs else [],
        "notice": picture.notice,
        "waits_not": not picture.waits,
        "command": "" if picture.case is None else join(command_of(picture.case)),
        "has_no_controls": not picture.is_open,
    }


def tell_fault(error: Exception) -> None:
    """Tell of a fault of ours in the page, with its traceback on the terminal; the server goes on."""
    logging.getLogger(__name__).error("a fault of replay, not of what was chosen", exc_info=error)
    set_props("notice", {"children": f"a fault of replay: {one_line(error)}; the terminal tells more"})


def pictures_of(figures: Sequence[Figure]) -> dict[str, dict[str, Any]]:
    """Return figures by key, as the page's script takes them."""
    plain = json.loads(figures_json(figures))
    return {
        one.key: {
            "figure": plain[one.key],
            "title": one.title,
            "caption": one.caption,
            "height_px": one.height_px,
        }
        for one in figures
    }


def page_script() -> str:
    """Return what runs in the page: the report's script, and the page's own behind it."""
    return _part("report_page.js") + _part("explore_page.js")


def _frame() -> str:
    """Return the page that Dash fills."""
    style = _part("report_page.css") + _part("explore_page.css")
    return _part("explore_page.html").replace("STYLE", style).replace("SCRIPT", page_script())


def _part(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")


def _parsed(search: str | None) -> tuple[str | None, dict[str, str]]:
    """Return the cell and the choice of an address."""
    choice = dict(parse_qsl((search or "").removeprefix("?"), keep_blank_values=True))
    return choice.pop(CELL, None), choice


def _address(cell: str | None, choice: Mapping[str, str]) -> str:
    values = {**({} if cell is None else {CELL: cell}), **choice}
    return f"?{urlencode(values)}" if values else ""
