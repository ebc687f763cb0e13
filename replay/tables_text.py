"""Cost tables as a person reads them, and as JSON."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from math import isinf
from pathlib import Path
from typing import Any

from rich.console import RenderableType

from replay.screen import Cell, Together, View, heading, indented, table
from replay.validation import HEADINGS, MEANING, read_validation, validation_rows
from sim.table import CostTable, PowerState
from sim.table_files import DEFAULT, find_table

LIMITS = ("prefill_tokens", "sequences", "kv_tokens", "query_key_pairs")


def tables_values(tables: Sequence[CostTable]) -> dict[str, Any]:
    """Return what the tables say; the limit of power is of one GPU, other powers are of all."""
    return {"tables": [_values(one) for one in tables]}


def list_view(tables: Sequence[CostTable]) -> View:
    """Return the tables and where they were measured."""
    return [part for one in tables for part in _named(one)]


def table_view(name: str, one: CostTable) -> View:
    """Return all that a person wants to know of a table that was loaded as `name`."""
    return [*_named(one), *_facts(one), *_validation(find_table(name).parent)]


def describe_state(state: PowerState) -> str:
    """Return what a power state and the ways there and back take, on one line."""
    return (
        f"{state.power_w:.1f} W; to it {state.enter_s:.2f} s, {state.enter_j:.0f} J; "
        f"from it {state.leave_s:.2f} s, {state.leave_j:.0f} J"
    )


def _values(one: CostTable) -> dict[str, Any]:
    c = one.coefficients
    return {
        "name": one.name,
        "source": one.source,
        "is_default": one.name == DEFAULT,
        "measured_on": one.measured_on,
        "gpu": one.gpu,
        "power_limit_w": one.power_limit_w,
        "cap_w": c.cap_w,
        "idle_w": c.idle_w,
        "bare_idle_w": one.bare_idle_w,
        "states": {state: asdict(told) for state, told in one.states.items()},
        "measured_to": dict(zip(LIMITS, (float(limit) for limit in c.limits), strict=True)),
        "engine": one.engine,
        "errors": one.meta.get("errors", {}),
    }


def _named(one: CostTable) -> Iterator[RenderableType]:
    yield heading(f"{one.name} ({one.source}{', the default' if one.name == DEFAULT else ''})")
    yield indented(one.measured_on)


def _facts(one: CostTable) -> Iterator[RenderableType]:
    c = one.coefficients
    cap = "not capped" if isinf(c.cap_w) else f"held at {c.cap_w:.0f} W in all"
    prefill, seqs, kv, pairs = c.limits
    yield indented(f"power limit {one.power_limit_w:.0f} W a GPU, {cap}")
    yield indented(f"idle {c.idle_w:.0f} W loaded, {one.bare_idle_w:.0f} W bare")
    for state, told in one.states.items():
        yield indented(f"{state} {describe_state(told)}")
    yield indented(
        f"measured up to {prefill:,.0f} prefill tokens, {seqs:,.0f} sequences, {kv:,.0f} KV tokens, "
        f"{pairs:.3g} query-key pairs in a step"
    )
    yield indented(f"engine: {json.dumps(one.engine)}")
    for kind, errors in one.meta.get("errors", {}).items():
        yield indented(
            f"{kind:8} {errors['windows']:4.0f} windows: seconds {100 * errors['seconds_rms']:.2f} % rms, "
            f"joules {100 * errors['joules_rms']:.2f} % rms"
        )


def _validation(folder: Path) -> Iterator[RenderableType]:
    entries = read_validation(folder)
    if entries:
        yield indented(f"live replays, {MEANING}:")
        rows: list[tuple[Cell, ...]] = [
            (*cells[:3], *map(_levels, cells[3:])) for cells in validation_rows(entries)
        ]
        yield table(rows, "lrrrrr", heads=HEADINGS)


def _levels(errors: str) -> Together:
    return Together(tuple(re.findall("[^/]+/?", errors)), between="")
