"""The work of the command, for notebooks: pandas DataFrames in and out; what is refused is a ValueError."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import sim.compare
import sim.simulate
import sim.summary
import traces.fetch
import traces.reading
import traces.record_files
from replay.errors import one_line
from sim.arrivals import ensure_predicted
from sim.fleet_file import read_fleet
from sim.footprint import Rates, read_rates, with_footprint
from sim.length_prediction import predict_lengths
from sim.metrics import latency_s
from sim.options import FleetOptions, from_strings, options_among
from sim.policy import Policy
from sim.pools import Pools
from sim.registry import make_policy
from sim.serving import Setup
from sim.settings import as_text
from sim.slo import Slo, parse_limits
from sim.table_files import DEFAULT, load_table
from traces.frame import from_frame, to_frame
from traces.record import STATUS_NAMES, Run
from traces.selection import select
from traces.trace import Trace

Options = Mapping[str, Any]
Rate = float | str | Path | None
"""So much a kWh: a number, or a file of numbers over time."""


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """A run, simulated or measured, as pandas shows it; docs/metrics.md defines every number.

    Attributes:
        run: What the record holds.
        limits: Of each request, for the summary's attainment and goodput.
    """

    run: Run
    limits: tuple[Slo, ...] = ()

    @property
    def summary(self) -> "pd.Series[Any]":
        """The numbers that `replay` prints, by their names in its JSON; None where there is none."""
        values = asdict(sim.summary.summarize(self.run, self.limits))
        return pd.Series(values, name=self.run.meta.run_id, dtype=object)

    @property
    def requests(self) -> pd.DataFrame:
        """A row a request: the record's columns, and ttft_s, tpot_s, e2e_s and held_s; NaN if not known."""
        outcomes = self.run.outcomes
        columns = {field.name: getattr(outcomes, field.name) for field in fields(outcomes)}
        columns["status"] = np.array(STATUS_NAMES, dtype=object)[outcomes.status]
        latencies = {f"{name}_s": latency_s(outcomes, name) for name in ("ttft", "tpot", "e2e")}
        frame = pd.DataFrame({name: values for name, values in columns.items() if values is not None})
        return frame.assign(**latencies, held_s=outcomes.released_s - outcomes.arrival_s)

    @property
    def power(self) -> pd.DataFrame:
        """A row a sample: energy_j since time 0, and power_w, the mean since the sample before."""
        frame = pd.DataFrame({"time_s": self.run.power.time_s, "energy_j": self.run.power.energy_j})
        return frame.assign(power_w=frame["energy_j"].diff() / frame["time_s"].diff())

    def save(self, folder: str | Path) -> None:
        """Write the record into `folder`, which must not exist; the command's other tools read it."""
        with _in_one_line():
            traces.record_files.write_run(self.run, Path(folder))


def read_trace(
    path: str | Path,
    *,
    from_s: float | None = None,
    to_s: float | None = None,
    limit: int | None = None,
    stretch: float = 1.0,
) -> pd.DataFrame:
    """Return the requests in a file of any known format as rows, sorted by arrival.

    Columns are arrival_s, prompt_tokens, output_tokens and, where the file has them, prefix_hashes,
    session_id, request_class and deadline_s. `attrs` tells the name, the source and notes.

    Args:
        path: The file, or the name of a public trace that was fetched (docs/traces.md).
        from_s, to_s, limit, stretch: As `--from-s`, `--to-s`, `--limit` and `--stretch` of the command.

    Raises:
        ValueError: The file cannot be read, or nothing of it is left.
    """
    with _in_one_line():
        trace = traces.reading.read_trace(traces.fetch.located(path))
    return to_frame(select(trace, from_s=from_s, to_s=to_s, limit=limit, stretch=stretch))


def read_run(folder: str | Path, *, slos: Sequence[str] = ()) -> Result:
    """Return the run whose record lies in `folder`.

    Args:
        folder: The record.
        slos: Limits of each request in seconds, for the summary's attainment and goodput: ["ttft=2"].

    Raises:
        ValueError: It is no record, or damaged, or a limit is refused.
    """
    limits = parse_limits(slos)
    with _in_one_line():
        return Result(traces.record_files.read_run(Path(folder)), limits)


def simulate(
    trace: pd.DataFrame | Trace | str | Path,
    policy: str | Policy = "immediate",
    *,
    options: Options | None = None,
    table: str | None = None,
    engine: Options | None = None,
    replicas: int = 1,
    router: str = "round-robin",
    scaling: str = "fixed",
    fleet: str | Path | None = None,
    length_prediction: str = "none",
    seed: int = 0,
    grid_intensity: Rate = None,
    price: Rate = None,
    currency: str | None = None,
    pue: float | None = None,
    slos: Sequence[str] = (),
) -> Result:
    """Simulate a replay, as `replay TRACE` does.

    Args:
        trace: Rows as `read_trace` returns them, or a file.
        policy: A name, `FILE.py:CLASS`, or a fresh policy of your own (docs/policies.md).
        options: Of a policy given by name, as `--set`: {"window_s": 5}.
        table: Name, folder or file of the cost table; None for the default one.
        engine: Engine options by vLLM's names, as `--engine`: {"max_num_seqs": 128}.
        replicas: Equal engines behind the policy.
        router: Which of them a request goes to.
        scaling: Which of them sleep, and when.
        fleet: File of pools (docs/fleet.md), in place of table, engine, replicas, router and scaling.
        length_prediction: What the policy is told of output lengths: none, oracle or noisy:cv=F.
        seed: Of everything drawn.
        grid_intensity: For carbon, as `--grid-intensity`: 350 or "day.csv:period_s=86400".
        price: Of a kWh, as `--price`.
        currency: Label of the price.
        pue: Energy of the whole site per energy of the GPUs, for both.
        slos: Limits of each request, as of `read_run`.

    Raises:
        ValueError: Something of this is refused, or a request cannot be served.
    """
    if not isinstance(policy, str) and options:
        raise ValueError(
            f"options are for a policy given by name, got {type(policy).__name__}; set them there"
        )
    limits = parse_limits(slos)
    with _in_one_line():
        rates = _rates(grid_intensity, price, currency, pue)
        setup = _setup(table, engine, FleetOptions(replicas, router, scaling), fleet)
        chosen = make_policy(policy, _texts(options), seed) if isinstance(policy, str) else policy
        requests = predict_lengths(_trace(trace), length_prediction, seed)
    ensure_predicted(requests, chosen)
    run = with_footprint(sim.simulate.simulate_fleet(requests, chosen, setup, seed=seed), rates)
    told = {} if length_prediction == "none" else {"length_prediction": length_prediction}
    name = policy if isinstance(policy, str) else run.meta.policy
    return Result(replace(run, meta=replace(run.meta, policy=name, trace_options=told)), limits)


def summarize(*results: Result) -> pd.DataFrame:
    """Return the summaries of runs side by side, a row each, with policy and trace before the numbers."""
    rows = [
        {"trace": result.run.meta.trace_name, "policy": result.run.meta.policy, **result.summary}
        for result in results
    ]
    return pd.DataFrame(rows)


def compare(
    simulated: Result,
    *measured: Result,
    force: bool = False,
    grid_intensity: Rate = None,
    price: Rate = None,
    currency: str | None = None,
    pue: float | None = None,
) -> pd.DataFrame:
    """Return how far a simulated run is from measured ones, a row a metric (docs/compare.md).

    Columns are simulated, measured, error_fraction, noise_fraction and is_within_target, NaN or None where
    there is no such number.

    Args:
        simulated: A simulated run.
        measured: At least one measured run of the same requests and policy.
        force: Compare runs that broke a guard, too.
        grid_intensity, price, currency, pue: For carbon and price, as of `simulate`.

    Raises:
        ValueError: The runs do not fit together, one broke a guard, or a rate is refused.
    """
    with _in_one_line():
        rates = _rates(grid_intensity, price, currency, pue)
    run, *runs = [with_footprint(result.run, rates) for result in (simulated, *measured)]
    comparison = sim.compare.compare(run, tuple(runs), force=force)
    rows = [{**asdict(row), "is_within_target": row.is_within_target} for row in comparison.rows]
    return pd.DataFrame(rows).set_index("metric")


def _setup(
    table: str | None, engine: Options | None, equal: FleetOptions, fleet: str | Path | None
) -> Setup | Pools:
    if fleet is None:
        costs = load_table(table or DEFAULT)
        return Setup(from_strings(_texts(engine), options_among(costs.engine)), equal, costs)
    if (table, engine, equal) != (None, None, FleetOptions()):
        raise ValueError(f"{fleet} tells table, engine, replicas, router and scaling; leave these out")
    return read_fleet(Path(fleet))


def _rates(grid_intensity: Rate, price: Rate, currency: str | None, pue: float | None) -> Rates:
    intensity, tariff = (None if rate is None else str(rate) for rate in (grid_intensity, price))
    return read_rates(intensity, tariff, currency, pue)


def _trace(trace: pd.DataFrame | Trace | str | Path) -> Trace:
    if isinstance(trace, Trace):
        return trace
    if isinstance(trace, pd.DataFrame):
        return from_frame(trace)
    return traces.reading.read_trace(traces.fetch.located(trace))


def _texts(options: Options | None) -> dict[str, str]:
    """Return options as the command takes them."""
    return {name: as_text(value) for name, value in (options or {}).items()}


@contextmanager
def _in_one_line() -> Iterator[None]:
    """Turn what the file system refuses into a ValueError."""
    try:
        yield
    except OSError as error:
        raise ValueError(one_line(error)) from error
