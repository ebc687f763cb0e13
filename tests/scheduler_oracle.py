"""vLLM's own scheduler and KV cache manager as an oracle: one process, many workloads.

Run by an interpreter that can import vLLM's Python files; it needs no GPU and no model. Each line of standard
input is a workload, each line of standard output says what every step of it held:

    {"options": {...}, "requests": [[row, prompt_tokens, output_tokens, priority, [block hash, ...]], ...],
     "block_tokens": 16, "arrivals": [[step, row], ...], "connector": null, "sent": [[step, row], ...]}

A request arrives just before call number `step` of the scheduler. With the connector `receives` the KV of
every prompt comes along, as from a prefill engine; with `sends` the blocks of a finished request are held
until just before the step that `sent` tells. Where a prompt has block hashes, its tokens follow from them;
all other tokens are the request's own. Answers are as long as `output_tokens` says.
"""

# pyright: reportMissingImports=false

import inspect
import json
import os
import sys
from collections import deque
from collections.abc import Callable
from importlib import import_module
from types import SimpleNamespace
from typing import Any

os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

OWN_TOKENS = 1 << 40
"""Above every token that follows from a block hash."""


class Oracle:
    """One vLLM scheduler, its engine loop, and a model that answers as it is told."""

    def __init__(
        self,
        options: dict[str, Any],
        requests: list[list[Any]],
        block_tokens: int,
        connector: str | None = None,
    ) -> None:
        """Build a fresh scheduler under `options`, which bear the names of the project's engine options."""
        self._depth = 2 if options["async_scheduling"] else 1
        self._known = {request[0]: request for request in requests}
        self._block_tokens = block_tokens
        self._hasher = new_hasher(options)
        self._scheduler = new_scheduler(options)
        if connector is not None:
            connect(self._scheduler, {"receives": Receiver, "sends": Sender}[connector]())
        self._given = dict.fromkeys(self._known, 0)
        self._arrived = 0
        self._preempted: list[int] = []
        preempt = self._scheduler._preempt_request

        def note_preemption(request: Any, *args: Any, **kwargs: Any) -> Any:
            self._preempted.append(int(request.request_id))
            return preempt(request, *args, **kwargs)

        self._scheduler._preempt_request = note_preemption

    def run(self, arrivals: list[list[int]], sent: list[list[int]]) -> list[dict[str, Any]]:
        """Run the engine core's loop until all is done and return the steps."""
        coming, in_flight, steps = deque(arrivals), deque[Any](), list[dict[str, Any]]()
        sending = deque(sent)
        while coming or in_flight or self._scheduler.has_requests():
            if not in_flight and not self._scheduler.has_requests() and coming[0][0] != len(steps):
                raise SystemExit(f"nothing to do at step {len(steps)}, the next arrival is at {coming[0][0]}")
            while coming and coming[0][0] <= len(steps):
                self._add(coming.popleft()[1])
            while sending and sending[0][0] <= len(steps):
                names = {str(sending.popleft()[1])}
                self._scheduler._update_from_kv_xfer_finished(
                    SimpleNamespace(finished_recving=None, finished_sending=names)
                )
            if self._scheduler.has_requests():
                output, step = self._schedule()
                in_flight.append(output)
                steps.append(step)
                if len(in_flight) < self._depth and self._scheduler.has_requests():
                    continue
            self._answer(in_flight.popleft())
        return steps

    def _add(self, row: int) -> None:
        from vllm.sampling_params import SamplingParams
        from vllm.v1.request import Request

        _, prompt_tokens, output_tokens, priority, hashes = self._known[row]
        prompt = [hash_ * self._block_tokens + i for hash_ in hashes for i in range(self._block_tokens)]
        prompt = prompt[:prompt_tokens]
        prompt += [own_token(row, i) for i in range(len(prompt), prompt_tokens)]
        self._arrived += 1
        self._scheduler.add_request(
            Request(
                request_id=str(row),
                prompt_token_ids=prompt,
                sampling_params=SamplingParams(max_tokens=output_tokens, ignore_eos=True, detokenize=False),
                pooling_params=None,
                arrival_time=float(self._arrived),
                priority=priority,
                block_hasher=self._hasher,
            )
        )

    def _schedule(self) -> tuple[Any, dict[str, Any]]:
        scheduler = self._scheduler
        self._preempted.clear()
        output = scheduler.schedule()
        manager, batch = scheduler.kv_cache_manager, []
        for name, tokens in output.num_scheduled_tokens.items():
            context = scheduler.requests[name].num_computed_tokens - tokens
            blocks = sum(len(group) for group in manager.get_block_ids(name))
            batch.append([int(name), tokens, context, blocks])
        step = {
            "batch": batch,
            "preempted": list(self._preempted),
            "free_blocks": manager.block_pool.get_num_free_blocks(),
            "running": len(scheduler.running),
            "waiting": len(scheduler.waiting),
        }
        samplers = {
            name for name in output.num_scheduled_tokens if not scheduler.requests[name].is_prefill_chunk
        }
        return (output, samplers), step

    def _answer(self, flight: Any) -> None:
        from vllm.v1.outputs import ModelRunnerOutput

        output, samplers = flight
        names, tokens = list(output.num_scheduled_tokens), list[list[int]]()
        for name in names:
            if name in samplers:
                row = int(name)
                tokens.append([own_token(row, self._known[row][1] + self._given[row])])
                self._given[row] += 1
            else:
                tokens.append([])
        places = {name: place for place, name in enumerate(names)}
        self._scheduler.update_from_output(
            output, ModelRunnerOutput(req_ids=names, req_id_to_index=places, sampled_token_ids=tokens)
        )


def own_token(row: int, place: int) -> int:
    """Return a token that no other request has, nor this one anywhere else."""
    return OWN_TOKENS + (row << 24) + place


def new_hasher(options: dict[str, Any]) -> Any:
    """Return what computes the block hashes of a request, None without prefix caching."""
    from vllm.utils.hashing import sha256
    from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash

    init_none_hash(sha256)
    if not options["enable_prefix_caching"]:
        return None
    return get_request_block_hasher(options["block_size"], sha256)


def new_scheduler(options: dict[str, Any]) -> Any:
    """Return vLLM's scheduler for a model with one full-attention layer, and no model."""
    from vllm.config import CacheConfig, ObservabilityConfig, ParallelConfig, SchedulerConfig
    from vllm.v1.core.sched.async_scheduler import AsyncScheduler
    from vllm.v1.core.sched.scheduler import Scheduler
    from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec

    block_size = options["block_size"]
    cache = CacheConfig(block_size=block_size, enable_prefix_caching=options["enable_prefix_caching"])
    cache.num_gpu_blocks = options["num_gpu_blocks"]
    in_flight = 2 if options["async_scheduling"] else 1
    config = SimpleNamespace(
        scheduler_config=SchedulerConfig(
            is_encoder_decoder=False,
            policy=options["scheduling_policy"],
            **{name: options[name] for name in SAME_NAMES},
        ),
        cache_config=cache,
        parallel_config=ParallelConfig(),
        observability_config=ObservabilityConfig(),
        model_config=Absent(max_model_len=options["max_model_len"], runner_type="generate"),
        max_concurrent_batches=in_flight,
        max_in_flight_tokens=in_flight * options["max_num_batched_tokens"],
        ec_manager_config=SimpleNamespace(get_encoder_cache_manager_obj=lambda: None),
        **ABSENT_PARTS,
    )
    layer = FullAttentionSpec(
        block_size=block_size, num_kv_heads=1, head_size=1, dtype=import_module("torch").float32
    )
    blocks = KVCacheConfig(
        num_blocks=options["num_gpu_blocks"],
        kv_cache_tensors=[],
        kv_cache_groups=[KVCacheGroupSpec(["layer"], layer)],
    )
    kind = AsyncScheduler if options["async_scheduling"] else Scheduler
    arguments = {
        "vllm_config": config,
        "kv_cache_config": blocks,
        "structured_output_manager": SimpleNamespace(
            should_advance=lambda *_, **__: False, accept_tokens=lambda *_, **__: True
        ),
        "block_size": block_size,
        "hash_block_size": block_size,
        "mm_registry": Absent(),
        "log_stats": False,
    }
    return kind(**only_known(Scheduler.__init__, arguments))


class Absent(SimpleNamespace):
    """A part of the configuration that is not there: what it is not told is false, also when called."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Absent()

    def __call__(self, *_: Any, **__: Any) -> bool:
        return False

    def __bool__(self) -> bool:
        return False


class Receiver(Absent):
    """A connector that loads all of a prompt's KV but the last token's, once, in the step that admits it."""

    def __init__(self) -> None:
        super().__init__(loaded=set())

    def get_num_new_matched_tokens(self, request: Any, computed_tokens: int) -> tuple[int, bool]:
        if request.request_id in self.loaded:
            return 0, False
        return max(request.num_prompt_tokens - 1 - computed_tokens, 0), False

    def update_state_after_alloc(self, request: Any, *_: Any) -> None:
        self.loaded.add(request.request_id)

    def request_finished(self, *_: Any) -> tuple[bool, None]:
        return False, None


class Sender(Absent):
    """A connector that has the blocks of what is finished held until it is told that they are sent."""

    requires_kv_delivery = True

    def get_num_new_matched_tokens(self, *_: Any) -> tuple[int, bool]:
        return 0, False

    def request_finished(self, *_: Any) -> tuple[bool, None]:
        return True, None


def connect(scheduler: Any, connector: Any) -> None:
    """Give the scheduler a connector, for which alone it takes no steps."""
    scheduler.connector = connector
    scheduler.requires_kv_delivery = bool(connector.requires_kv_delivery)
    scheduler.has_finished_requests = lambda: bool(scheduler.finished_req_ids)


SAME_NAMES = (
    "max_num_batched_tokens",
    "max_num_seqs",
    "max_model_len",
    "enable_chunked_prefill",
    "long_prefill_token_threshold",
    "async_scheduling",
)
ABSENT_PARTS: dict[str, Any] = {
    "lora_config": None,
    "kv_events_config": None,
    "kv_transfer_config": None,
    "ec_transfer_config": None,
    "speculative_config": None,
    "num_speculative_tokens": 0,
    "num_lookahead_tokens": 0,
    "num_prefill_lookahead_tokens": 0,
    "num_hash_lookahead_tokens": 0,
    "use_v2_model_runner": False,
    "is_mm_encoder_only": False,
    "aux_output_config": SimpleNamespace(enabled=False),
}


def only_known(function: Callable[..., Any], arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments that this version's function takes."""
    return {
        name: value for name, value in arguments.items() if name in inspect.signature(function).parameters
    }


def main() -> None:
    """Answer workloads until standard input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    import vllm

    print(json.dumps({"version": vllm.__version__}), file=answers, flush=True)
    for line in sys.stdin:
        workload = json.loads(line)
        names = ("options", "requests", "block_tokens", "connector")
        oracle = Oracle(*(workload[name] for name in names))
        print(json.dumps(oracle.run(workload["arrivals"], workload["sent"])), file=answers, flush=True)


if __name__ == "__main__":
    main()
