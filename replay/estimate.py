"""`replay estimate`: what quick estimates make of a trace's energy, beside the replay's."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from replay.errors import ensure_valid
from replay.output import output_options, say, tell
from replay.replay_options import (
    announce_compilation,
    engine_options,
    policy_option,
    priced_options,
    read_requests,
    selection_options,
)

if TYPE_CHECKING:
    from replay.estimate_text import Estimate
    from sim.options import EngineOptions
    from sim.table import CostTable
    from traces.record import Run
    from traces.trace import Trace

BATCH_HELP = "Requests of a batch in the binned estimates.  [default: as many as the engine holds]"


@click.command()
@click.argument("trace", type=click.Path(path_type=Path))
@policy_option
@priced_options
@click.option("--batch", type=click.IntRange(min=1), metavar="B", help=BATCH_HELP)
@selection_options
@click.option("--seed", type=int, default=0, show_default=True, metavar="N", help="Seed of what is drawn.")
@output_options
def cli(
    trace: Path,
    policy: str,
    settings: tuple[str, ...],
    table: str | None,
    engine: tuple[str, ...],
    batch: int | None,
    seed: int,
    **selection: Any,
) -> None:
    """Estimate the energy of TRACE in the usual quick ways, and simulate it to tell how far these are off.

    docs/estimate.md defines the estimates: by bins of lengths, by FLOPs and by utilisation. No record is
    kept.
    """
    from replay.estimate_text import estimates_values, estimates_view
    from sim.registry import make_policy
    from sim.settings import split_pair
    from sim.simulate import simulate
    from sim.table_files import DEFAULT, load_table

    costs = load_table(table or DEFAULT)
    options = engine_options(engine, costs)
    chosen = make_policy(policy, dict(split_pair(pair, "--set") for pair in settings), seed)
    given = {name: value for name, value in selection.items() if value is not None}
    requests = read_requests(trace, given, chosen, seed)
    announce_compilation()
    run = simulate(requests, chosen, options, costs, seed=seed)
    estimates = [*_binned(requests, options, costs, batch), *_flops(requests, costs), *_utilisation(run)]
    for note in run.meta.notes:
        say(f"note: {note}")
    tell(lambda: estimates_values(run, estimates), lambda: estimates_view(run, policy, estimates))
    ensure_valid(run.meta.invalid_reasons)


def _binned(
    trace: "Trace", options: "EngineOptions", table: "CostTable", batch: int | None
) -> list["Estimate"]:
    from replay.estimate_text import Estimate
    from sim.binned import ROUNDINGS, binned_estimate

    estimates = []
    for rounding in ROUNDINGS:
        found = binned_estimate(trace, rounding, options, table, batch=batch)
        batches = f"B = {found.least_batch:,}"
        if found.largest_batch > found.least_batch:
            batches += f" to {found.largest_batch:,}"
        means = f"{found.prompt_tokens / len(trace):,.0f} + {found.output_tokens / len(trace):,.0f} tokens"
        how = f"{found.bins} bins, {batches}; {means} a request"
        estimates.append(Estimate(f"binned_{rounding}", f"bins, {rounding}", found.energy_j, how))
    return estimates


def _flops(trace: "Trace", table: "CostTable") -> list["Estimate"]:
    from replay.estimate_text import Estimate
    from sim.flops import flops_energy_j, peak_of, shape_from_config, trace_flops

    number_format = str(table.engine.get("quantization") or table.engine.get("dtype"))
    try:
        peak = peak_of(table.gpu, number_format)
        flops = trace_flops(trace, shape_from_config(_model_config(table)))
    except ValueError as error:
        say(f"note: no estimate by FLOPs: {error}")
        return []
    return [
        Estimate(
            f"flops_{kind}",
            f"FLOPs, {kind} peak",
            flops_energy_j(flops, peak_flops, table.power_limit_w),
            f"{flops:.4g} FLOP at {peak_flops / 1e12:,.0f} TFLOP/s in {number_format}, "
            f"{table.power_limit_w:.0f} W; {peak.source}",
        )
        for kind, peak_flops in (("dense", peak.dense_flops), ("sparse", peak.sparse_flops))
    ]


def _utilisation(run: "Run") -> list["Estimate"]:
    from replay.estimate_text import Estimate
    from sim.utilisation import utilisation_energy_j

    busy_j, with_idle_j = utilisation_energy_j(run)
    busy = sum(replica.busy_s for replica in run.meta.replicas) / len(run.meta.replicas)
    how = f"a step runs {busy:,.1f} s of {run.meta.makespan_s:,.1f} s, {run.meta.power_limit_w:.0f} W a GPU"
    return [
        Estimate("utilisation", "utilisation", busy_j, how),
        Estimate(
            "utilisation_idle",
            "utilisation, idle",
            with_idle_j,
            f"and {run.meta.idle_w:.0f} W while no step runs",
        ),
    ]


def _model_config(table: "CostTable") -> dict[str, Any]:
    """Return the config.json, among those that ship, of the model that a table was measured with."""
    import json

    from replay.live_engine import model_folder

    path = model_folder(table) / "config.json"
    if not path.is_file():
        model = table.engine.get("model")
        raise ValueError(f"table {table.name} is of the model {model!r}, whose config.json does not ship")
    config: dict[str, Any] = json.loads(path.read_text())
    return config
