"""A summary as a person reads it, and as JSON."""

import json
from dataclasses import asdict
from pathlib import Path

from sim.summary import Summary
from traces.record import STATES, Meta, ReplicaUse

PREFIXES = ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""), (1e-3, "m"), (1e-6, "µ"))
MISSING = "-"
REPLICAS_SHOWN = 16


def summary_json(meta: Meta, summary: Summary) -> str:
    """Return the summary as one JSON object, missing as null: `Summary`'s keys, and `replicas` if several."""
    values = asdict(summary)
    if len(meta.replicas) > 1:
        values["replicas"] = [asdict(replica) for replica in meta.replicas]
    return json.dumps(values, allow_nan=False)


def summary_text(meta: Meta, summary: Summary, directory: Path) -> str:
    """Return the summary as an aligned table, with what made it and where its record is."""
    blocks = [_title(meta), _energy(summary), _latency(summary), _origin(meta, summary, directory)]
    if len(meta.replicas) > 1:
        blocks.insert(2, _replicas(meta.replicas))
    return "\n\n".join(blocks)


def quantity(value: float | None, unit: str) -> str:
    """Return a number in four digits, its unit prefixed, `-` if it is missing: 1107045 J is `1.107 MJ`."""
    if value is None:
        return MISSING
    factor, prefix = next(((f, p) for f, p in PREFIXES if abs(value) >= 0.99995 * f), (1.0, ""))
    digits = f"{value / factor:#.4g}".rstrip(".")
    return f"{digits} {prefix}{unit}"


def _title(meta: Meta) -> str:
    options = ", ".join(f"{name}={_setting(value)}" for name, value in meta.policy_options.items())
    how = f"{meta.policy} ({options})" if options else meta.policy
    return f"{meta.trace_name}: {meta.requests:,} requests, policy {how}"


def _setting(value: object) -> str:
    """Return a value as `--set` takes it."""
    if isinstance(value, float):
        return f"{value:g}"
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _energy(summary: Summary) -> str:
    total_j = summary.total_energy_j
    lines = [("energy", quantity(total_j, "J"), _label(summary))]
    parts = (
        ("  prefill", summary.prefill_energy_j),
        ("  decode", summary.decode_energy_j),
        ("  idle", summary.idle_energy_j),
    )
    for name, part_j in parts:
        share = f"{100 * part_j / total_j:.1f} %" if part_j is not None and total_j else ""
        lines.append((name, quantity(part_j, "J"), share))
    hosts = (("processors", summary.cpu_energy_j), ("memory", summary.dram_energy_j))
    lines += [
        (name, quantity(part_j, "J"), "of the host, not included")
        for name, part_j in hosts
        if part_j is not None
    ]
    lines += [
        ("mean power", quantity(summary.mean_power_w, "W"), f"over {summary.makespan_s:,.1f} s"),
        ("per request", quantity(summary.energy_j_per_request, "J"), ""),
        ("per output token", quantity(summary.energy_j_per_output_token, "J"), ""),
        ("per token", quantity(summary.energy_j_per_token, "J"), "prompt and output"),
    ]
    if summary.carbon_g is not None:
        lines.append(("carbon", quantity(summary.carbon_g, "g"), "CO2e of the energy"))
    if summary.price is not None:
        lines.append(("price", f"{summary.price:#.4g}", summary.currency or ""))
    return "\n".join(f"{name:<17} {value:>10}   {note}".rstrip() for name, value, note in lines)


def _label(summary: Summary) -> str:
    if not summary.energy_valid:
        return "NOT VALID, see below"
    if summary.energy_low_j is not None and summary.energy_source == "simulated":
        low, high = quantity(summary.energy_low_j, "J"), quantity(summary.energy_high_j, "J")
        return f"95 %: {low} to {high}"
    words = {"assumed": "assumed, not measured", "twin": "the twin's, not measured", "none": "not metered"}
    return words.get(summary.energy_source, "")


def _latency(summary: Summary) -> str:
    rows = (
        ("TTFT", summary.ttft_p50_s, summary.ttft_p90_s, summary.ttft_p99_s),
        ("TPOT", summary.tpot_p50_s, summary.tpot_p90_s, summary.tpot_p99_s),
        ("E2E", summary.e2e_p50_s, summary.e2e_p90_s, summary.e2e_p99_s),
    )
    lines = [f"{'':<17} {'p50':>10} {'p90':>10} {'p99':>10}"]
    for name, *quantiles in rows:
        lines.append(f"{name:<17} " + " ".join(f"{quantity(value, 's'):>10}" for value in quantiles))
    return "\n".join(lines)


def _replicas(replicas: tuple[ReplicaUse, ...]) -> str:
    """Return a line a replica: its requests and energy, and the time and energy of each state that occurs."""
    states = [state for state in STATES if any(getattr(one, f"{state}_s") for one in replicas)]
    heads = "".join(f"   {state:>18}" for state in states)
    shown = replicas[:REPLICAS_SHOWN]
    names = [f"{number} {one.pool or ''}".rstrip() for number, one in enumerate(shown)]
    width = max(8, *map(len, names))
    lines = [f"{'replica':<{width}} {'requests':>8} {'energy':>10}{heads}"]
    for name, one in zip(names, shown, strict=True):
        spent = "".join(
            f"   {_share(getattr(one, f'{state}_s'), one.total_s):>7} "
            f"{quantity(getattr(one, f'{state}_j'), 'J'):>10}"
            for state in states
        )
        lines.append(f"{name:<{width}} {one.requests:>8,} {quantity(one.total_j, 'J'):>10}{spent}")
    if len(replicas) > REPLICAS_SHOWN:
        lines.append(f"{len(replicas) - REPLICAS_SHOWN} more are in run.json")
    return "\n".join(lines)


def _share(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f} %" if whole else MISSING


def _origin(meta: Meta, summary: Summary, directory: Path) -> str:
    lines = [("served", f"{summary.served:,} of {summary.requests:,}, {summary.failed:,} failed")]
    if summary.table is not None:
        lines.append(("table", f"{summary.table}: {meta.table_source}"))
    if summary.out_of_range_fraction is not None:
        outside = f"{100 * summary.out_of_range_fraction:.2f} % of the steps"
        lines.append(("outside table", outside))
    lines += [("not valid", reason) for reason in summary.invalid_reasons]
    lines.append(("record", str(directory)))
    return "\n".join(f"{name:<17} {text}" for name, text in lines)
