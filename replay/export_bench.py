"""A run as the JSON that `vllm bench serve --save-result --save-detailed` writes (vLLM 0.32)."""

from datetime import datetime
from typing import Any

import numpy as np

from sim import metrics
from sim.metrics import latency_s
from traces.record import SERVED, STATUS_NAMES, Outcomes, Run
from traces.trace import Floats

PERCENTILES = (90, 99)


def bench_result(run: Run) -> dict[str, Any]:
    """Return the fields of vLLM's result, and after them `replay`, which vLLM would call metadata.

    The client's clock starts at the arrival, so that TTFT and E2E are those of docs/metrics.md. What the
    record does not tell (the text, single tokens' times) is None. As in vLLM's own results, a request that
    was not served has 0 output tokens, an error, and 0 s for the times that it has not.
    """
    meta, outcomes = run.meta, run.outcomes
    rows = metrics.served(outcomes)
    prompt_tokens, output_tokens = (
        int(column[rows].sum(dtype=np.int64)) for column in (outcomes.prompt_tokens, outcomes.output_tokens)
    )
    completed = int(np.count_nonzero(rows))
    ended_s = meta.makespan_s
    return {
        "date": f"{datetime.fromisoformat(meta.started_at):%Y%m%d-%H%M%S}",
        "endpoint_type": "replay",
        "backend": "replay",
        "label": meta.run_id,
        "model_id": meta.engine_options.get("model"),
        "tokenizer_id": None,
        "num_prompts": meta.requests,
        "request_rate": None,
        "burstiness": None,
        "max_concurrency": None,
        "duration": ended_s,
        "completed": completed,
        "failed": meta.requests - completed,
        "total_input_tokens": prompt_tokens,
        "total_output_tokens": output_tokens,
        "request_throughput": metrics.ratio(completed, ended_s),
        "request_goodput": None,
        "output_throughput": metrics.ratio(output_tokens, ended_s),
        "total_token_throughput": metrics.ratio(prompt_tokens + output_tokens, ended_s),
        "input_lens": outcomes.prompt_tokens.tolist(),
        "output_lens": np.where(rows, outcomes.output_tokens, 0).tolist(),
        "ttfts": np.nan_to_num(latency_s(outcomes, "ttft")).tolist(),
        "itls": None,
        "latencies": np.nan_to_num(latency_s(outcomes, "e2e")).tolist(),
        "start_times": outcomes.arrival_s.tolist(),
        "queue_times": [0.0] * len(outcomes),
        "generated_texts": None,
        "errors": ["" if status == SERVED else STATUS_NAMES[status] for status in outcomes.status],
        "max_output_tokens_per_s": None,
        "max_concurrent_requests": _most_at_once(outcomes),
        "rtfx": 0.0,
        **_statistics("ttft", metrics.ttft_s(outcomes)),
        **_statistics("tpot", metrics.tpot_s(outcomes)),
        **_statistics("e2el", metrics.e2e_s(outcomes)),
        "replay": _facts(run),
    }


def _statistics(name: str, values_s: Floats) -> dict[str, float | None]:
    """Return what vLLM tells of a latency, in milliseconds; all None if no request has it."""
    values_ms = 1e3 * values_s
    some = len(values_ms) > 0
    return {
        f"mean_{name}_ms": float(values_ms.mean()) if some else None,
        f"median_{name}_ms": metrics.quantile(values_ms, 0.5),
        f"std_{name}_ms": float(values_ms.std()) if some else None,
        **{f"p{p}_{name}_ms": metrics.quantile(values_ms, p / 100) for p in PERCENTILES},
    }


def _most_at_once(outcomes: Outcomes) -> int:
    """Return the most served requests that were there in one second, by whole seconds as vLLM counts."""
    rows = metrics.served(outcomes)
    if not rows.any():
        return 0
    first_s = outcomes.arrival_s[rows].min()
    comes = (outcomes.arrival_s[rows] - first_s).astype(np.int64)
    goes = (outcomes.finished_s[rows] - first_s).astype(np.int64)
    change = np.zeros(int(goes.max()) + 2, np.int64)
    np.add.at(change, comes, 1)
    np.add.at(change, goes + 1, -1)
    return int(change.cumsum().max())


def _facts(run: Run) -> dict[str, Any]:
    """Return what vLLM's result has no field for."""
    meta, energy = run.meta, run.meta.energy
    return {
        "kind": meta.kind,
        "trace": meta.trace_name,
        "trace_sha256": meta.trace_sha256,
        "policy": meta.policy,
        "policy_options": meta.policy_options,
        "table": meta.table,
        "gpu": meta.gpu,
        "gpus": meta.gpus,
        "total_energy_j": run.total_energy_j,
        "prefill_energy_j": None if energy is None else energy.prefill_j,
        "decode_energy_j": None if energy is None else energy.decode_j,
        "idle_energy_j": None if energy is None else energy.idle_j,
        "energy_source": meta.energy_source,
        "energy_valid": meta.energy_valid,
        "invalid_reasons": list(meta.invalid_reasons),
    }
