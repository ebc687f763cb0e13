"""The page as Dash components: controls, tables, and places for the figures."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, get_args, get_origin

from dash import dcc, html

from replay.explore_choice import FLEET, MAY_BE_EMPTY
from replay.explore_offer import Offer
from sim.router_registry import ROUTERS

FIGURES = ("split", "time", "phases", "replicas", "latency", "tokens")
"""Keys of all figures that `sim.report_figures.figures_of` makes."""
GRAPH: Any = {"displaylogo": False, "modeBarButtons": [["toImage", "zoom2d", "pan2d", "resetScale2d"]]}
LABELS = {
    "policy": "policy",
    "from_s": "window from, s",
    "to_s": "window to, s",
    "limit": "first N requests",
    "stretch": "stretch of arrivals",
    "replicas": "replicas",
    "router": "router",
    "table": "cost table",
    "length_prediction": "length prediction",
}
HINTS = {
    "from_s": "the start",
    "to_s": "the end",
    "limit": "all",
    "stretch": "0.5 is twice as fast",
    "router": "round-robin, pack:most=8, ...",
}
SUGGESTED = {"router": tuple(ROUTERS), "length_prediction": ("none", "oracle", "noisy:cv=0.5")}


def layout_of(title: str, sweeps: dict[str, Any], offered: Offer) -> html.Div:
    """Return the page before anything is filled in.

    Args:
        title: Its heading.
        sweeps: Figures of a sweep by key, as the page's script takes them.
        offered: What may be chosen.
    """
    return html.Div(
        [
            dcc.Location(id="url", refresh=False),
            dcc.Store(id="sweeps", data=sweeps),
            dcc.Store(id="pictures"),
            dcc.Store(id="scheme"),
            html.Header([html.H1(title), html.P(id="subtitle", className="subtitle")]),
            html.Main(
                [
                    html.Aside(list(_controls(offered)), id="controls"),
                    html.Div(
                        [
                            *(_place(key) for key in sweeps),
                            html.P(id="notice", role="status"),
                            dcc.Loading(html.Div(id="numbers"), delay_show=300),
                            *(_place(key) for key in FIGURES),
                            html.Div(id="facts"),
                        ]
                    ),
                ]
            ),
        ]
    )


def option_controls(shown: Mapping[str, tuple[Any, str]]) -> list[html.Label]:
    """Return a control for each option of a policy.

    Args:
        shown: Type and value by name.
    """
    return [
        _labelled(name, _field({"type": "option", "name": name}, text, _choices(kind)))
        for name, (kind, text) in shown.items()
    ]


def control_of(name: str) -> str:
    """Return the id of the control of one of SHARED."""
    return f"choose-{name}"


def _controls(offered: Offer) -> Iterator[Any]:
    yield _labelled(LABELS["policy"], _field(control_of("policy"), choices=offered.policies))
    yield html.Div(id="options")
    for name in (*MAY_BE_EMPTY, "stretch", *FLEET):
        yield _labelled(
            LABELS[name], _field(control_of(name), hint=HINTS.get(name), suggested=name in SUGGESTED)
        )
    yield _labelled(LABELS["table"], _field(control_of("table"), choices=offered.tables))
    yield _labelled(LABELS["length_prediction"], _field(control_of("length_prediction"), suggested=True))
    yield html.Button("Simulate", id="simulate", disabled=True)
    for name, texts in SUGGESTED.items():
        options = [html.Option(value=text) for text in texts]
        yield html.Datalist(options, id=f"{control_of(name)}-suggested")
    yield html.Details([html.Summary("As a command"), html.Code(id="command")])


def _labelled(label: str, field: Any) -> html.Label:
    return html.Label([html.Span(label), field])


def _field(
    name: str | dict[str, str],
    text: str | None = None,
    choices: Sequence[str] = (),
    *,
    hint: str | None = None,
    suggested: bool = False,
) -> Any:
    """Return a control whose value is text; what is typed counts when it is left, or at Enter."""
    if choices:
        return dcc.Dropdown(
            id=name, options=list(choices), value=text, clearable=False, searchable=False, maxHeight=480
        )
    others = f"{name}-suggested" if suggested else None
    return dcc.Input(id=name, type="text", debounce=True, value=text, placeholder=hint, list=others)


def _choices(kind: Any) -> tuple[str, ...]:
    if kind is bool:
        return ("true", "false")
    return tuple(map(str, get_args(kind))) if get_origin(kind) is Literal else ()


def _place(key: str) -> html.Section:
    """Return the place of a figure, which the page's script fills in."""
    graph = dcc.Graph(id=key, config=GRAPH, responsive=True)
    return html.Section(
        [html.H2(id=f"{key}-title"), graph, html.P(id=f"{key}-caption", className="caption")],
        id=f"{key}-place",
        hidden=True,
    )
