"""Settings given as text: the fields of a dataclass, parsed by their annotations."""

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

TRUTH = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


def settings_of(owner: Any) -> dict[str, Any]:
    """Return the fields that can be set, by name with their types; none if `owner` is not a dataclass."""
    if not is_dataclass(owner):
        return {}
    types = get_type_hints(owner)
    return {field.name: types[field.name] for field in fields(owner) if field.init and field.name[0] != "_"}


def parse_settings(owner: Any, given: Mapping[str, str], what: str) -> dict[str, Any]:
    """Return the values of `given`, each as its field's type.

    Args:
        owner: The dataclass whose fields they are.
        given: Names and values as typed; `window-s` is `window_s`.
        what: Whom errors name, such as `policy batch-window`.

    Raises:
        ValueError: A name is no field, or a value is not of the field's type.
    """
    types = settings_of(owner)
    values = {}
    for typed_name, text in given.items():
        name = typed_name.replace("-", "_")
        if name not in types:
            there = f"it has {', '.join(types)}" if types else "it has none"
            raise ValueError(f"{what} has no option {typed_name!r}; {there}")
        values[name] = _parse(types[name], text, f"{what}: {name}")
    return values


def make_named(text: str, classes: Mapping[str, type[Any]], what: str, others: Sequence[str] = ()) -> Any:
    """Return a new object of `name` or `name:option=value:option=value`.

    Args:
        text: Name and options.
        classes: Dataclasses by name, their options the fields.
        what: What it is, for errors and as an option of the command: `router`.
        others: Further names that exist, for errors.

    Raises:
        ValueError: There is no such name or option, an option is missing, or a value is refused.
    """
    name, *pairs = text.split(":")
    if name not in classes:
        raise ValueError(f"no {what} {name!r}; there are {', '.join([*others, *classes])}")
    given = dict(split_pair(pair, f"--{what} {name}:") for pair in pairs)
    try:
        return classes[name](**parse_settings(classes[name], given, f"{what} {name}"))
    except TypeError:
        missing = ", ".join(option for option in settings_of(classes[name]) if option not in given)
        raise ValueError(f"{what} {name} lacks an option among {missing}; give {name}:OPTION=VALUE") from None


def full_name(text: str, made: Any) -> str:
    """Return `text` with all options of the object that it has made, also those left out, for a record."""
    options = [f"{option}={as_text(getattr(made, option))}" for option in settings_of(type(made))]
    return ":".join([text.split(":")[0], *options])


def as_text(value: object) -> str:
    """Return a value as options take it, with all its digits; a whole one has no point."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).lower() if isinstance(value, bool) or value is None else str(value)


def split_pair(pair: str, option: str) -> tuple[str, str]:
    """Return name and value of `name=value`.

    Raises:
        ValueError: There is no `=` or no name.
    """
    name, equals, value = pair.partition("=")
    if not equals or not name:
        raise ValueError(f"{option} takes NAME=VALUE, got {pair!r}")
    return name.strip(), value.strip()


def _parse(kind: Any, text: str, what: str) -> Any:
    kinds = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    if NoneType in kinds and text.lower() in ("none", "null"):
        return None
    kind, *others = (one for one in kinds if one is not NoneType)
    if get_origin(kind) is Literal and not others:
        return _parse_choice(get_args(kind), text, what)
    if kind is bool and not others:
        if text.lower() not in TRUTH:
            raise ValueError(f"{what} must be true or false, got {text!r}")
        return TRUTH[text.lower()]
    if kind in (int, float, str) and not others:
        try:
            return kind(text)
        except ValueError:
            noun = "a whole number" if kind is int else "a number"
            raise ValueError(f"{what} must be {noun}, got {text!r}") from None
    raise ValueError(f"{what} cannot be given as text, being {kinds}; set it in code")


def _parse_choice(choices: tuple[Any, ...], text: str, what: str) -> Any:
    for choice in choices:
        if str(choice) == text:
            return choice
    raise ValueError(f"{what} must be one of {', '.join(map(str, choices))}, got {text!r}")
