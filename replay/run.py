"""`replay TRACE`: the main job, a replay simulated or live."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from replay.completion import complete_router
from replay.errors import ensure_valid
from replay.footprint_options import footprint_options, take_rates
from replay.keep import RUNS, keep_run, make_runs
from replay.output import output_options, say, tell
from replay.replay_options import (
    IN_FILE,
    announce_compilation,
    engine_options,
    fleet_option,
    policy_option,
    priced_options,
    read_requests,
    selection_options,
)
from replay.trace_path import TRACE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from backends.measured_record import Measured
    from replay.live_engine import LiveEngine
    from sim.footprint import Rates
    from sim.options import FleetOptions
    from sim.policy import Policy
    from sim.pools import Pools
    from sim.serving import Setup
    from sim.slo import Slo
    from sim.summary import Summary
    from sim.table import CostTable
    from traces.long_trace import LongTrace
    from traces.record import Meta, Power, Run
    from traces.trace import Trace

ROUTER = "round-robin"
NO_STEPS = "divides the energy of steps, which a server tells nothing of; leave it out"
SIMULATED = "is simulated only: leave it out"
CHOOSES = "chooses among --replicas; leave it out"
BACKEND_HELP = "Where requests are served: in simulation, by a vLLM started here, or by a running server."
MODEL_HELP = "Of a live engine: model name or folder; for vllm, config.json alone runs on random weights."
DEVICE_HELP = "Of --backend vllm: real GPUs, or a twin, whose steps take the time and power of --table."
URL_HELP = "Of --backend openai: where the server's API begins, http://HOST:PORT/v1; repeated for replicas."
VOCABULARY_HELP = "Of --backend openai: prompts' token ids are below N.  [default: as --model's folder says]"
REPLICAS_HELP = "Equal engines behind the policy, each on GPUs of its own."
ROUTER_HELP = "Which of several replicas a request goes to (docs/fleet.md).  [default: round-robin]"
SCALING_HELP = "Which of several replicas sleep, and when (docs/fleet.md).  [default: fixed]"
GPU_HELP = "Of a live engine: NVML index to meter; repeatable.  [default: those that vLLM uses; none]"
SLO_HELP = "Limit of each request in seconds, ttft=2: tell how many keep all limits; repeatable."
OUT_HELP = "Folder for the run's record; it must not exist.  [default: runs/TRACE-POLICY-TIME]"


@click.command(short_help="Replay a trace; `run` may be left out.")
@click.argument("trace", type=TRACE)
@policy_option
@priced_options
@click.option(
    "--backend",
    type=click.Choice(["simulate", "vllm", "openai"]),
    default="simulate",
    show_default=True,
    help=BACKEND_HELP,
)
@click.option("--model", metavar="DIR|NAME", help=MODEL_HELP)
@click.option(
    "--device", type=click.Choice(["gpu", "twin"]), default="gpu", show_default=True, help=DEVICE_HELP
)
@click.option("--url", "urls", multiple=True, metavar="URL", help=URL_HELP)
@click.option("--vocabulary", type=int, metavar="N", help=VOCABULARY_HELP)
@click.option("--gpu", "gpus", multiple=True, type=int, metavar="N", help=GPU_HELP)
@click.option("--replicas", type=click.IntRange(min=1), default=1, show_default=True, help=REPLICAS_HELP)
@click.option("--router", metavar="R[:K=V]", shell_complete=complete_router, help=ROUTER_HELP)
@click.option("--scaling", metavar="S[:K=V]", help=SCALING_HELP)
@fleet_option
@selection_options
@footprint_options
@click.option("--slo", "slos", multiple=True, metavar="LATENCY=S", help=SLO_HELP)
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR", help=OUT_HELP)
@click.option("--seed", type=int, default=0, show_default=True, metavar="N", help="Seed of what is drawn.")
@output_options
def cli(
    trace: Path,
    policy: str,
    settings: tuple[str, ...],
    table: str | None,
    engine: tuple[str, ...],
    backend: str,
    model: str | None,
    device: str,
    urls: tuple[str, ...],
    vocabulary: int | None,
    gpus: tuple[int, ...],
    replicas: int,
    router: str | None,
    scaling: str | None,
    fleet: Path | None,
    slos: tuple[str, ...],
    out: Path | None,
    seed: int,
    **selection: Any,
) -> None:
    """Replay TRACE through a policy and an engine, simulated or live; print what it costs, keep the record.

    TRACE is a file of any known format. The energy is that of the GPUs from time 0 of the trace to the last
    completion, idle included. docs/metrics.md defines every number.
    """
    from dataclasses import replace

    from sim.fleet_file import read_fleet
    from sim.footprint import with_footprint
    from sim.options import FleetOptions
    from sim.registry import make_policy
    from sim.serving import Setup
    from sim.settings import split_pair
    from sim.slo import parse_limits
    from sim.summary import summarize
    from sim.table_files import load_table
    from sim.told_costs import asking

    if fleet is not None and backend != "simulate":
        raise click.UsageError(f"--fleet is simulated only: leave --backend {backend} out")
    live = {"simulate": _no_engine, "vllm": _vllm, "openai": _server}[backend](
        engine,
        {
            "--model": model,
            "--device": None if device == "gpu" else device,
            "--url": urls,
            "--vocabulary": vocabulary,
            "--gpu": gpus,
            "--table": table,
            "--replicas": None if replicas == 1 else replicas,
            "--router": router,
            "--scaling": scaling,
            "--fleet": fleet,
        },
    )
    _ensure_writable(out)
    rates, limits = take_rates(selection), parse_limits(slos)
    chosen = make_policy(policy, dict(split_pair(pair, "--set") for pair in settings), seed)
    if backend == "openai" and not asking(chosen):
        _refuse({"--table": table}, ("--table",), NO_STEPS)
    given = {name: value for name, value in selection.items() if value is not None}
    attachments: dict[str, dict[str, Any]] = {}
    interrupted = False
    if live is None:
        equal = FleetOptions(replicas, router or ROUTER, scaling or "fixed")
        setup = _equal_setup(table, engine, equal) if fleet is None else read_fleet(fleet)
        if isinstance(setup, Setup) and not given:
            long = _long(trace, chosen, setup)
            if long is not None:
                _stream(long, chosen, policy, setup, rates, limits, out, seed)
                return
        run = _simulate(read_requests(trace, given, chosen, seed), chosen, setup, seed)
    else:
        costs = load_table(table) if table else None
        measured = _measure(read_requests(trace, given, chosen, seed), chosen, live, costs, seed)
        run, attachments, interrupted = measured.run, measured.attachments, measured.ending.is_interrupted
    run = with_footprint(replace(run, meta=replace(run.meta, policy=policy, trace_options=given)), rates)
    directory = keep_run(run, out or _free_directory(RUNS, run.meta.run_id), attachments)
    print_summary(run.meta, summarize(run, limits), run.power, directory)
    if interrupted:
        raise click.Abort
    ensure_valid(run.meta.invalid_reasons)


def print_summary(meta: "Meta", summary: "Summary", power: "Power", directory: Path) -> None:
    """Print what a run came to, whose record is in `directory`."""
    from replay.summary_text import summary_values, summary_view

    for note in meta.notes:
        say(f"note: {note}")
    tell(
        lambda: summary_values(meta, summary),
        lambda: summary_view(meta, summary, power, directory),
        directory,
    )


def _equal_setup(table: str | None, engine: tuple[str, ...], fleet: "FleetOptions") -> "Setup":
    from sim.serving import Setup
    from sim.table_files import DEFAULT, load_table

    costs = load_table(table or DEFAULT)
    return Setup(engine_options(engine, costs), fleet, costs)


def _no_engine(options: tuple[str, ...], given: dict[str, Any]) -> None:
    of_engines = ("--model", "--device", "--url", "--vocabulary", "--gpu")
    _refuse(given, of_engines, "is of a live engine: give --backend, too")
    if given["--fleet"] is not None:
        told = {"--engine": options, **given}
        _refuse(told, ("--table", "--engine", "--replicas", "--router", "--scaling"), IN_FILE)
    if given["--replicas"] is None:
        _refuse(given, ("--router",), CHOOSES)


def _vllm(options: tuple[str, ...], given: dict[str, Any]) -> "LiveEngine":
    from replay.live_engine import StartedVllm, TwinVllm
    from sim.options import FleetOptions
    from sim.table_files import DEFAULT, load_table

    _refuse(given, ("--url", "--vocabulary"), "is of --backend openai")
    _refuse(given, ("--scaling",), SIMULATED)
    if given["--replicas"] is None:
        _refuse(given, ("--router",), CHOOSES)
    fleet = FleetOptions(given["--replicas"] or 1, given["--router"] or ROUTER)
    if given["--device"] == "twin":
        _refuse(given, ("--gpu",), "names a GPU to meter; a twin has none: leave it out")
        table = load_table(given["--table"] or DEFAULT)
        return TwinVllm(table, given["--model"], options, fleet.replicas, fleet.router)
    if given["--model"] is None:
        raise click.UsageError("--backend vllm needs --model: a model's name or folder")
    if given["--replicas"] is not None:
        _refuse(given, ("--gpu",), "would meter other GPUs than the replicas'; leave it out")
    return StartedVllm(given["--model"], options, given["--gpu"], fleet.replicas, fleet.router)


def _server(options: tuple[str, ...], given: dict[str, Any]) -> "LiveEngine":
    from replay.live_engine import RunningServer
    from sim.options import FleetOptions

    _refuse(given, ("--device",), "is of --backend vllm")
    _refuse(given, ("--scaling",), SIMULATED)
    _refuse({"--engine": options}, ("--engine",), "cannot change a server that runs; leave it out")
    _refuse(given, ("--replicas",), "starts engines; give --url once a replica instead")
    if not given["--url"]:
        raise click.UsageError("--backend openai needs --url: where the server's API begins")
    if len(given["--url"]) == 1:
        _refuse(given, ("--router",), "chooses among several --url; leave it out")
    fleet = FleetOptions(len(given["--url"]), given["--router"] or ROUTER)
    return RunningServer(
        given["--url"], given["--model"], given["--vocabulary"], given["--gpu"], fleet.router
    )


def _refuse(given: dict[str, Any], names: tuple[str, ...], reason: str) -> None:
    for name in names:
        if given[name] not in (None, ()):
            raise click.UsageError(f"{name} {reason}")


def _measure(
    trace: "Trace", policy: "Policy", engine: "LiveEngine", table: "CostTable | None", seed: int
) -> "Measured":
    from backends.measured_record import Replay
    from replay.live_engine import RunningServer
    from replay.live_run import replay_live
    from sim.table_files import DEFAULT, load_table

    costs = None if table is None else table.coefficients
    if table is None and not isinstance(engine, RunningServer):
        table = load_table(DEFAULT)
    # A server that goes on remembers the prompts of replays before; a vLLM just started has none.
    name = f"{trace.name}-{time.time_ns()}" if isinstance(engine, RunningServer) else trace.name
    what = Replay(name=name, trace=trace, policy=policy, seed=seed, costs=costs, table=table)
    return replay_live(what, engine)


def _simulate(trace: "Trace", policy: "Policy", setup: "Setup | Pools", seed: int) -> "Run":
    from replay.late_bar import LateBar
    from sim.simulate import simulate_fleet

    announce_compilation()
    with LateBar(len(trace), "replaying") as bar:
        return simulate_fleet(trace, policy, setup, seed=seed, progress=bar.advance)


def _long(path: Path, policy: "Policy", setup: "Setup") -> "LongTrace | None":
    """Return the trace to be read stretch by stretch if it is long and needs no more than that."""
    from sim.stream import can_stream
    from traces.long_trace import open_long

    trace = open_long(path) if path.is_file() else None
    return trace if trace is not None and can_stream(trace, policy, setup) else None


def _stream(
    trace: "LongTrace",
    policy: "Policy",
    policy_name: str,
    setup: "Setup",
    rates: "Rates",
    limits: "Sequence[Slo]",
    out: Path | None,
    seed: int,
) -> None:
    from dataclasses import replace
    from datetime import UTC, datetime

    from replay.late_bar import LateBar
    from sim.footprint import footprint_of
    from sim.run_facts import id_of_run
    from sim.stream import simulate_stream
    from sim.summary import summary_of
    from traces.record import total_energy_j
    from traces.record_files import new_record

    announce_compilation()
    directory = out or _free_directory(RUNS, id_of_run(trace.facts, policy, datetime.now(UTC)))
    with new_record(directory) as record, LateBar(trace.requests, "replaying") as bar:
        meta, power, tally = simulate_stream(
            trace, policy, setup, record.add, seed=seed, progress=bar.advance, limits=limits
        )
        meta = replace(meta, policy=policy_name, footprint=footprint_of(meta, power, rates))
        record.finish(meta, power)
    print_summary(meta, summary_of(meta, total_energy_j(meta, power), tally), power, directory)
    ensure_valid(meta.invalid_reasons)


def _ensure_writable(out: Path | None) -> None:
    """Refuse an output before the simulation that would be lost with it."""
    from traces.record_files import ensure_record_free

    if out is None:
        RUNS.mkdir(exist_ok=True)
    elif out.exists():
        raise ValueError(f"{out}: exists already; give another --out, or remove it")
    else:
        make_runs(out)
        ensure_record_free(out)


def _free_directory(parent: Path, name: str) -> Path:
    """Return a folder of `parent` that does not exist: `name`, or `name` with a number."""
    directory, number = parent / name, 1
    while directory.exists():
        number += 1
        directory = parent / f"{name}-{number}"
    return directory
