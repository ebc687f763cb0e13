"""A real vLLM on the CPU, with a tiny model and a scripted GPU: what the record of a live replay holds."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scripted_nvml import ScriptedNvml
from tiny_vllm import NEEDS_VLLM, OPTIONS, TIMEOUT_S, on_cpu, write_model
from toy_trace import toy_trace

from traces.parquet import write_trace
from traces.record import SERVED, Run
from traces.record_files import read_attachment, read_run
from traces.trace import Trace

pytestmark = [pytest.mark.vllm, NEEDS_VLLM]

POWER_W = 300.0
TICK_J = POWER_W * 0.1
BUDGET, SEATS = 128, 4
TRACE = toy_trace(
    [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.5, 0.9, 1.3, 1.31, 1.32, 3.0, 4.2, 5.4, 6.0],
    [1, 2, 31, 32, 33, 300, 128, 129, 64, 127, 500, 7, 96, 256, 40],
    [9, 1, 2, 40, 5, 30, 1, 17, 8, 3, 64, 33, 2, 20, 11],
)
"""Prompts around a block's 32 tokens and the budget's 128, more of them at once than there are seats."""


@dataclass(frozen=True)
class Done:
    """What a live replay has left behind."""

    run: Run
    steps: dict[str, Any]
    sends: dict[str, Any]
    summary: dict[str, Any]


@pytest.fixture(scope="module")
def done(nvml_library: Path, tmp_path_factory: pytest.TempPathFactory) -> Done:
    folder = tmp_path_factory.mktemp("live")
    options = {"max_num_batched_tokens": BUDGET, "max_num_seqs": SEATS, "max_model_len": 1024}
    return replay_on_cpu(nvml_library, folder, TRACE, [POWER_W], options)


def replay_on_cpu(
    nvml_library: Path,
    folder: Path,
    trace: Trace,
    powers_w: Sequence[float],
    options: Mapping[str, Any],
    *more: str,
) -> Done:
    """Replay a trace by the command line, in front of GPUs that draw these powers.

    Args:
        nvml_library: The scripted NVML.
        folder: Takes all files.
        trace: The trace.
        powers_w: Of the GPUs, in order.
        options: Engine options besides those without which the model does not run.
        more: Further arguments.
    """
    nvml = on_cpu(ScriptedNvml(nvml_library, folder / "nvml.script"))
    for gpu, power_w in enumerate(powers_w):
        nvml.add_gpu(gpu, power_w)
    write_trace(trace, folder / "toy.parquet")
    arguments = [str(folder / "toy.parquet"), "--backend", "vllm", *more]
    arguments += ["--model", str(write_model(folder / "tiny"))]
    for name, value in {**OPTIONS, **options}.items():
        arguments += ["--engine", f"{name}={json.dumps(value)}"]
    arguments += ["--out", str(folder / "run"), "--json"]
    ended = nvml.run("-m", "replay", *arguments, timeout_s=TIMEOUT_S)
    assert ended.returncode == 0, ended.stderr
    steps, sends = (read_attachment(folder / "run", name) for name in ("steps", "sends"))
    assert steps is not None
    assert sends is not None
    return Done(read_run(folder / "run"), steps, sends, json.loads(ended.stdout))


def test_the_record_is_valid_and_names_the_engine(done: Done) -> None:
    meta = done.run.meta
    assert meta.invalid_reasons == ()
    assert meta.energy_valid
    assert (meta.kind, meta.energy_source, meta.gpu) == ("measured", "nvml", "NVIDIA Invented 0")
    options = meta.engine_options
    assert (options["max_num_batched_tokens"], options["max_num_seqs"]) == (BUDGET, SEATS)
    assert (options["model"], options["block_size"], options["random_weights"]) == ("tiny", 32, True)
    assert not options["async_scheduling"]  # vLLM has none on a CPU


def test_every_request_gets_its_tokens(done: Done) -> None:
    outcomes = done.run.outcomes
    assert (outcomes.status == SERVED).all()
    assert outcomes.prompt_tokens.tolist() == TRACE.prompt_tokens.tolist()
    assert outcomes.output_tokens.tolist() == TRACE.output_tokens.tolist()
    assert (done.summary["served"], done.summary["failed"]) == (len(TRACE), 0)


def test_the_steps_hold_the_tokens_of_the_requests(done: Done) -> None:
    steps = done.steps
    assert steps["prefill_tokens"].sum() == TRACE.prompt_tokens.sum()
    assert steps["decode_seqs"].sum() == (TRACE.output_tokens - 1).sum()
    contexts = [sum(range(p + 1, p + o)) for p, o in zip(*lengths(TRACE), strict=True)]
    assert steps["kv_tokens"].sum() == sum(contexts)
    assert steps["longest_tokens"].max() == max(
        p + o - 1 for p, o in zip(*lengths(TRACE), strict=True) if o > 1
    )
    assert steps["prefill_pairs"].sum() == sum(p * (p + 1) / 2 for p in TRACE.prompt_tokens.tolist())
    assert (steps["prefill_tokens"] + steps["decode_seqs"]).max() == BUDGET
    assert steps["running"].max() == SEATS
    assert steps["waiting"].max() > 0


def lengths(trace: Trace) -> tuple[list[int], list[int]]:
    return trace.prompt_tokens.tolist(), trace.output_tokens.tolist()


def test_the_times_of_a_request_are_those_of_its_steps(done: Done) -> None:
    outcomes, steps, sent_s = done.run.outcomes, done.steps, done.sends["sent_s"]
    assert outcomes.arrival_s.tolist() == TRACE.arrival_s.tolist()
    assert (outcomes.released_s >= outcomes.arrival_s).all()
    assert (sent_s >= outcomes.released_s).all()
    for row, (prompt, output) in enumerate(zip(*lengths(TRACE), strict=True)):
        chunks = ceil(prompt / BUDGET)
        assert between(steps, sent_s[row], outcomes.first_token_s[row]) >= chunks
        assert between(steps, sent_s[row], outcomes.finished_s[row]) >= chunks + output - 1
    assert steps["scheduled_s"].min() >= sent_s.min()
    assert steps["done_s"].max() <= done.run.meta.makespan_s == outcomes.finished_s.max()


def between(steps: dict[str, Any], from_s: float, to_s: float) -> int:
    """Return how many steps lie between two times."""
    return int(((steps["scheduled_s"] >= from_s) & (steps["done_s"] <= to_s)).sum())


def test_the_joules_are_those_scripted(done: Done) -> None:
    meta, summary, power = done.run.meta, done.summary, done.run.power
    assert meta.idle_w == pytest.approx(POWER_W, rel=0.01)
    assert summary["total_energy_j"] == pytest.approx(POWER_W * meta.makespan_s, abs=TICK_J)
    assert power.energy_j == pytest.approx(POWER_W * power.time_s, abs=TICK_J)
    busy_s = (done.steps["done_s"] - done.steps["scheduled_s"]).sum()
    assert 0 < busy_s < meta.makespan_s
    worked_j = summary["prefill_energy_j"] + summary["decode_energy_j"]
    # A tick is seen late where the meter waits for a processor: its energy lies in another place then.
    moved_j = np.abs(np.diff(power.energy_j) - POWER_W * np.diff(power.time_s)).sum()
    assert worked_j == pytest.approx(POWER_W * busy_s, rel=0.02, abs=moved_j)
