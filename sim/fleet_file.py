"""Fleet files: the pools of a fleet as YAML."""

from collections.abc import Callable, Collection, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from sim.kv_transfer import KV_BYTES_PER_TOKEN, KvTransfer
from sim.options import FleetOptions, from_strings, options_among
from sim.pools import Pool, Pools
from sim.serving import Setup
from sim.table import CostTable
from sim.table_files import load_table

FLEET_KEYS = ("pools", "router", "scaling", "kv_transfer", "decode_router")
POOL_KEYS = ("name", "table", "count", "engine", "role")
TRANSFER_KEYS = ("gigabytes_per_s", "latency_ms", "bytes_per_token")


def read_fleet(path: Path) -> Setup | Pools:
    """Return the fleet that a file tells of, one of a single pool as the equal replicas that it is.

    Raises:
        OSError: The file, or a table that it names, cannot be read.
        ValueError: It is no YAML, a key is unknown or missing, or a value is refused.
    """
    try:
        facts = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: no YAML: {' '.join(str(error).split())}") from error
    try:
        return _fleet(facts)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _fleet(facts: Any) -> Setup | Pools:
    _check_keys(facts, "a fleet", FLEET_KEYS, ["pools"])
    entries = facts["pools"]
    if not isinstance(entries, list) or not entries:
        raise ValueError(f"pools must be a list of at least one pool, got {entries!r}")
    load_once = cache(load_table)
    pools = [_pool(entry, load_once) for entry in entries]
    names = [pool.name for pool in pools]
    double = next((name for name in names if names.count(name) > 1), None)
    if double is not None:
        raise ValueError(f"two pools are named {double}; give each a name of its own")
    given = {key: _text(facts[key], key) for key in ("router", "scaling", "decode_router") if key in facts}
    if "decode_router" in given and "kv_transfer" not in facts:
        raise ValueError("decode_router is of pools that decode only; give the pools roles, or leave it out")
    transfer = _transfer(facts["kv_transfer"], pools[0].table) if "kv_transfer" in facts else None
    if len(pools) > 1 or pools[0].role or transfer:
        return Pools(tuple(pools), kv_transfer=transfer, **given)
    (pool,) = pools
    return Setup(pool.options, FleetOptions(pool.count, **given), pool.table)


def _transfer(facts: Any, table: CostTable) -> KvTransfer:
    _check_keys(facts, "kv_transfer", TRANSFER_KEYS, TRANSFER_KEYS[:2])
    for key, value in facts.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"kv_transfer: {key} must be a number, got {value!r}")
    model = str(table.engine.get("model"))
    token_bytes = facts.get("bytes_per_token", KV_BYTES_PER_TOKEN.get(model))
    if token_bytes is None:
        raise ValueError(f"kv_transfer needs bytes_per_token: what KV takes is not known of model {model}")
    return KvTransfer(1e9 * facts["gigabytes_per_s"], facts["latency_ms"] / 1000, token_bytes)


def _pool(entry: Any, load: Callable[[str], CostTable]) -> Pool:
    _check_keys(entry, "a pool", POOL_KEYS, ["name", "table"])
    name, count, engine = _text(entry["name"], "name"), entry.get("count", 1), entry.get("engine", {})
    try:
        if type(count) is not int:
            raise ValueError(f"count must be a whole number, got {count!r}")
        if not isinstance(engine, dict):
            raise ValueError(f"engine must be options with their values, got {engine!r}")
        table = load(_text(entry["table"], "table"))
        given = {str(option): "" if value is None else str(value) for option, value in engine.items()}
        options = from_strings(given, options_among(table.engine))
    except ValueError as error:
        raise ValueError(f"pool {name}: {error}") from error
    return Pool(name, count, options, table, entry.get("role"))


def _check_keys(facts: Any, what: str, known: Collection[str], needed: Collection[str]) -> None:
    if not isinstance(facts, Mapping):
        raise ValueError(f"{what} has the keys {', '.join(known)}, got {facts!r}")
    unknown = next((key for key in facts if key not in known), None)
    if unknown is not None:
        raise ValueError(f"{what} has no key {unknown!r}; there are {', '.join(known)}")
    missing = next((key for key in needed if key not in facts), None)
    if missing is not None:
        raise ValueError(f"{what} lacks the key {missing!r}, got {dict(facts)}")


def _text(value: Any, key: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{key} must be text, got {value!r}")
    return value
