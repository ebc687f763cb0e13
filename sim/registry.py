"""Policies by name: the shipped ones, those of installed packages, and any class in a file."""

import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping
from dataclasses import is_dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from sim.chain import Chain
from sim.policy import Policy
from sim.settings import parse_settings, settings_of

SHIPPED = {
    "batch-window": "sim.batch_window:BatchWindow",
    "carbon-aware": "sim.carbon_aware:CarbonAware",
    "concurrency": "sim.concurrency:Concurrency",
    "deadline": "sim.deadline:Deadline",
    "immediate": "sim.immediate:Immediate",
    "offline": "sim.offline:Offline",
    "offline-sorted": "sim.offline_sorted:OfflineSorted",
    "pace": "sim.pace:Pace",
    "shortest-first": "sim.shortest_first:ShortestFirst",
    "size-bins": "sim.size_bins:SizeBins",
    "static-batch": "sim.static_batch:StaticBatch",
    "valley-fill": "sim.valley_fill:ValleyFill",
}
ENTRY_POINTS = "replay.policies"


def policy_names() -> list[str]:
    """Return the names that `--policy` takes, sorted: shipped policies and entry points."""
    return sorted({*SHIPPED, *(found.name for found in entry_points(group=ENTRY_POINTS))})


def make_policy(name: str, options: Mapping[str, str], seed: int = 0) -> Policy:
    """Return a fresh policy.

    Args:
        name: A shipped policy, an entry point of the group `replay.policies`, or `file.py:Class`; or several,
            joined by `+`, each behind the one before.
        options: The policy's fields as text, as `--set` gives them; of several policies, an option is that of
            all that have it, or of one: `deadline.ttft_s`.
        seed: Value of the policy's field `seed`, if it has one that `options` does not set.

    Raises:
        ValueError: There is no such policy or field, or a value is refused.
    """
    members = members_of(name)
    if len(members) > 1:
        return _make_chain(members, options, seed)
    policy_class = _find_class(name)
    values = parse_settings(policy_class, options, f"policy {name}")
    if "seed" in settings_of(policy_class):
        values.setdefault("seed", seed)
    try:
        policy: Policy = policy_class(**values)
    except TypeError as error:
        raise ValueError(f"policy {name}: {error}; give each field a default, or a value by --set") from error
    return policy


def members_of(name: str) -> list[str]:
    """Return the names that `+` joins; a file whose path has a `+` is one."""
    path, _, class_name = name.rpartition(":")
    return [name] if "+" not in class_name and Path(path).is_file() else name.split("+")


def settings_of_policy(name: str) -> dict[str, Any]:
    """Return the options that a policy has, by name with their types; of several policies, those of all.

    Raises:
        ValueError: There is no such policy.
    """
    kinds: dict[str, Any] = {}
    for member in members_of(name):
        kinds |= settings_of(_find_class(member))
    return kinds


def options_of(policy: Policy) -> dict[str, Any]:
    """Return the policy's settings by name, as a run record keeps them; of several, `deadline.ttft_s`."""
    if isinstance(policy, Chain):
        return {
            name if isinstance(member, Chain) else f"{member_name}.{name}": value
            for member_name, member in zip(policy.names, policy.policies, strict=True)
            for name, value in options_of(member).items()
        }
    if not is_dataclass(policy) or isinstance(policy, type):
        return {}
    return {name: getattr(policy, name) for name in settings_of(type(policy))}


def name_of(policy: Policy) -> str:
    """Return the shipped policy's name, or that of the class."""
    if isinstance(policy, Chain):
        return "+".join(policy.names)
    where = f"{type(policy).__module__}:{type(policy).__name__}"
    return next((name for name, address in SHIPPED.items() if address == where), type(policy).__name__)


def _make_chain(members: list[str], options: Mapping[str, str], seed: int) -> Policy:
    if len(set(members)) < len(members):
        raise ValueError(f"policy {'+'.join(members)}: each policy can stand in a chain once")
    given: dict[str, dict[str, str]] = {member: {} for member in members}
    for typed, text in options.items():
        only, _, option = typed.rpartition(".")
        owners = [only] if only else [m for m in members if option.replace("-", "_") in settings_of_policy(m)]
        if not owners or owners[0] not in given:
            there = ", ".join(f"{m}.{name}" for m in members for name in settings_of_policy(m))
            raise ValueError(f"policy {'+'.join(members)} has no option {typed!r}; it has {there}")
        for owner in owners:
            given[owner][option] = text
    policy = make_policy(members[-1], given[members[-1]], seed)
    for place in range(len(members) - 2, -1, -1):
        outer = make_policy(members[place], given[members[place]], seed)
        policy = Chain((members[place], "+".join(members[place + 1 :])), (outer, policy))
    return policy


def _find_class(name: str) -> Callable[..., Any]:
    if name in SHIPPED:
        module, _, class_name = SHIPPED[name].partition(":")
        found: Callable[..., Any] = getattr(importlib.import_module(module), class_name)
        return found
    path, colon, class_name = name.rpartition(":")
    if colon and path.endswith(".py"):
        return _class_in_file(Path(path), class_name)
    for entry in entry_points(group=ENTRY_POINTS):
        if entry.name == name:
            return _checked(entry.load(), f"entry point {name}")
    raise ValueError(f"no policy {name!r}; there are {', '.join(policy_names())}, or give FILE.py:CLASS")


def _class_in_file(path: Path, class_name: str) -> Callable[..., Any]:
    if not path.is_file():
        raise ValueError(f"{path}: no such file; --policy takes a name or FILE.py:CLASS")
    spec = importlib.util.spec_from_file_location(f"policy_file_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module  # dataclasses look their module up there
    try:
        spec.loader.exec_module(module)
    except (SyntaxError, ImportError) as error:
        raise ValueError(f"{path}: cannot be loaded: {error}") from error
    classes = {
        key: value
        for key, value in vars(module).items()
        if isinstance(value, type) and value.__module__ == module.__name__
    }
    if class_name not in classes:
        raise ValueError(f"{path}: no class {class_name!r}; it has {', '.join(sorted(classes)) or 'none'}")
    return _checked(classes[class_name], f"{path}:{class_name}")


def _checked(found: Any, where: str) -> Callable[..., Any]:
    if not isinstance(found, type) or not callable(getattr(found, "decide", None)):
        raise ValueError(f"{where} is not a policy; it needs a method decide(now_s, held, running)")
    return found
