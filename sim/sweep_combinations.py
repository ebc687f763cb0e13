"""The combinations of a sweep: traces, fleets, policies, and the values of a grid."""

from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from itertools import product
from pathlib import Path

from sim.options import ALIASES, EngineOptions, FleetOptions
from sim.registry import members_of, settings_of_policy
from sim.sweep import Case
from sim.sweep_grid import Axis


def combinations(
    base: Case,
    traces: Sequence[Path],
    policies: Sequence[str],
    axes: Sequence[Axis],
    fleets: Sequence[Path] = (),
) -> Iterator[Case]:
    """Yield every combination of traces, fleets, policies and values.

    An option goes to the policies that have it.

    Args:
        base: What holds where no axis says otherwise.
        traces: Files, at least one.
        policies: Names, at least one.
        axes: No two of them of one name and policy.
        fleets: Files of pools; none for the fleet of `base`.

    Raises:
        ValueError: An axis is of no input and of no policy's option, two are the same, a value is refused, or
            two files of traces or fleets share a name.
    """
    _check(axes, policies)
    _ensure_named_apart(traces)
    _ensure_named_apart(fleets)
    for trace, fleet, policy in product(traces, fleets or (base.fleet_file,), policies):
        own = [axis for axis in axes if _applies(axis, policy)]
        for values in product(*(axis.values for axis in own)):
            case = replace(base, trace=trace, policy=policy, fleet_file=fleet)
            for axis, value in zip(own, values, strict=True):
                is_of_member = axis.policy not in (None, policy)
                case = put(case, f"{axis.policy}.{axis.name}" if is_of_member else axis.name, value)
            yield case


def put(case: Case, name: str, value: str) -> Case:
    """Return `case` with one input changed: an option of its policy, of the fleet, of the engine, or another.

    Raises:
        ValueError: There is no such input, or the value does not parse.
    """
    if name.rpartition(".")[2] in settings_of_policy(case.policy):
        return replace(case, settings={**case.settings, name: value})
    if name in _fleet_names():
        return replace(case, fleet={**case.fleet, name: value})
    if name in _engine_names():
        return replace(case, engine={**case.engine, name: value})
    if name == "length_prediction":
        return replace(case, length_prediction=value)
    if name == "stretch":
        return replace(case, stretch=_number(name, value))
    raise ValueError(_unknown(name, [case.policy]))


def _check(axes: Sequence[Axis], policies: Sequence[str]) -> None:
    names = [(axis.policy, axis.name) for axis in axes]
    for axis in axes:
        if names.count((axis.policy, axis.name)) > 1:
            raise ValueError(f"--grid {axis.name} is given twice; give all its values at once")
        if axis.policy is not None and not any(_is_of(axis.policy, policy) for policy in policies):
            raise ValueError(f"--grid {axis.policy}.{axis.name}: no --policy {axis.policy}; give it, too")
        if not any(_applies(axis, policy) for policy in policies):
            raise ValueError(_unknown(axis.name, [axis.policy] if axis.policy else policies))


def _ensure_named_apart(files: Sequence[Path]) -> None:
    paths = dict.fromkeys(files)
    names = [path.stem for path in paths]
    double = next((path for path in paths if names.count(path.stem) > 1), None)
    if double is not None:
        raise ValueError(f"{double}: another file is named {double.stem}, too; rename one to tell them apart")


def _applies(axis: Axis, policy: str) -> bool:
    if axis.policy is not None:
        return _is_of(axis.policy, policy) and axis.name in settings_of_policy(axis.policy)
    return axis.name in _shared_names() or axis.name in settings_of_policy(policy)


def _is_of(named: str, policy: str) -> bool:
    """Say whether a policy is the one named, or has it as a member."""
    return named in (policy, *members_of(policy))


def _unknown(name: str, policies: Sequence[str]) -> str:
    options = {option for policy in policies for option in settings_of_policy(policy)}
    of_policies = f"options of {', '.join(policies)}: {', '.join(sorted(options)) or 'none'}"
    return f"no input {name!r} to vary; there are {', '.join(sorted(_shared_names()))}; {of_policies}"


def _shared_names() -> set[str]:
    return {*_fleet_names(), *_engine_names(), "length_prediction", "stretch"}


def _fleet_names() -> set[str]:
    return {option.name for option in fields(FleetOptions)}


def _engine_names() -> set[str]:
    return {*(option.name for option in fields(EngineOptions)), *ALIASES}


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{name} must be a number, got {text!r}") from None
