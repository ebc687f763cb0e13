"""A summary as a person reads it, and as JSON."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table

from replay.printing import money, per_second, quantity, share
from replay.screen import Cell, Together, View, bad, faint, heading, table
from replay.sparkline import power_view
from sim.settings import as_text
from sim.summary import Summary
from traces.record import STATES, Meta, Power, ReplicaUse

REPLICAS_SHOWN = 16
LABEL, NUMBER = 16, 10
"""Least widths of columns, in characters."""


def summary_values(meta: Meta, summary: Summary) -> dict[str, Any]:
    """Return `Summary`'s keys, missing as None, and `replicas` if several."""
    values = asdict(summary)
    if len(meta.replicas) > 1:
        values["replicas"] = [asdict(replica) for replica in meta.replicas]
    return values


def summary_view(meta: Meta, summary: Summary, power: Power, directory: Path) -> View:
    """Return the summary as aligned tables, with what made it and where its record is."""
    blocks = [_energy(summary), *power_view([("power", power)], LABEL)]
    if len(meta.replicas) > 1:
        blocks += ["", *_replicas(meta.replicas)]
    return [heading(_title(meta)), "", *blocks, "", *_latency(summary), "", _origin(meta, summary, directory)]


def _title(meta: Meta) -> str:
    options = ", ".join(f"{name}={as_text(value)}" for name, value in meta.policy_options.items())
    how = f"{meta.policy} ({options})" if options else meta.policy
    return f"{meta.trace_name}: {meta.requests:,} requests, policy {how}"


def _energy(summary: Summary) -> Table:
    return table(_energies(summary), "lrl", widths=(LABEL, NUMBER))


def _energies(summary: Summary) -> Iterator[tuple[str, str, Cell]]:
    total_j = summary.total_energy_j
    yield "energy", quantity(total_j, "J"), _label(summary)
    parts = (
        ("  prefill", summary.prefill_energy_j),
        ("  decode", summary.decode_energy_j),
        ("  idle", summary.idle_energy_j),
    )
    for name, part_j in parts:
        yield name, quantity(part_j, "J"), share(part_j, total_j) if part_j is not None and total_j else ""
    for name, part_j in (("processors", summary.cpu_energy_j), ("memory", summary.dram_energy_j)):
        if part_j is not None:
            yield name, quantity(part_j, "J"), "of the host, not included"
    yield "mean power", quantity(summary.mean_power_w, "W"), f"over {summary.makespan_s:,.1f} s"
    yield "per request", quantity(summary.energy_j_per_request, "J"), ""
    yield "per output token", quantity(summary.energy_j_per_output_token, "J"), ""
    yield "per token", quantity(summary.energy_j_per_token, "J"), "prompt and output"
    if summary.carbon_g is not None:
        yield "carbon", quantity(summary.carbon_g, "g"), "CO2e of the energy"
    if summary.price is not None:
        yield "price", money(summary.price), summary.currency or ""


def _label(summary: Summary) -> Cell:
    if not summary.energy_valid:
        return bad("NOT VALID, see below")
    if summary.energy_low_j is not None and summary.energy_source == "simulated":
        low, high = quantity(summary.energy_low_j, "J"), quantity(summary.energy_high_j, "J")
        return f"95 %: {low} to {high}"
    words = {"assumed": "assumed, not measured", "twin": "the twin's, not measured", "none": "not metered"}
    return words.get(summary.energy_source, "")


def _latency(summary: Summary) -> View:
    quantiles = (
        ("TTFT", summary.ttft_p50_s, summary.ttft_p90_s, summary.ttft_p99_s),
        ("TPOT", summary.tpot_p50_s, summary.tpot_p90_s, summary.tpot_p99_s),
        ("E2E", summary.e2e_p50_s, summary.e2e_p90_s, summary.e2e_p99_s),
    )
    rows = [(name, *(quantity(value, "s") for value in values)) for name, *values in quantiles]
    view: View = [
        table(rows, "lrrr", heads=("", "p50", "p90", "p99"), widths=(LABEL, NUMBER, NUMBER, NUMBER))
    ]
    if summary.attainment_fraction is None:
        return view
    attained = f"{100 * summary.attainment_fraction:.2f} % of the requests keep their limits"
    good = table([("goodput", per_second(summary.goodput_rps), attained)], "lrl", widths=(LABEL, NUMBER))
    return [*view, good]


def _replicas(replicas: tuple[ReplicaUse, ...]) -> View:
    """Return a row a replica: its requests and energy, and the time and energy of each state that occurs."""
    states = [state for state in STATES if any(getattr(one, f"{state}_s") for one in replicas)]
    rows: list[tuple[Cell, ...]] = []
    for number, one in enumerate(replicas[:REPLICAS_SHOWN]):
        spent = (
            Together((share(time_s, one.total_s), f"{quantity(energy_j, 'J'):>{NUMBER}}"))
            for time_s, energy_j in (
                (getattr(one, f"{state}_s"), getattr(one, f"{state}_j")) for state in states
            )
        )
        name = f"{number} {one.pool or ''}".rstrip()
        rows.append((name, f"{one.requests:,}", quantity(one.total_j, "J"), *spent))
    heads = ("replica", "requests", "energy", *states)
    view: list[Table | Cell] = [table(rows, "l" + "r" * (len(heads) - 1), heads=heads)]
    if len(replicas) > REPLICAS_SHOWN:
        view.append(faint(f"{len(replicas) - REPLICAS_SHOWN} more are in run.json"))
    return view


def _origin(meta: Meta, summary: Summary, directory: Path) -> Table:
    lines: list[tuple[str, Cell]] = [
        ("served", f"{summary.served:,} of {summary.requests:,}, {summary.failed:,} failed")
    ]
    if summary.table is not None:
        lines.append(("table", f"{summary.table}: {meta.table_source}"))
    if summary.out_of_range_fraction is not None:
        lines.append(("outside table", f"{100 * summary.out_of_range_fraction:.2f} % of the steps"))
    lines += [("not valid", bad(reason)) for reason in summary.invalid_reasons]
    lines.append(("record", str(directory)))
    return table(lines, "ll", widths=(LABEL,))
