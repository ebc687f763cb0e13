"""What somebody chose in the page, as text: by what names, and which replay it comes to."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any, get_args

from replay.explore_offer import Offer
from sim.options import options_among
from sim.registry import members_of, settings_of_policy
from sim.settings import as_text, parse_settings
from sim.sweep import Case
from sim.table_files import load_table

OPTION = "set."
"""Before the name of a policy's option."""
FLEET = ("replicas", "router")
MAY_BE_EMPTY = ("from_s", "to_s", "limit")
SHARED = ("policy", *MAY_BE_EMPTY, "stretch", *FLEET, "table", "length_prediction")
MOST_REPLICAS = 256

Choice = Mapping[str, str]
"""Texts by the names of SHARED, and options of the policy as `set.NAME`; what is missing is as before."""


def chosen(base: Case, choice: Choice, offered: Offer) -> Case:
    """Return the replay that `choice` makes of `base`.

    Args:
        base: What holds where nothing was chosen.
        choice: As a request tells it.
        offered: What may be chosen.

    Raises:
        ValueError: There is no such choice, or its value is refused.
    """
    unknown = next((name for name in choice if name not in SHARED and not name.startswith(OPTION)), None)
    if unknown is not None:
        raise ValueError(f"nothing {unknown!r} to choose; there are {', '.join(SHARED)} and {OPTION}OPTION")
    given = {name: choice[name] for name in SHARED if name in choice and name not in FLEET}
    case = replace(with_policy(base, choice), **parse_settings(Case, given, "the page"))
    offered.ensure(case)
    case = replace(
        case,
        settings={**case.settings, **_settings(case.policy, choice)},
        engine=_engine(base, case.table),
        fleet={**base.fleet, **{name: choice[name] for name in FLEET if name in choice}},
    )
    case.make_policy()
    case.engine_options()
    replicas = case.fleet_options().replicas
    if replicas > MOST_REPLICAS:
        raise ValueError(f"replicas must be at most {MOST_REPLICAS} here, got {replicas}; use replay run")
    return case


def with_policy(base: Case, choice: Choice) -> Case:
    """Return the replay under the policy of `choice`, whose options are its own defaults if it is another."""
    policy = choice.get("policy", base.policy)
    return base if policy == base.policy else replace(base, policy=policy, settings={})


def kinds_of(policy: str) -> dict[str, Any]:
    """Return the types of a policy's options by name; of policies in a row, as `deadline.ttft_s`."""
    members = members_of(policy)
    return {
        option if len(members) == 1 else f"{member}.{option}": kind
        for member in members
        for option, kind in settings_of_policy(member).items()
    }


def is_free_text(kind: Any) -> bool:
    """Say whether an option of this type may be any text."""
    return str in (kind, *get_args(kind))


def words_of(choice: Choice, case: Case) -> str:
    """Return the name of a replay: its policy, and what was chosen."""
    changes = (f"{name.removeprefix(OPTION)}={text}" for name, text in choice.items() if name != "policy")
    return " ".join([case.policy, *changes])


def _settings(policy: str, choice: Choice) -> dict[str, str]:
    """Return the policy's options in `choice`."""
    given = {name.removeprefix(OPTION): text for name, text in choice.items() if name.startswith(OPTION)}
    kinds = kinds_of(policy)
    texts = {option.rpartition(".")[2] for option, kind in kinds.items() if is_free_text(kind)}
    for name in given:
        if name.rpartition(".")[2].replace("-", "_") in texts:
            raise ValueError(f"option {name} is a text and may name a file: only replay run takes it")
    return given


def _engine(base: Case, table: str) -> Mapping[str, str]:
    """Return the engine's options with another table: what `base` changed of its own table's."""
    if table == base.table:
        return base.engine
    before, now = asdict(options_among(load_table(base.table).engine)), asdict(base.engine_options())
    return {name: as_text(value) for name, value in now.items() if value != before[name]}
