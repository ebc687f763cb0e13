"""A run as OTLP JSON with the metrics of OpenTelemetry's semantic conventions for generative AI, 1.37."""

from datetime import datetime, timedelta
from typing import Any

from replay.export_prometheus import energy_parts_j
from replay.histogram import histogram
from sim import metrics
from traces.record import Meta, Run
from traces.trace import Counts, Floats

SCHEMA_URL = "https://opentelemetry.io/schemas/1.37.0"
CUMULATIVE = 2
DURATION_S = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
TTFT_S = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
TPOT_S = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
TOKENS = tuple(float(4**power) for power in range(14))
JSON = dict[str, Any]


def otlp_metrics(run: Run) -> JSON:
    """Return the run as an OTLP MetricsData, cumulative, as of its end; 64-bit numbers are text."""
    meta, outcomes = run.meta, run.outcomes
    window, common = _window(meta), _attributes(meta)
    rows = metrics.served(outcomes)
    token_type = "gen_ai.token.type"
    usage = [
        _point(outcomes.prompt_tokens[rows], TOKENS, {**common, token_type: "input"}, window),
        _point(outcomes.output_tokens[rows], TOKENS, {**common, token_type: "output"}, window),
    ]
    seconds = (
        ("gen_ai.server.request.duration", metrics.e2e_s(outcomes), DURATION_S),
        ("gen_ai.server.time_to_first_token", metrics.ttft_s(outcomes), TTFT_S),
        ("gen_ai.server.time_per_output_token", metrics.tpot_s(outcomes), TPOT_S),
    )
    told = [
        *(
            _histogram(name, "s", [_point(values_s, bounds, common, window)])
            for name, values_s, bounds in seconds
        ),
        _histogram("gen_ai.client.token.usage", "{token}", usage),
        *_energy(run, window),
    ]
    scope = {"name": "replay", "version": meta.versions.get("replay", "")}
    scoped = {"scope": scope, "metrics": told, "schemaUrl": SCHEMA_URL}
    resource = {"attributes": _pairs(_of_resource(meta))}
    return {"resourceMetrics": [{"resource": resource, "scopeMetrics": [scoped], "schemaUrl": SCHEMA_URL}]}


def _histogram(name: str, unit: str, points: list[JSON]) -> JSON:
    return {
        "name": name,
        "unit": unit,
        "histogram": {"aggregationTemporality": CUMULATIVE, "dataPoints": points},
    }


def _point(values: Floats | Counts, bounds: tuple[float, ...], attributes: JSON, window: JSON) -> JSON:
    counted = histogram(values, bounds)
    return {
        "attributes": _pairs(attributes),
        **window,
        "count": str(counted.count),
        "sum": counted.total,
        "bucketCounts": [str(count) for count in counted.counts],
        "explicitBounds": list(bounds),
    }


def _energy(run: Run, window: JSON) -> list[JSON]:
    """Return the energy as a monotonic sum, nothing if it is not known."""
    points = [
        {"attributes": _pairs({"replay.part": part}), **window, "asDouble": part_j}
        for part, part_j in energy_parts_j(run).items()
    ]
    total = {"aggregationTemporality": CUMULATIVE, "isMonotonic": True, "dataPoints": points}
    return [{"name": "replay.energy", "unit": "J", "sum": total}] if points else []


def _window(meta: Meta) -> JSON:
    start = datetime.fromisoformat(meta.started_at)
    end = start + timedelta(seconds=meta.makespan_s)
    return {"startTimeUnixNano": _nanoseconds(start), "timeUnixNano": _nanoseconds(end)}


def _nanoseconds(time: datetime) -> str:
    return str(round(time.timestamp() * 1e6) * 1000)


def _attributes(meta: Meta) -> JSON:
    """Return what the conventions demand of each point; a server that is not known to be vLLM is `openai`."""
    is_vllm = "vllm" in meta.versions or "vllm_version" in meta.engine_options
    attributes = {
        "gen_ai.operation.name": "text_completion",
        "gen_ai.provider.name": "vllm" if is_vllm else "openai",
    }
    model = meta.engine_options.get("model")
    return attributes if model is None else {**attributes, "gen_ai.request.model": str(model)}


def _of_resource(meta: Meta) -> JSON:
    facts = {
        "service.name": "replay",
        "replay.run_id": meta.run_id,
        "replay.kind": meta.kind,
        "replay.trace": meta.trace_name,
        "replay.policy": meta.policy,
        "replay.table": meta.table,
        "replay.gpu": meta.gpu,
        "replay.energy_source": meta.energy_source,
        "replay.energy_valid": meta.energy_valid,
    }
    return {name: fact for name, fact in facts.items() if fact is not None}


def _pairs(attributes: JSON) -> list[JSON]:
    return [
        {"key": key, "value": {"boolValue" if isinstance(value, bool) else "stringValue": value}}
        for key, value in attributes.items()
    ]
