"""What the result of a replay depends on, and the hash of it: equal hashes, equal results."""

import hashlib
import inspect
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, fields
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import sim
import traces
from sim.chain import Chain
from sim.footprint import Rates
from sim.policy import Policy
from sim.pools import Pools
from sim.registry import options_of
from sim.sweep import Case
from sim.table import CostTable
from sim.table_files import find_table, table_to_json

Inputs = dict[str, Any]
"""By name: what was given and what follows from it, options as `policy.NAME`, `engine.NAME` and `fleet.NAME`,
and the SHA-256 of every file that matters."""


def inputs_of(case: Case) -> Inputs:
    """Return what the result of a case depends on, all options resolved.

    Raises:
        OSError: A file cannot be read.
        ValueError: An option or a policy is refused.
    """
    policy = case.make_policy()
    options = options_of(policy)
    fleet = _fleet_inputs(case)
    files = _files(policy, [*options.values(), *fleet.values()])
    return {
        "trace": case.trace.stem,
        "trace_sha256": sha256_of(case.trace),
        "from_s": case.from_s or 0.0,
        "to_s": case.to_s,
        "limit": case.limit,
        "stretch": case.stretch,
        "length_prediction": case.length_prediction,
        "policy": case.policy,
        **_named("policy", options),
        **fleet,
        "files_sha256": _joined(sha256_of(path) for path in files),
        "code_sha256": _code_sha256(),
        "seed": case.seed,
        **_named("limit", {slo.name: slo.limit_s for slo in case.limits}),
        **_named("footprint", _rates_inputs(case.rates)),
    }


def key_of(inputs: Inputs) -> str:
    """Return the hash of the inputs, 64 hex digits."""
    return hashlib.sha256(json.dumps(inputs, sort_keys=True, default=str).encode()).hexdigest()


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, computed again when the file has changed."""
    facts = path.stat()
    return _sha256(path.absolute(), facts.st_mtime_ns, facts.st_size)


def _named(what: str, options: Mapping[str, Any]) -> Inputs:
    return {f"{what}.{name}": value for name, value in options.items()}


def _fleet_inputs(case: Case) -> Inputs:
    if case.fleet_file is None:
        return {
            **_named("engine", asdict(case.engine_options())),
            **_named("fleet", asdict(case.fleet_options())),
            "table": find_table(case.table).parent.name,
            "table_sha256": sha256_of(find_table(case.table)),
        }
    setup = case.setup()
    pools = setup if isinstance(setup, Pools) else setup.pools
    whole = {"replicas": len(pools.replicas), "router": pools.router, "scaling": pools.scaling}
    return {
        "fleet": case.fleet_file.stem,
        **_named("fleet", whole),
        "table": " + ".join(dict.fromkeys(pool.table.name for pool in pools.pools)),
        "fleet_sha256": _joined([json.dumps(pools, sort_keys=True, default=_plain)]),
    }


def _rates_inputs(rates: Rates) -> Inputs:
    asked = {"grid_intensity": rates.intensity, "price": rates.tariff}
    origins = {what: rate.origin for what, rate in asked.items() if rate is not None}
    if not origins:
        return {}
    flat = {name: value for what, origin in origins.items() for name, value in _named(what, origin).items()}
    return {**flat, "currency": rates.currency, "pue": rates.pue}


def _plain(value: Any) -> Any:
    """Return a part of a fleet as JSON has it, all of its fields."""
    if isinstance(value, CostTable):
        return table_to_json(value)
    return {field.name: getattr(value, field.name) for field in fields(value)}


def _files(policy: Policy, values: list[Any]) -> Iterator[Path]:
    """Yield the sources of the policy and its members, and the files that options name."""
    texts = [value for value in values if isinstance(value, str)]
    parts = [part for text in texts for part in re.split("[:=]", text)]  # such as schedule:file=day.csv
    for name in [*_sources(policy), *dict.fromkeys([*texts, *parts])]:
        if name is not None and Path(name).is_file():
            yield Path(name)


def _sources(policy: Policy) -> Iterator[str | None]:
    yield inspect.getsourcefile(type(policy))
    for member in policy.policies if isinstance(policy, Chain) else ():
        yield from _sources(member)


@cache
def _code_sha256() -> str:
    """Return the hash of all sources that a simulation is made of."""
    folders = (Path(package.__path__[0]) for package in (sim, traces))
    return _joined(sha256_of(path) for folder in folders for path in sorted(folder.glob("*.py")))


def _joined(hashes: Iterable[str]) -> str:
    return hashlib.sha256("".join(hashes).encode()).hexdigest()


@lru_cache(64)
def _sha256(path: Path, changed_ns: int, size: int) -> str:  # noqa: ARG001
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
