"""What somebody chose in the page, as text: by what names, and which replay it comes to."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, get_args

from sim.options import FleetOptions, options_among
from sim.registry import members_of, options_of, policy_names, settings_of_policy
from sim.router_registry import ROUTERS
from sim.sweep import Case
from sim.table_files import load_table, shipped

OPTION = "set."
"""Before the name of a policy's option."""
TIMES = ("from_s", "to_s")
FLEET = ("replicas", "router")
MAY_BE_EMPTY = (*TIMES, "limit")
SHARED = ("policy", *MAY_BE_EMPTY, "stretch", *FLEET, "table", "length_prediction")
MOST_REPLICAS = 256
PREDICTIONS = ("none", "oracle", "noisy:cv=0.5")

Choice = Mapping[str, str]
"""Texts by the names of SHARED, and options of the policy as `set.NAME`; what is missing is as before."""


@dataclass(frozen=True, slots=True)
class Offer:
    """What may be chosen, beyond numbers: nothing else is looked up, read or run for a request.

    Attributes:
        policies: By name, and those that the command line named.
        tables: Those that ship, and those that the command line named.
    """

    policies: tuple[str, ...]
    tables: tuple[str, ...]

    def has_policy(self, name: str) -> bool:
        """Say whether a policy, or each of several in a row, may be looked up."""
        return name in self.policies or set(name.split("+")) <= set(policy_names())

    def ensure(self, case: Case) -> None:
        """Refuse a replay with what is not offered.

        Raises:
            ValueError: Its policy or its table is not.
        """
        if not self.has_policy(case.policy):
            raise ValueError(
                f"no policy {case.policy!r} is offered; there are {', '.join(self.policies)}; to offer one "
                "in a file, start the page with --policy FILE.py:CLASS"
            )
        if case.table not in self.tables:
            raise ValueError(
                f"no table {case.table!r} is offered; there are {', '.join(self.tables)}; to offer "
                "another one, start the page with --table FOLDER"
            )


def offer(policies: Sequence[str], tables: Sequence[str]) -> Offer:
    """Return what there is by name, and what the command line names.

    Raises:
        ValueError: There is no such policy or table.
    """
    for policy in policies:
        settings_of_policy(policy)
    for table in tables:
        load_table(table)
    return Offer(
        tuple(dict.fromkeys((*policy_names(), *policies))), tuple(dict.fromkeys((*shipped(), *tables)))
    )


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
    case = replace(
        _start(base, choice),
        table=choice.get("table", base.table),
        length_prediction=choice.get("length_prediction", base.length_prediction),
    )
    offered.ensure(case)
    case = replace(
        case,
        settings={**case.settings, **_settings(case.policy, choice)},
        engine=_engine(base, case.table),
        fleet={**base.fleet, **{name: choice[name] for name in FLEET if name in choice}},
        limit=_whole(choice["limit"]) if "limit" in choice else base.limit,
        stretch=_number("stretch", choice["stretch"]) if "stretch" in choice else base.stretch,
        from_s=_time("from_s", choice["from_s"]) if "from_s" in choice else base.from_s,
        to_s=_time("to_s", choice["to_s"]) if "to_s" in choice else base.to_s,
    )
    case.make_policy()
    case.engine_options()
    replicas = case.fleet_options().replicas
    if replicas > MOST_REPLICAS:
        raise ValueError(f"replicas must be at most {MOST_REPLICAS} here, got {replicas}; use replay run")
    return case


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
    shown = options_shown(_start(base, texts))
    return texts | emptied, {
        name: (kind, choice.get(OPTION + name, text)) for name, (kind, text) in shown.items()
    }


def texts_of(case: Case) -> dict[str, str]:
    """Return a replay's values by the names of SHARED; what is not given is empty."""
    fleet = {"replicas": "1", "router": next(iter(ROUTERS)), **case.fleet}
    values = {name: fleet[name] if name in FLEET else getattr(case, name) for name in SHARED}
    return {name: "" if value is None else as_text(value) for name, value in values.items()}


def kinds_of(policy: str) -> dict[str, Any]:
    """Return the types of a policy's options by name; of policies in a row, as `deadline.ttft_s`."""
    members = members_of(policy)
    return {
        option if len(members) == 1 else f"{member}.{option}": kind
        for member in members
        for option, kind in settings_of_policy(member).items()
    }


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


def as_text(value: object) -> str:
    """Return a value as options take it, with all its digits; a whole one has no point."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def is_free_text(kind: Any) -> bool:
    """Say whether an option of this type may be any text."""
    return str in (kind, *get_args(kind))


def words_of(choice: Choice, case: Case) -> str:
    """Return the name of a replay: its policy, and what was chosen."""
    changes = (f"{name.removeprefix(OPTION)}={text}" for name, text in choice.items() if name != "policy")
    return " ".join([case.policy, *changes])


def command_of(case: Case) -> Iterator[str]:
    """Yield the words of the command that replays the same."""
    yield from ("replay", "run", str(case.trace), "--policy", case.policy, "--table", case.table)
    for name, text in case.settings.items():
        if text != "none":
            yield from ("--set", f"{name}={text}")
    table = asdict(options_among(load_table(case.table).engine))
    for name, value in asdict(case.engine_options()).items():
        if value != table[name]:
            yield from ("--engine", f"{name}={as_text(value)}")
    fleet = case.fleet_options()
    for name, value in asdict(fleet).items():
        if value != getattr(FleetOptions(), name) and (name != "router" or fleet.replicas > 1):
            yield from (f"--{name}", as_text(value))
    for name in (*TIMES, "limit", "stretch", "length_prediction", "seed"):
        value = getattr(case, name)
        if value is not None and value != getattr(Case(case.trace), name):
            yield from (f"--{name.replace('_', '-')}", as_text(value))


def _start(base: Case, choice: Choice) -> Case:
    """Return the replay under the policy of `choice`, whose options are its own defaults if it is another."""
    policy = choice.get("policy", base.policy)
    return base if policy == base.policy else replace(base, policy=policy, settings={})


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


def _time(name: str, text: str) -> float | None:
    return None if text == "none" else _number(name, text)


def _whole(text: str) -> int | None:
    try:
        return None if text == "none" else int(text)
    except ValueError:
        raise ValueError(f"limit must be a whole number of requests, got {text!r}") from None


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{name} must be a number, got {text!r}") from None
