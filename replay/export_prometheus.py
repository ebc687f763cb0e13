"""A run as Prometheus text: vLLM's names and buckets (0.32) for requests, our own for the rest."""

from collections.abc import Iterator
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from replay.histogram import histogram
from sim import metrics
from traces.record import STATUS_NAMES, Meta, Outcomes, Run
from traces.trace import Counts

if TYPE_CHECKING:
    from prometheus_client.core import Metric

TTFT_S = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
    *(20.0, 40.0, 80.0, 160.0, 640.0, 2560.0),
)
TPOT_S = (
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
    *(20.0, 40.0, 80.0),
)
LATENCY_S = (
    *(0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0),
    *(120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0),
)
LABELS = ("model_name", "engine")


def prometheus_text(run: Run) -> str:
    """Return the run in Prometheus' text format, as a scrape at its end would see it.

    Raises:
        ValueError: prometheus_client is missing.
    """
    try:
        from prometheus_client import CollectorRegistry, generate_latest
    except ImportError as error:
        raise ValueError(
            "this format needs prometheus_client, which is not installed; pip install 'replay[export]'"
        ) from error
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collected(run))
    return generate_latest(registry).decode()


class _Collected:
    """What a registry collects of a run."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def collect(self) -> Iterator["Metric"]:
        """Yield all metrics."""
        yield from _of_requests(self._run)
        yield from _of_run(self._run)


def _of_requests(run: Run) -> Iterator["Metric"]:
    from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily

    parts, model = _by_engine(run), model_of(run.meta)
    token_bounds = _one_two_five(_longest(run))
    histograms: tuple[tuple[str, str, Any, tuple[float, ...]], ...] = (
        ("vllm:time_to_first_token_seconds", "Time to first token.", metrics.ttft_s, TTFT_S),
        ("vllm:request_time_per_output_token_seconds", "Time per output token.", metrics.tpot_s, TPOT_S),
        ("vllm:e2e_request_latency_seconds", "From arrival to last token.", metrics.e2e_s, LATENCY_S),
        ("vllm:request_prompt_tokens", "Prompt tokens of a request.", _prompt_tokens, token_bounds),
        ("vllm:request_generation_tokens", "Output tokens of a request.", _output_tokens, token_bounds),
        ("replay_request_held_seconds", "How long the policy held a request.", metrics.held_s, LATENCY_S),
    )
    for name, documentation, values_of, bounds in histograms:
        family = HistogramMetricFamily(name, documentation, labels=LABELS)
        for engine, outcomes in parts:
            counted = histogram(values_of(outcomes), bounds)
            cumulative = np.cumsum(counted.counts).tolist()
            ends = [*(str(float(bound)) for bound in bounds), "+Inf"]
            family.add_metric((model, engine), list(zip(ends, cumulative, strict=True)), counted.total)
        yield family
    for name, documentation, values_of in (
        ("vllm:prompt_tokens", "Prompt tokens of the served requests.", _prompt_tokens),
        ("vllm:generation_tokens", "Output tokens of the served requests.", _output_tokens),
    ):
        counter = CounterMetricFamily(name, documentation, labels=LABELS)
        for engine, outcomes in parts:
            counter.add_metric((model, engine), float(values_of(outcomes).sum(dtype=np.int64)))
        yield counter
    counter = CounterMetricFamily(
        "replay_requests", "Requests by what became of them.", labels=(*LABELS, "status")
    )
    for engine, outcomes in parts:
        for status, name in enumerate(STATUS_NAMES):
            counter.add_metric((model, engine, name), int(np.count_nonzero(outcomes.status == status)))
    yield counter


def _of_run(run: Run) -> Iterator["Metric"]:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    meta = run.meta
    energy = CounterMetricFamily(
        "replay_energy_joules", "Energy of the GPUs from time 0 to the last completion.", labels=("part",)
    )
    for part, part_j in energy_parts_j(run).items():
        energy.add_metric((part,), part_j)
    yield energy
    yield GaugeMetricFamily(
        "replay_makespan_seconds", "From time 0 to the last completion.", value=meta.makespan_s
    )
    yield GaugeMetricFamily("replay_energy_valid", "1 if every guard held.", value=float(meta.energy_valid))
    facts = {
        "run_id": meta.run_id,
        "kind": meta.kind,
        "trace": meta.trace_name,
        "policy": meta.policy,
        "table": meta.table or "",
        "gpu": meta.gpu or "",
        "energy_source": meta.energy_source,
    }
    info = GaugeMetricFamily("replay_run_info", "What was replayed, always 1.", labels=tuple(facts))
    info.add_metric(tuple(facts.values()), 1.0)
    yield info


def energy_parts_j(run: Run) -> dict[str, float]:
    """Return the energy by part: prefill, decode and idle, or `unsplit` alone; nothing if it is not known."""
    energy, total_j = run.meta.energy, run.total_energy_j
    if energy is not None:
        return {"prefill": energy.prefill_j, "decode": energy.decode_j, "idle": energy.idle_j}
    return {} if total_j is None else {"unsplit": total_j}


def model_of(meta: Meta) -> str:
    """Return the model's name if the record tells it, else the cost table's, which is of one model."""
    return str(meta.engine_options.get("model") or meta.table or "unknown")


def _by_engine(run: Run) -> list[tuple[str, Outcomes]]:
    """Return the outcomes of each replica; of several that the record does not tell apart, as `all`."""
    outcomes = run.outcomes
    if outcomes.replica is None:
        return [("0" if run.meta.engine_options.get("replicas", 1) == 1 else "all", outcomes)]
    engines = range(max(len(run.meta.replicas), int(outcomes.replica.max()) + 1))
    return [(str(engine), _rows(outcomes, outcomes.replica == engine)) for engine in engines]


def _rows(outcomes: Outcomes, rows: NDArray[np.bool_]) -> Outcomes:
    columns: dict[str, Any] = {field.name: getattr(outcomes, field.name) for field in fields(outcomes)}
    for name, values in columns.items():
        columns[name] = None if values is None else values[rows]
    return Outcomes(**columns)


def _prompt_tokens(outcomes: Outcomes) -> Counts:
    return outcomes.prompt_tokens[metrics.served(outcomes)]


def _output_tokens(outcomes: Outcomes) -> Counts:
    return outcomes.output_tokens[metrics.served(outcomes)]


def _longest(run: Run) -> int:
    """Return max_model_len, or where that is not known the tokens of the longest request."""
    lengths = run.outcomes.prompt_tokens.astype(np.int64) + run.outcomes.output_tokens
    return int(run.meta.engine_options.get("max_model_len") or lengths.max(initial=1))


def _one_two_five(most: int) -> tuple[float, ...]:
    """Return 1, 2, 5, 10, 20, 50, ... up to `most`."""
    series = (float(digit * 10**power) for power in range(len(str(most))) for digit in (1, 2, 5))
    return tuple(bound for bound in series if bound <= most)
