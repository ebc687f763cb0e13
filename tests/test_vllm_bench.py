"""vLLM's own `bench serve` and vLLM's own server: what one saves is imported, what both tell is exported."""

import importlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_vllm import CONFIG, NEEDS_VLLM, ON_CPU, OPTIONS, TIMEOUT_S, write_model
from toy_run import toy_run

from replay.bench_result import read_bench
from replay.export_bench import bench_result
from replay.export_prometheus import prometheus_text

pytestmark = [pytest.mark.vllm, NEEDS_VLLM]

REQUESTS = 12
VOCABULARY: Any = CONFIG["vocab_size"]
CLIENT = """
from vllm.benchmarks.serve import add_cli_args, main
from vllm.utils.argparse_utils import FlexibleArgumentParser
parser = FlexibleArgumentParser()
add_cli_args(parser)
main(parser.parse_args())
"""
ENVIRONMENT = {**os.environ, **ON_CPU}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with a tokenizer of one word a token, which the benchmark's client needs."""
    folder = write_model(tmp_path_factory.mktemp("vllm") / "tiny")
    words = {f"w{token}": token for token in range(VOCABULARY - 1)}
    vocabulary = {"type": "WordLevel", "vocab": {**words, "<unk>": VOCABULARY - 1}, "unk_token": "<unk>"}
    parts = {"version": "1.0", "pre_tokenizer": {"type": "Whitespace"}, "model": vocabulary}
    others = ("truncation", "padding", "normalizer", "post_processor", "decoder")
    tokenizer = {**dict.fromkeys(others), "added_tokens": [], **parts}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    facts = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(facts))
    return folder


@pytest.fixture(scope="module")
def server(model: Path) -> Iterator[str]:
    """The address of a server of the model."""
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model)]
    command += ["--load-format", "dummy", "--host", "127.0.0.1", "--port", str(port), "--enforce-eager"]
    command += ["--dtype", OPTIONS["dtype"], "--block-size", str(OPTIONS["block_size"])]
    log = model / "server.log"
    with open(log, "w") as out:
        process = subprocess.Popen(command, env=ENVIRONMENT, stdout=out, stderr=subprocess.STDOUT)
    address = f"http://127.0.0.1:{port}"
    try:
        deadline_s = time.monotonic() + TIMEOUT_S
        while not answers(f"{address}/health"):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline_s, log.read_text()
            time.sleep(0.5)
        yield address
    finally:
        process.terminate()
        process.wait(timeout=60)


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except (urllib.error.URLError, OSError):
        return False


def benchmark(server: str, model: Path, out: Path, *arguments: str) -> dict[str, Any]:
    """Run `vllm bench serve` and return what it saved in `out`."""
    command = [sys.executable, "-c", CLIENT, "--backend", "vllm", "--base-url", server, "--model", str(model)]
    command += ["--dataset-name", "random", "--random-input-len", "64", "--random-output-len", "12"]
    command += ["--num-prompts", str(REQUESTS), "--ignore-eos", "--save-result", "--save-detailed"]
    command += ["--percentile-metrics", "ttft,tpot,e2el", "--metric-percentiles", "90,99"]
    command += ["--result-dir", str(out.parent), "--result-filename", out.name, *arguments]
    ended = subprocess.run(
        command, env=ENVIRONMENT, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    assert ended.returncode == 0, ended.stderr
    result: dict[str, Any] = json.loads(out.read_text())
    return result


def test_an_imported_benchmark_has_vllms_own_statistics(server: str, model: Path, tmp_path: Path) -> None:
    theirs = benchmark(server, model, tmp_path / "bench.json", "--request-rate", "20")
    run = read_bench(tmp_path / "bench.json")
    assert run.meta.invalid_reasons == ()
    ours = bench_result(run)
    same = ["completed", "failed", "total_input_tokens", "total_output_tokens", "max_concurrent_requests"]
    same += [name for name in theirs if name.endswith(("ttft_ms", "tpot_ms", "e2el_ms"))]
    assert len(same) == 20
    assert {name: ours[name] for name in same} == pytest.approx({name: theirs[name] for name in same})
    assert theirs.keys() <= ours.keys()


def test_what_a_limit_held_back_was_never_more_than_it_allows(
    server: str, model: Path, tmp_path: Path
) -> None:
    benchmark(server, model, tmp_path / "bench.json", "--max-concurrency", "3")
    run = read_bench(tmp_path / "bench.json")
    assert (run.meta.policy, run.meta.policy_options) == ("concurrency", {"most": 3})
    outcomes = run.outcomes
    assert outcomes.arrival_s.max() < outcomes.released_s.max() / 2
    running = [
        np.count_nonzero((outcomes.released_s <= at_s) & (outcomes.finished_s > at_s))
        for at_s in outcomes.released_s
    ]
    assert max(running) == 3


def test_a_scrape_of_the_server_has_the_types_labels_and_buckets_of_an_export(server: str) -> None:
    parser: Any = importlib.import_module("prometheus_client.parser")
    with urllib.request.urlopen(f"{server}/metrics", timeout=30) as answer:
        scraped = answer.read().decode()
    run = toy_run(engine_options={"max_model_len": CONFIG["max_position_embeddings"]})
    theirs, ours = (
        {family.name: family for family in parser.text_string_to_metric_families(text)}
        for text in (scraped, prometheus_text(run))
    )
    names = [name for name in ours if name.startswith("vllm:")]
    assert len(names) == 7
    for name in names:
        assert shape(ours[name]) == shape(theirs[name]), name


def shape(family: Any) -> tuple[str, set[tuple[str, str | None, tuple[str, ...]]]]:
    """Type of a metric, and the names, buckets and labels of its samples."""
    samples = (sample for sample in family.samples if not sample.name.endswith("_created"))
    return family.type, {(one.name, one.labels.get("le"), tuple(sorted(one.labels))) for one in samples}
