"""`replay import vllm-bench`: a benchmark's requests become a measured run, and nothing is made up."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from toy_run import toy_run
from toy_table import toy_table

from replay.bench_result import read_bench
from replay.export_bench import bench_result
from replay.main import main
from sim.summary import summarize
from sim.table_files import save_table
from traces.record import FAILED, SERVED, Run
from traces.record_files import read_run

RESULT: dict[str, Any] = {
    "date": "20300102-030405",
    "backend": "vllm",
    "model_id": "org/toy",
    "request_rate": 2.0,
    "max_concurrency": None,
    "duration": 4.0,
    "completed": 3,
    "failed": 0,
    "input_lens": [10, 20, 30],
    "output_lens": [3, 1, 2],
    "ttfts": [0.5, 0.25, 1.0],
    "itls": [[0.25, 0.5], [], [0.75]],
    "start_times": [5000.0, 5000.5, 5002.0],
    "generated_texts": ["a b c", "d", "e f"],
    "errors": ["", "", ""],
}
"""Invented, with the fields that vLLM 0.25 saves."""
QUEUED = {"max_concurrency": 2, "queue_times": [0.0, 0.5, 1.5], "latencies": [1.25, 0.25, 1.75]}
"""What vLLM 0.32 saves beside these."""


def read(folder: Path, **changes: Any) -> Run:
    """Read the result with fields changed, those that are None left out."""
    (folder / "result.json").write_text(json.dumps({**RESULT, **changes}))
    return read_bench(folder / "result.json")


def imported(folder: Path, result: dict[str, Any]) -> Result:
    (folder / "result.json").write_text(json.dumps(result))
    arguments = ["import", "vllm-bench", str(folder / "result.json"), "--out", str(folder / "run")]
    return CliRunner().invoke(main, arguments, prog_name="replay")


def test_requests_have_the_times_of_the_file_from_the_first_on(tmp_path: Path) -> None:
    outcomes = read(tmp_path).outcomes
    assert outcomes.arrival_s.tolist() == outcomes.released_s.tolist() == [0.0, 0.5, 2.0]
    assert outcomes.first_token_s.tolist() == [0.5, 0.75, 3.0]
    assert outcomes.finished_s.tolist() == [1.25, 0.75, 3.75]
    assert outcomes.prompt_tokens.tolist() == [10, 20, 30]
    assert outcomes.output_tokens.tolist() == [3, 1, 2]
    assert (outcomes.status == SERVED).all()


def test_what_the_file_does_not_tell_is_not_known(tmp_path: Path) -> None:
    run = read(tmp_path)
    meta, summary = run.meta, summarize(run)
    assert (meta.kind, meta.energy_source, meta.energy_valid) == ("measured", "none", True)
    assert (meta.gpu, meta.table, meta.idle_w, meta.energy, summary.total_energy_j) == (None,) * 5
    assert np.isnan(run.outcomes.energy_j).all()
    assert (meta.makespan_s, meta.policy, meta.engine_options) == (3.75, "immediate", {"model": "org/toy"})


def test_a_request_that_a_limit_held_back_arrives_before_it_was_sent(tmp_path: Path) -> None:
    run = read(tmp_path, **QUEUED)
    assert run.outcomes.arrival_s.tolist() == [0.0, 0.0, 0.5]
    assert run.outcomes.released_s.tolist() == [0.0, 0.5, 2.0]
    assert (run.meta.policy, run.meta.policy_options) == ("concurrency", {"most": 2})


def test_without_queue_times_held_requests_arrive_as_sent_and_a_note_says_so(tmp_path: Path) -> None:
    run = read(tmp_path, max_concurrency=2)
    assert run.outcomes.arrival_s.tolist() == [0.0, 0.5, 2.0]
    assert run.meta.policy == "immediate"
    assert any("max_concurrency" in note for note in run.meta.notes)


def test_queue_times_without_a_limit_are_the_clients_own_and_change_nothing(tmp_path: Path) -> None:
    run = read(tmp_path, **{**QUEUED, "max_concurrency": None})
    assert run.outcomes.arrival_s.tolist() == [0.0, 0.5, 2.0]


def test_requests_are_in_the_order_of_their_arrival(tmp_path: Path) -> None:
    run = read(tmp_path, start_times=[5002.0, 5000.5, 5000.0])
    assert run.outcomes.prompt_tokens.tolist() == [30, 20, 10]
    assert run.outcomes.arrival_s.tolist() == [0.0, 0.5, 2.0]


def test_a_failed_request_counts_as_failed_and_makes_the_run_invalid(tmp_path: Path) -> None:
    run = read(
        tmp_path, errors=["", "Traceback:\n  ...\nTimeoutError: too late\n", ""], output_lens=[3, 0, 2]
    )
    assert run.outcomes.status.tolist() == [SERVED, FAILED, SERVED]
    assert np.isnan(run.outcomes.finished_s[1])
    assert not run.meta.energy_valid
    assert run.meta.invalid_reasons == ("1 requests failed, the first is 1: TimeoutError: too late",)


def test_a_request_without_output_is_not_served(tmp_path: Path) -> None:
    run = read(tmp_path, output_lens=[3, 0, 2])
    assert summarize(run).failed == 1
    assert run.meta.invalid_reasons == ("1 requests failed, the first is 1: no output token",)


def test_a_benchmark_that_failed_altogether_is_a_record_too(tmp_path: Path) -> None:
    run = read(tmp_path, errors=["refused"] * 3, output_lens=[0] * 3)
    assert (run.meta.makespan_s, summarize(run).served, summarize(run).ttft_p50_s) == (4.0, 0, None)


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"input_lens": None}, "has no input_lens; run `vllm bench serve` with --save-detailed, too"),
    ({"ttfts": [0.5]}, "must tell each of every request, it has 3 input_lens, 3 output_lens, 1 ttfts"),
    ({"start_times": [5000.0, 0.0, 5001.0]}, "its requests take 5002.75 s, its duration is 4 s"),
    ({"start_times": [5000.0, None, 5001.0]}, "its requests take nan s"),
    ({"ttfts": [0.5, 0.0, 1.0]}, "no time to first token (1 requests); stream the answers"),
    ({"itls": None}, "not as `vllm bench serve` writes it"),
    ({"date": "yesterday"}, "not as `vllm bench serve` writes it (time data 'yesterday'"),
    ({"output_lens": ["three", 1, 2]}, "not as `vllm bench serve` writes it"),
    ({"duration": "long"}, "not as `vllm bench serve` writes it"),
]


@pytest.mark.parametrize(("changes", "message"), REFUSED, ids=lambda value: str(value)[:30])
def test_a_file_that_does_not_fit_is_refused_in_one_line(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    result = imported(tmp_path, {**RESULT, **changes})
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"Error: {tmp_path / 'result.json'}: ")
    assert message in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1}\n{"a": 2}', "several results (--append-result), give one a file"),
        ("{", "not whole JSON"),
        ("[]", "no result of `vllm bench serve`"),
        ("{}", "no result of `vllm bench serve`; it has no date, duration and completed"),
    ],
)
def test_a_file_that_is_no_result_is_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text(text)
    with pytest.raises(ValueError, match=re.escape(message)):
        read_bench(tmp_path / "result.json")


def test_an_imported_benchmark_is_compared_with_a_simulation_of_its_requests(tmp_path: Path) -> None:
    result = imported(tmp_path, {**RESULT, **QUEUED})
    assert result.exit_code == 0, result.output
    assert "not metered" in result.stdout
    run, simulated = tmp_path / "run", tmp_path / "simulated"
    (tmp_path / "table").mkdir()
    save_table(
        toy_table(engine={"max_num_seqs": 4, "num_gpu_blocks": 64, "max_model_len": 512}), tmp_path / "table"
    )
    replayed = [str(run / "requests.parquet"), "--policy", "concurrency", "--set", "most=2"]
    for arguments in (
        [*replayed, "--table", str(tmp_path / "table"), "--out", str(simulated)],
        ["compare", str(simulated), str(run), "--json"],
    ):
        ended = CliRunner().invoke(main, arguments, prog_name="replay")
        assert ended.exit_code == 0, ended.output
    rows = {row["metric"]: row for row in json.loads(ended.stdout)["rows"]}
    assert rows["ttft_p50_s"]["measured"] == 0.75
    assert rows["total_energy_j"]["measured"] is None


def test_what_was_exported_comes_back(tmp_path: Path) -> None:
    run = toy_run()
    imported(tmp_path, bench_result(run))
    back = read_run(tmp_path / "run").outcomes
    for name in ("arrival_s", "first_token_s", "finished_s", "prompt_tokens", "output_tokens", "status"):
        assert np.array_equal(getattr(back, name), getattr(run.outcomes, name), equal_nan=True), name
