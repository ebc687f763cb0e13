"""Step for step what vLLM's own scheduler decides.

Compares with the vLLM that is installed, and with each version whose Python files lie in a folder
`vllm-VERSION` of the environment (CONTRIBUTING.md says how to make it). REPLAY_PARITY_EXAMPLES is the number
of random workloads a version.
"""

import json
import os
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from serving import Step, receiver, sender, serve, serve_by, small_options, steps_of, trace_of
from toy_table import toy_table

from sim.engine import SimulatedEngine
from sim.kv_transfer import KvTransfer
from sim.options import EngineOptions
from sim.pools import prompts_of
from traces.reading import read_trace
from traces.trace import PrefixBlocks, Trace

INSTALLED = ""
PATHS = [INSTALLED, *map(str, sorted(Path(sys.prefix).glob("vllm-*")))]
EXAMPLES = int(os.environ.get("REPLAY_PARITY_EXAMPLES", "200"))

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed"),
]


class Oracle:
    """vLLM's scheduler in a process of its own."""

    def __init__(self, path: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("scheduler_oracle.py"))],
            env={**os.environ, "PYTHONPATH": path},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.version: str = self._read()["version"]

    def steps(
        self,
        trace: Trace,
        options: EngineOptions,
        arrivals: list[tuple[int, int]],
        connector: str | None = None,
        sent: Sequence[tuple[int, int]] = (),
    ) -> list[dict[str, Any]]:
        """Return what vLLM does when the requests arrive, and have been sent, before these steps."""
        requests = [
            (
                row,
                int(trace.prompt_tokens[row]),
                int(trace.output_tokens[row]),
                0 if trace.is_offline is None else int(trace.is_offline[row]),
                [] if trace.prefix is None else trace.prefix.of(row),
            )
            for row in range(len(trace))
        ]
        workload = {
            "options": asdict(options),
            "requests": requests,
            "block_tokens": 1 if trace.prefix is None else trace.prefix.block_tokens,
            "arrivals": arrivals,
            "connector": connector,
            "sent": sent,
        }
        assert self._process.stdin is not None
        print(json.dumps(workload), file=self._process.stdin, flush=True)
        steps: list[dict[str, Any]] = self._read()
        return steps

    def close(self) -> None:
        self._process.communicate(timeout=60)

    def _read(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the oracle ended; its last words are above"
        return json.loads(line)


@pytest.fixture(scope="module", params=PATHS, ids=lambda path: Path(path).name or "installed")
def oracle(request: pytest.FixtureRequest) -> Iterator[Oracle]:
    oracle = Oracle(request.param)
    yield oracle
    oracle.close()


@pytest.fixture(scope="module")
def met() -> dict[str, Counter[str]]:
    """What occurred in the workloads so far, by version."""
    return defaultdict(Counter)


def as_vllm_tells_it(step: Step) -> dict[str, Any]:
    return {
        "batch": [[row, tokens, step.context[row], step.blocks[row]] for row, tokens in step.batch],
        "preempted": step.preempted,
        "free_blocks": step.free_blocks,
        "running": step.running,
        "waiting": step.waiting,
    }


def assert_same_schedule(oracle: Oracle, trace: Trace, options: EngineOptions) -> Counter[str]:
    """Serve the trace, have vLLM schedule the same arrivals, compare each step, count what occurred."""
    return assert_same_steps(oracle, trace, options, serve(trace, options))


def assert_same_steps(
    oracle: Oracle,
    trace: Trace,
    options: EngineOptions,
    engine: SimulatedEngine,
    connector: str | None = None,
) -> Counter[str]:
    """Have vLLM schedule what an engine has served, compare each step, count what occurred."""
    ours = steps_of(engine)
    arrivals = [(number, row) for number, step in enumerate(ours) for row in step.arrived]
    sent = sent_before(engine) if connector == "sends" else []
    theirs = oracle.steps(trace, options, arrivals, connector, sent)
    for number, (our, their) in enumerate(zip(ours, theirs, strict=False)):
        assert as_vllm_tells_it(our) == their, f"step {number} of {len(ours)}"
    assert not any(step["batch"] for step in theirs[len(ours) :])
    assert len(theirs) >= len(ours)
    return Counter(
        workloads=1,
        steps=len(ours),
        preemptions=sum(len(step.preempted) for step in ours),
        hits=count_hits(ours),
        waits=sum(step.waiting > 0 for step in ours),
    )


def sent_before(engine: SimulatedEngine) -> list[tuple[int, int]]:
    """Return the step before which each request's blocks are free again, if there is one, and the request."""
    steps = np.searchsorted(engine.log.steps[:, 0], engine.finished_s)
    order = np.argsort(engine.finished_s, kind="stable")
    return [(int(steps[row]), int(row)) for row in order]


def count_hits(steps: list[Step]) -> int:
    """Return how many admissions found a cached prefix."""
    hits, seated = 0, set[int]()
    for step in steps:
        seated.difference_update(step.preempted)
        hits += sum(step.context[row] > 0 for row, _ in step.batch if row not in seated)
        seated.update(row for row, _ in step.batch)
    return hits


@st.composite
def workloads(draw: st.DrawFn) -> tuple[Trace, EngineOptions]:
    """Draw requests, some with common prefixes, and options at whose limits they run."""
    block_size = draw(st.sampled_from([1, 2, 4, 16]))
    request = st.tuples(
        st.integers(1, 80),
        st.one_of(st.integers(1, 4), st.integers(1, 40)),
        st.sampled_from([0.0, 0.0, 0.0, 0.004, 0.03, 0.2]),
        st.booleans(),
        st.integers(0, 1),
        st.sampled_from([0, 1, 2, 5, 20]),
    )
    requests = draw(st.lists(request, min_size=1, max_size=16))
    prompts, outputs, gaps_s, is_offline, families, shared = zip(*requests, strict=True)
    longest = max(prompt + output for prompt, output, *_ in requests)
    least_blocks = -(-(longest - 1) // block_size) + 1
    model_len = longest + draw(st.integers(0, 3))
    max_num_seqs = draw(st.sampled_from([1, 2, 3, 5, 16]))
    chunked = draw(st.booleans())
    budget = max(draw(st.one_of(st.integers(1, 12), st.integers(8, 120))), max_num_seqs)
    options = small_options(
        max_num_batched_tokens=budget if chunked else max(budget, model_len),
        max_num_seqs=max_num_seqs,
        max_model_len=model_len,
        num_gpu_blocks=least_blocks + draw(st.one_of(st.integers(0, 3), st.integers(0, 60))),
        block_size=block_size,
        enable_chunked_prefill=chunked,
        long_prefill_token_threshold=min(draw(st.sampled_from([0, 0, 0, 1, 5, 30])), longest),
        scheduling_policy=draw(st.sampled_from(["fcfs", "priority"])),
        enable_prefix_caching=draw(st.booleans()),
        async_scheduling=draw(st.booleans()),
    )
    block_tokens = block_size * draw(st.sampled_from([1, 1, 4]))
    prefix = prefixes(prompts, families, shared, block_tokens) if draw(st.integers(0, 3)) else None
    trace = trace_of(prompts, outputs, np.cumsum(gaps_s).tolist(), is_offline, prefix)
    return trace, options


def prefixes(
    prompts: tuple[int, ...], families: tuple[int, ...], shared: tuple[int, ...], block_tokens: int
) -> PrefixBlocks:
    """Return hashes of which the first `shared` blocks are common to a family."""
    hashes, offsets = list[int](), [0]
    for row, prompt in enumerate(prompts):
        blocks = -(-prompt // block_tokens)
        hashes += [
            1000 * families[row] + i if i < shared[row] else 10_000 + 100 * row + i for i in range(blocks)
        ]
        offsets.append(len(hashes))
    return PrefixBlocks(np.array(hashes, np.int64), np.array(offsets, np.int64), block_tokens)


random = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


@random
@given(workload=workloads())
def test_every_step_of_random_workloads_is_vllms(
    oracle: Oracle, met: dict[str, Counter[str]], workload: tuple[Trace, EngineOptions]
) -> None:
    trace, options = workload
    met[oracle.version] += assert_same_schedule(oracle, trace, replace(options, vllm_version=oracle.version))


@random
@given(workload=workloads())
def test_every_step_of_requests_that_bring_their_kv_is_vllms(
    oracle: Oracle, met: dict[str, Counter[str]], workload: tuple[Trace, EngineOptions]
) -> None:
    trace, options = workload[0], replace(workload[1], vllm_version=oracle.version)
    engine = serve_by(receiver(trace, options, toy_table()), trace)
    met[f"{oracle.version} receives"] += assert_same_steps(oracle, trace, options, engine, "receives")


@random
@given(workload=workloads(), token_s=st.sampled_from([0.0001, 0.001, 0.01]))
def test_every_step_of_an_engine_that_sends_kv_is_vllms(
    oracle: Oracle, met: dict[str, Counter[str]], workload: tuple[Trace, EngineOptions], token_s: float
) -> None:
    trace, options = prompts_of(workload[0]), replace(workload[1], vllm_version=oracle.version)
    transfer = KvTransfer(bytes_per_s=1 / token_s, latency_s=0.01, bytes_per_token=1)
    engine = serve_by(sender(trace, options, transfer, toy_table()), trace)
    # Preempted with its token in flight, a request finished in 0.25.1 though its KV was lost.
    assume(engine.preemptions == 0 or not oracle.version.startswith("0.25."))
    met[f"{oracle.version} sends"] += assert_same_steps(oracle, trace, options, engine, "sends")


def test_the_random_workloads_met_the_hard_cases(oracle: Oracle, met: dict[str, Counter[str]]) -> None:
    print(f"vLLM {oracle.version}: {dict(met[oracle.version])}")
    assert min(met[oracle.version][name] for name in ("preemptions", "hits", "waits")) >= EXAMPLES // 10


SHARED = Path(__file__).parents[2] / "shared" / "traces"


@pytest.mark.nightly
@pytest.mark.parametrize("async_scheduling", [True, False], ids=["async", "sync"])
@pytest.mark.parametrize(
    ("name", "num_gpu_blocks"),
    [
        ("AzureLLMInferenceTrace_conv.csv", 8000),
        ("AzureLLMInferenceTrace_code.csv", 4000),
        ("mooncake_conversation_trace.jsonl", 30000),
    ],
)
def test_every_step_of_a_real_trace_is_vllms(
    oracle: Oracle, name: str, num_gpu_blocks: int, async_scheduling: bool
) -> None:
    """The first 2,000 requests, five times as fast as they came, on a KV cache that they overflow."""
    if not (SHARED / name).exists():
        pytest.skip(f"no ../shared/traces/{name}")
    trace = read_trace(SHARED / name).take(np.arange(2000))
    trace = replace(trace, arrival_s=trace.arrival_s / 5)
    options = EngineOptions(
        max_num_batched_tokens=8192,
        max_num_seqs=256,
        num_gpu_blocks=num_gpu_blocks,
        async_scheduling=async_scheduling,
        vllm_version=oracle.version,
    )
    met = assert_same_schedule(oracle, trace, options)
    print(f"vLLM {oracle.version}, {name}: {dict(met)}")
    assert met["waits"] > 0
    assert met["hits"] > 0 or met["preemptions"] > 0
