"""The step log: what vLLM's scheduler writes of each step, and what is read of it."""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fake_vllm
import numpy as np
import pytest

from backends.step_log import PATH_VARIABLE, STEP, read_steps


@pytest.fixture
def scheduler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Return a recording scheduler over a parent that does what it is told."""
    fake_vllm.install(monkeypatch)
    monkeypatch.setenv(PATH_VARIABLE, str(tmp_path / "steps.bin"))
    monkeypatch.delitem(sys.modules, "backends.vllm_scheduler", raising=False)
    from backends.vllm_scheduler import RecordingScheduler

    made: Any = RecordingScheduler()
    yield made
    made._out.close()
    monkeypatch.delitem(sys.modules, "backends.vllm_scheduler")


def request(prompt_tokens: int, computed: int = 0) -> Any:
    return SimpleNamespace(num_prompt_tokens=prompt_tokens, num_computed_tokens=computed)


def run(scheduler: Any, *plans: dict[str, int]) -> None:
    for plan in plans:
        scheduler.plans.append(plan)
        scheduler.update_from_output(scheduler.schedule(), "output")


def test_a_step_is_told_by_its_chunks_and_its_decoding_sequences(scheduler: Any, tmp_path: Path) -> None:
    scheduler.requests = {
        "long": request(1000, computed=600),
        "new": request(50),
        "old": request(20, computed=29),
    }
    scheduler.running, scheduler.waiting = ["long", "new", "old"], ["later"]
    run(scheduler, {"long": 300, "new": 50, "old": 1})
    (step,) = read_steps(tmp_path / "steps.bin")
    assert (step["chunks"], step["prefill_tokens"]) == (2, 350)
    # Token i of a chunk looks at the context before the chunk, at i - 1 tokens of it and at itself.
    pairs = sum(600 + i for i in range(1, 301)) + sum(range(1, 51))
    assert step["prefill_pairs"] == pairs
    assert (step["decode_seqs"], step["kv_tokens"]) == (1, 30)
    assert (step["running"], step["waiting"], step["free_blocks"]) == (3, 1, 99)
    assert step["scheduled_s"] < step["done_s"]


def test_the_longest_context_is_that_of_a_sequence_that_decodes(scheduler: Any, tmp_path: Path) -> None:
    scheduler.requests = {
        "prompt": request(5000, computed=3000),
        "old": request(20, computed=44),
        "oldest": request(20, computed=300),
        "young": request(20, computed=29),
    }
    run(scheduler, {"prompt": 500, "old": 1, "oldest": 1, "young": 1}, {"prompt": 1500})
    steps = read_steps(tmp_path / "steps.bin")
    assert steps["longest_tokens"].tolist() == [301, 0]
    assert steps["kv_tokens"].tolist() == [45 + 301 + 30, 0]


def test_the_step_after_the_last_prompt_token_decodes(scheduler: Any, tmp_path: Path) -> None:
    scheduler.requests = {"a": request(1)}
    run(scheduler, {"a": 1}, {"a": 1}, {"a": 1})
    steps = read_steps(tmp_path / "steps.bin")
    assert steps["chunks"].tolist() == [1, 0, 0]
    assert steps["decode_seqs"].tolist() == [0, 1, 1]
    assert steps["kv_tokens"].tolist() == [0, 2, 3]


def test_steps_in_flight_are_written_when_their_output_is_processed(scheduler: Any, tmp_path: Path) -> None:
    scheduler.requests = {"a": request(10)}
    scheduler.plans = [{"a": 10}, {"a": 1}]
    first, second = scheduler.schedule(), scheduler.schedule()
    assert len(read_steps(tmp_path / "steps.bin")) == 0
    assert scheduler.update_from_output(first, "first") == "updated by first"
    assert len(read_steps(tmp_path / "steps.bin")) == 1
    scheduler.update_from_output(second, "second")
    steps = read_steps(tmp_path / "steps.bin")
    assert steps["prefill_tokens"].tolist() == [10, 0]
    assert steps["scheduled_s"][1] < steps["done_s"][0]


def test_a_step_without_work_is_not_written(scheduler: Any, tmp_path: Path) -> None:
    run(scheduler, {})
    assert len(read_steps(tmp_path / "steps.bin")) == 0


def test_reading_leaves_out_what_was_before_and_a_row_that_is_being_written(tmp_path: Path) -> None:
    path = tmp_path / "steps.bin"
    assert read_steps(path).dtype == STEP
    rows = np.zeros(3, dtype=STEP)
    rows["done_s"] = [1.0, 2.0, 3.0]
    path.write_bytes(rows.tobytes() + b"begun")
    assert read_steps(path)["done_s"].tolist() == [1.0, 2.0, 3.0]
    assert read_steps(path, since_s=2.0)["done_s"].tolist() == [2.0, 3.0]
