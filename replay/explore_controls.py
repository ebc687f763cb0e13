"""What stands in the controls of the page, as text, and what it says."""

from typing import Any

from replay.explore_choice import (
    FLEET,
    MAY_BE_EMPTY,
    OPTION,
    SHARED,
    Choice,
    is_free_text,
    kinds_of,
    with_policy,
)
from replay.explore_offer import Offer
from sim.registry import options_of
from sim.router_registry import ROUTERS
from sim.settings import as_text
from sim.sweep import Case


def controls_of(
    base: Case, choice: Choice, offered: Offer
) -> tuple[dict[str, str], dict[str, tuple[Any, str]]]:
    """Return what stands in the controls: texts by the names of SHARED, and of options type and text.

    Args:
        base: What holds where nothing was chosen.
        choice: As a request tells it; a value that is refused stands there, too, to be mended.
        offered: What may be chosen; of a policy or a table that is not, that of `base` stands there.
    """
    before = texts_of(base)
    texts = {name: choice.get(name, text) for name, text in before.items()}
    if not offered.has_policy(texts["policy"]):
        texts["policy"] = before["policy"]
    if texts["table"] not in offered.tables:
        texts["table"] = before["table"]
    emptied = {name: "" for name in MAY_BE_EMPTY if texts[name] == "none"}
    shown = options_shown(with_policy(base, texts))
    return texts | emptied, {
        name: (kind, choice.get(OPTION + name, text)) for name, (kind, text) in shown.items()
    }


def texts_of(case: Case) -> dict[str, str]:
    """Return a replay's values by the names of SHARED; what is not given is empty."""
    fleet = {"replicas": "1", "router": next(iter(ROUTERS)), **case.fleet}
    values = {name: fleet[name] if name in FLEET else getattr(case, name) for name in SHARED}
    return {name: "" if value is None else as_text(value) for name, value in values.items()}


def options_shown(case: Case) -> dict[str, tuple[Any, str]]:
    """Return the policy's options that the page can set, by name, with type and value; empty if not known.

    Those that are free text are left out: they name files, which a request may not.
    """
    try:
        values = options_of(case.make_policy())
    except (ValueError, OSError):  # it lacks an option that the page cannot set
        values = {}
    return {
        name: (kind, as_text(values[name]) if name in values else case.settings.get(name, ""))
        for name, kind in kinds_of(case.policy).items()
        if not is_free_text(kind)
    }


def choice_of(base: Case, shared: Choice, options: Choice, offered: Offer) -> dict[str, str]:
    """Return what the controls say beyond `base`.

    Args:
        base: What holds where nothing was chosen.
        shared: What stands in the controls of SHARED.
        options: What stands in those of the policy's options, perhaps of the policy before.
        offered: What may be chosen.
    """
    before = texts_of(base)
    choice = {name: text or "none" for name in SHARED if (text := shared[name].strip()) != before[name]}
    _, shown = controls_of(base, choice, offered)
    own = {name: text.strip() for name, text in options.items() if name in shown}
    return choice | {OPTION + name: text for name, text in own.items() if text not in ("", shown[name][1])}
