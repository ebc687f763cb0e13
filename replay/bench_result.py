"""What `vllm bench serve --save-result --save-detailed` writes, as the record of a measured run."""

import json
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from sim.guards import check
from traces.record import FAILED, SERVED, Meta, Outcomes, Power, Run

PER_REQUEST = ("input_lens", "output_lens", "ttfts", "start_times", "errors")
DATE = "%Y%m%d-%H%M%S"
CLOCK_SLACK_S = 1.0
NOT_METERED = "Energy was not metered: vLLM's benchmark tells latencies alone."
NO_ZONE = "The benchmark's date has no time zone; it was read as this machine's."
NO_QUEUE = (
    "The file does not tell when the requests that max_concurrency held back came; they arrive as sent."
)

Result = dict[str, Any]
Columns = dict[str, Any]


def read_bench(path: Path) -> Run:
    """Return the run that a result file of `vllm bench serve` tells of; its energy is not known.

    Time 0 is the first arrival. A request arrives when the client sent it, or where --max-concurrency held it
    back and the file has `queue_times`, so much earlier.

    Args:
        path: One result, saved in detail.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is no such result, or tells too little, or its parts do not fit together.
    """
    data = path.read_bytes()
    result = _parse(data, path)
    try:
        columns = _columns(result)
        started_at = _started_at(result)
    except (TypeError, ValueError, KeyError, OverflowError) as error:
        raise ValueError(f"{path}: not as `vllm bench serve` writes it ({error})") from error
    _ensure_fit(columns, float(result["duration"]), path)
    outcomes = _outcomes(columns)
    ends_s = outcomes.finished_s[outcomes.status == SERVED]
    meta = Meta(
        run_id=re.sub(r"[^\w.-]+", "-", path.stem),
        kind="measured",
        started_at=started_at.isoformat(timespec="seconds"),
        trace_name=path.stem,
        trace_sha256=sha256(data).hexdigest(),
        trace_source=f"the requests of {path.name}, a result of vllm bench serve",
        trace_options={},
        requests=len(outcomes),
        policy="immediate",
        policy_options={},
        engine_options={"model": result["model_id"]} if result.get("model_id") else {},
        table=None,
        table_source=None,
        gpu=None,
        gpus=0,
        power_limit_w=None,
        idle_w=None,
        versions={},
        seed=0,
        makespan_s=float(ends_s.max()) if len(ends_s) else float(result["duration"]),
        energy=None,
        energy_source="none",
        out_of_range_fraction=None,
        energy_valid=False,
        notes=(NOT_METERED, NO_ZONE),
    )
    run = Run(_with_policy(meta, result), outcomes, Power(np.zeros(0), np.zeros(0)))
    reasons = (*_failures(columns), *check(run))
    return replace(run, meta=replace(run.meta, energy_valid=not reasons, invalid_reasons=reasons))


def _parse(data: bytes, path: Path) -> Result:
    try:
        result = json.loads(data)
    except ValueError as error:
        several = "several results (--append-result), give one a file" if b"}\n{" in data else str(error)
        raise ValueError(f"{path}: not whole JSON: {several}") from error
    if not isinstance(result, dict) or not {"date", "duration", "completed"} <= result.keys():
        raise ValueError(f"{path}: no result of `vllm bench serve`; it has no date, duration and completed")
    for name in PER_REQUEST:
        if not isinstance(result.get(name), list):
            raise ValueError(f"{path}: has no {name}; run `vllm bench serve` with --save-detailed, too")
    lengths = {name: len(result[name]) for name in PER_REQUEST}
    if len(set(lengths.values())) > 1 or not lengths["errors"]:
        told = ", ".join(f"{length} {name}" for name, length in lengths.items())
        raise ValueError(f"{path}: must tell each of every request, it has {told}")
    return dict(result)


def _columns(result: Result) -> Columns:
    """Return what the file tells of each request, sorted by arrival; times in seconds."""
    sent_s, ttft_s = (np.array(result[name], np.float64) for name in ("start_times", "ttfts"))
    queued_s = np.zeros(len(sent_s))
    if _tells_queue(result):
        queued_s = np.maximum(np.array(result["queue_times"], np.float64), 0.0)
    if "latencies" in result:
        latency_s = np.array(result["latencies"], np.float64)
    else:
        latency_s = ttft_s + np.array([sum(gaps) for gaps in result["itls"]], np.float64)
    output_tokens = np.array(result["output_lens"], np.int32)
    errors = np.array([str(error).strip() for error in result["errors"]], dtype=object)
    columns = {
        "arrival_s": sent_s - queued_s,
        "sent_s": sent_s,
        "ttft_s": ttft_s,
        "latency_s": latency_s,
        "prompt_tokens": np.array(result["input_lens"], np.int32),
        "output_tokens": output_tokens,
        "errors": errors,
        "served": (errors == "") & (output_tokens > 0),
    }
    order = np.argsort(columns["arrival_s"], kind="stable")
    return {name: values[order] for name, values in columns.items()}


def _tells_queue(result: Result) -> bool:
    return bool(result.get("max_concurrency")) and "queue_times" in result


def _ensure_fit(columns: Columns, duration_s: float, path: Path) -> None:
    served = columns["served"]
    silent = served & ~(columns["ttft_s"] > 0)
    if silent.any():
        raise ValueError(f"{path}: no time to first token ({silent.sum()} requests); stream the answers")
    ends_s = (columns["sent_s"] + np.where(served, columns["latency_s"], 0.0)) - columns["arrival_s"][0]
    last_s = float(ends_s.max())
    if not last_s <= duration_s + CLOCK_SLACK_S:  # NaN is refused, too
        raise ValueError(
            f"{path}: its requests take {last_s:.6g} s, its duration is {duration_s:.6g} s; "
            f"start_times and duration must be of one benchmark"
        )


def _outcomes(columns: Columns) -> Outcomes:
    served, sent_s = columns["served"], columns["sent_s"] - columns["arrival_s"][0]
    return Outcomes(
        request_id=np.arange(len(served), dtype=np.int64),
        arrival_s=columns["arrival_s"] - columns["arrival_s"][0],
        released_s=sent_s,
        first_token_s=np.where(served, sent_s + columns["ttft_s"], np.nan),
        finished_s=np.where(served, sent_s + columns["latency_s"], np.nan),
        prompt_tokens=columns["prompt_tokens"],
        output_tokens=np.where(served, columns["output_tokens"], 0).astype(np.int32),
        status=np.where(served, SERVED, FAILED).astype(np.uint8),
        energy_j=np.full(len(served), np.nan),
    )


def _started_at(result: Result) -> datetime:
    """Return when the benchmark began; its date is when it ended."""
    ended_at = datetime.strptime(result["date"], DATE).astimezone(UTC)
    return ended_at - timedelta(seconds=float(result["duration"]))


def _with_policy(meta: Meta, result: Result) -> Meta:
    """Return the meta with what the benchmark's client did with the requests."""
    if not result.get("max_concurrency"):
        return meta
    if not _tells_queue(result):
        return replace(meta, notes=(*meta.notes, NO_QUEUE))
    return replace(meta, policy="concurrency", policy_options={"most": int(result["max_concurrency"])})


def _failures(columns: Columns) -> tuple[str, ...]:
    rows = np.flatnonzero(~columns["served"])
    if not len(rows):
        return ()
    why = columns["errors"][rows[0]].splitlines() or ["no output token"]
    return (f"{len(rows)} requests failed, the first is {rows[0]}: {why[-1]}",)
