"""Live replicas: each request on one of them, each joule with the replica whose GPU took it."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from openai_server import Script, running
from scripted_nvml import ScriptedNvml
from standin_engine import DECODE_W, IDLE_W, PREFILL_W, StandInEngine
from test_openai_command import replay, trace_file
from toy_table import toy_table
from toy_trace import toy_trace

import backends.measured_run
import backends.rig
from backends.measured_split import split_by_table
from backends.replica_rig import visible, visible_slices
from backends.replicas import Replicas, merge_steps
from backends.step_log import STEP
from sim.table_files import DEFAULT, load_table, save_table
from traces.parquet import write_trace
from traces.record_files import read_attachment, read_run

REPLAY = """
import os, sys, time
import backends.measured_run, backends.replica_rig, backends.rig
from standin_engine import StandInEngine
from replay.main import main

FACTORS = {}

class Engine(StandInEngine):
    def __init__(self, model, options, step_log):
        super().__init__(step_log, lambda prefill, decode: 0.1 if prefill else 0.04, draw=self.draw)

    async def start(self):
        self.gpu = os.environ["CUDA_VISIBLE_DEVICES"]
        await super().start()

    def draw(self, watts):
        with open(os.environ["SCRIPTED_NVML"], "a") as script:
            script.write(f"{time.monotonic():.9f} {self.gpu} power_w {watts * FACTORS.get(self.gpu, 1.0)}\\n")

backends.replica_rig.VllmEngine = Engine
backends.rig.WARM_UPS = ((16, 2),)
backends.measured_run.WAIT_AFTER_S = 0.5
main(sys.argv[1:])
assert "CUDA_VISIBLE_DEVICES" not in os.environ
"""
ADAPTING = REPLAY.replace(
    "main(sys",
    """
from calibrate import grid
from calibrate.grid import Point
CARD = [Point("decode", batch=4, context_tokens=64), Point("prefill", chunk_tokens=400, streams=2)]
grid.CARD_LOADS = (Point("idle"), *CARD)
FACTORS["1"] = 1.2
main(sys""",
)
"""Adapts by three loads to cards of which the second draws a fifth more."""


class Busy:
    """An engine whose requests last until they are let go."""

    def __init__(self, **facts: Any) -> None:
        self._facts = facts
        self.free = asyncio.Event()
        self.began = 0

    def facts(self) -> dict[str, Any]:
        return self._facts

    async def generate(
        self,
        request_id: str,  # noqa: ARG002, the protocol's
        prompt: list[int],  # noqa: ARG002
        output_tokens: int,
    ) -> AsyncIterator[int]:
        self.began += 1
        await self.free.wait()
        yield output_tokens


async def drain(replicas: Replicas, request_id: str) -> int:
    return sum([tokens async for tokens in replicas.generate(request_id, [1], 3)])


def test_a_replica_that_is_free_again_is_the_least_loaded() -> None:
    async def serve() -> tuple[list[int | None], int]:
        engines = [Busy(), Busy()]
        replicas = Replicas(engines, "least-loaded")
        tasks = []
        for name in "abc":
            tasks.append(asyncio.create_task(drain(replicas, name)))
            await asyncio.sleep(0)
        engines[1].free.set()
        await tasks[1]
        tasks.append(asyncio.create_task(drain(replicas, "d")))
        await tasks[3]
        engines[0].free.set()
        tokens = sum(await asyncio.gather(*tasks))
        return [replicas.replica_of(name) for name in "abcde"], tokens

    assert asyncio.run(serve()) == ([0, 1, 0, 1, None], 12)


def test_a_request_that_is_given_up_runs_on_no_replica() -> None:
    async def serve() -> list[int | None]:
        replicas = Replicas([Busy(), Busy()], "least-loaded")
        for name in "ab":
            task = asyncio.create_task(drain(replicas, name))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        return [replicas.replica_of(name) for name in "ab"]

    assert asyncio.run(serve()) == [0, 0]


def test_a_live_router_knows_the_request_behind_an_id() -> None:
    sessions = np.array(["a", "b", "a", "b", "b"], dtype=object)

    async def serve() -> list[int | None]:
        engines = [Busy(), Busy()]
        replicas = Replicas(engines, "prefix-affinity")
        replicas.expect(replace(toy_trace([0.0] * 5), session_id=sessions))
        tasks = []
        for row in range(5):
            tasks.append(asyncio.create_task(drain(replicas, f"toy-{row}")))
            await asyncio.sleep(0)
        for engine in engines:
            engine.free.set()
        await asyncio.gather(*tasks)
        return [replicas.replica_of(f"toy-{row}") for row in range(5)]

    assert asyncio.run(serve()) == [0, 1, 0, 1, 1]


def test_facts_are_those_of_one_replica_and_the_fleets() -> None:
    facts = Replicas([Busy(model="a", max_model_len=9), Busy(model="a")], "round-robin").facts()
    assert facts == {"model": "a", "max_model_len": 9, "replicas": 2, "router": "round-robin"}


def test_replicas_that_differ_are_refused() -> None:
    with pytest.raises(ValueError, match="replica 1 has model 'b', the first has 'a'; replicas have to be"):
        Replicas([Busy(model="a"), Busy(model="b")], "round-robin")


def test_merged_steps_say_whose_they_are_in_the_order_of_their_end() -> None:
    logs = [np.zeros(2, dtype=STEP), np.zeros(1, dtype=STEP)]
    logs[0]["done_s"], logs[0]["chunks"] = [1.0, 3.0], [1, 3]
    logs[1]["done_s"], logs[1]["chunks"] = [2.0], [2]
    merged = merge_steps(logs)
    assert merged["chunks"].tolist() == [1, 2, 3]
    assert merged["replica"].tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("given", "slices"),
    [
        (None, ["2,3", "5,7"]),
        ("2, 3,5,7,1", ["2,3", "5,7"]),
        ("GPU-a,GPU-b,GPU-c,GPU-d", ["GPU-a,GPU-b", "GPU-c,GPU-d"]),
    ],
)
def test_replicas_share_the_visible_gpus_in_order(given: str | None, slices: list[str]) -> None:
    environment = {} if given is None else {"CUDA_VISIBLE_DEVICES": given}
    assert visible_slices(environment, (2, 3, 5, 7), 2) == slices


def test_visible_gpus_are_as_before_when_an_engine_has_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)
    with visible("1"):
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "1"
        assert os.environ["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0,1"
    assert "CUDA_DEVICE_ORDER" not in os.environ


def test_each_joule_is_divided_by_the_steps_of_its_own_replica(nvml: ScriptedNvml, tmp_path: Path) -> None:
    for gpu in range(3):
        nvml.add_gpu(gpu, IDLE_W)
    write_trace(
        toy_trace([0.5, 0.6, 2.0, 4.5], [100, 400, 16, 1], [10, 30, 20, 20]), tmp_path / "toy.parquet"
    )
    arguments = ["--backend", "vllm", "--model", "toy", "--replicas", "2", "--out", str(tmp_path / "run")]
    done = nvml.run("-c", REPLAY, str(tmp_path / "toy.parquet"), *arguments, "--json")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    run = read_run(tmp_path / "run")
    assert run.meta.invalid_reasons == ()
    assert (run.meta.gpus, run.meta.engine_options["replicas"]) == (2, 2)
    assert run.meta.gpu == "NVIDIA Invented 0 + NVIDIA Invented 1"
    assert run.meta.idle_w == pytest.approx(2 * IDLE_W, rel=0.02)

    sends = read_attachment(tmp_path / "run", "sends")
    steps = read_attachment(tmp_path / "run", "steps")
    assert sends is not None
    assert steps is not None
    assert sends["replica"].tolist() == [0, 1, 0, 1]
    assert set(steps["replica"].tolist()) == {0, 1}
    lasted_s, prefills = steps["done_s"] - steps["scheduled_s"], steps["prefill_tokens"] > 0
    prefill_s, decode_s = lasted_s[prefills].sum(), lasted_s[~prefills].sum()
    idle_s = 2 * run.meta.makespan_s - prefill_s - decode_s
    scripted_j = IDLE_W * idle_s + PREFILL_W * prefill_s + DECODE_W * decode_s
    assert summary["total_energy_j"] == pytest.approx(scripted_j, rel=0.02)
    assert summary["idle_energy_j"] == pytest.approx(IDLE_W * idle_s, rel=0.05)

    uses = run.meta.replicas
    assert [use.requests for use in uses] == [2, 2]
    assert sum(use.busy_j for use in uses) == pytest.approx(
        summary["prefill_energy_j"] + summary["decode_energy_j"], rel=1e-9
    )
    assert sum(use.idle_j for use in uses) == pytest.approx(summary["idle_energy_j"], rel=1e-9)
    for replica, use in enumerate(uses):
        own = steps["replica"] == replica
        assert use.busy_s == pytest.approx(lasted_s[own].sum(), rel=0.01)
        assert use.total_s == pytest.approx(run.meta.makespan_s, rel=1e-12)
        scripted_j = PREFILL_W * lasted_s[own & prefills].sum() + DECODE_W * lasted_s[own & ~prefills].sum()
        assert use.busy_j == pytest.approx(scripted_j, rel=0.05)
        assert use.idle_w == pytest.approx(IDLE_W, rel=0.02)
    assert summary["replicas"] == [asdict(use) for use in uses]
    with pytest.raises(ValueError, match=r"several replicas, .* give --table to the replay"):
        split_by_table(run, steps, load_table(DEFAULT).coefficients)


def test_a_validated_fleet_is_simulated_as_one(nvml: ScriptedNvml, tmp_path: Path) -> None:
    for gpu in range(2):
        nvml.add_gpu(gpu, IDLE_W)
    write_trace(toy_trace([0.5, 0.5, 2.0, 4.5], [100, 400, 16, 1], [10, 30, 20, 20]), tmp_path / "a.parquet")
    arguments = ["--model", "toy", "--replicas", "2", "--router", "least-loaded", "--out", str(tmp_path)]
    done = nvml.run("-c", REPLAY, "validate", str(tmp_path / "a.parquet"), *arguments)
    assert done.returncode == 0, done.stderr
    measured, simulated = (read_run(tmp_path / "a-immediate" / name) for name in ("measured-1", "simulated"))
    for run in (measured, simulated):
        assert (run.meta.gpus, run.meta.engine_options["router"]) == (2, "least-loaded")
    assert simulated.outcomes.replica is not None
    assert simulated.outcomes.replica[:2].tolist() == [0, 1]


def test_each_replica_of_a_fleet_has_its_own_adapted_table(nvml: ScriptedNvml, tmp_path: Path) -> None:
    for gpu, power_w in enumerate((IDLE_W, 1.2 * IDLE_W)):
        nvml.add_gpu(gpu, power_w)
    nvml.say(-0.5, 1, name="NVIDIA Invented 0")
    facts = StandInEngine(tmp_path, lambda *_: 0.0).facts()
    (tmp_path / "table").mkdir()
    save_table(toy_table(gpu="NVIDIA Invented 0", engine=facts), tmp_path / "table")
    write_trace(toy_trace([0.5, 0.5, 2.0, 4.5], [100, 400, 16, 1], [10, 30, 20, 20]), tmp_path / "a.parquet")
    out = tmp_path / "out"
    arguments = ["--model", "toy", "--table", str(tmp_path / "table"), "--out", str(out), "--adapt"]
    command = ["validate", str(tmp_path / "a.parquet"), *arguments, "--replicas", "2", "--json"]
    done = nvml.run("-c", ADAPTING, *command)
    assert done.returncode == 0, done.stderr
    tables = [load_table(str(out / f"adapted-{replica}")) for replica in range(2)]
    assert [table.meta["adapted_from"] for table in tables] == ["toy", "toy"]
    idle_w = [table.coefficients.idle_w for table in tables]
    assert idle_w == pytest.approx([IDLE_W, 1.2 * IDLE_W], rel=0.02)
    simulated = read_run(out / "a-immediate" / "simulated")
    assert simulated.meta.table == "adapted-0 + adapted-1"
    assert simulated.meta.idle_w == pytest.approx(sum(idle_w))
    measured = read_run(out / "a-immediate" / "measured-1")
    assert [use.idle_w for use in measured.meta.replicas] == pytest.approx(idle_w, rel=0.02)
    (comparison,) = json.loads(done.stdout)["cases"].values()
    assert comparison["table"] == "adapted-0 + adapted-1"
    assert comparison["logged"]["measured_j"] == pytest.approx(measured.total_energy_j)


def test_replicas_need_as_many_gpus_as_all_of_them_take(nvml: ScriptedNvml) -> None:
    nvml.add_gpu(0, IDLE_W)
    code = "from backends.gpu_watch import engine_gpus; engine_gpus({'tensor_parallel_size': 2}, {}, 3)"
    assert "3 replicas need 6 GPUs, 1 are visible" in nvml.run("-c", code).stderr


def test_servers_given_by_several_urls_are_replicas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends.rig, "WARM_UPS", ((16, 2),))
    monkeypatch.setattr(backends.measured_run, "IDLE_BEFORE_S", 0.01)
    monkeypatch.setattr(backends.measured_run, "WAIT_AFTER_S", 0.01)
    trace = trace_file(tmp_path, [0.0, 0.0, 0.0], [20, 21, 22], 3)
    one, two = Script(), Script()
    with running(one) as first, running(two) as second:
        result = replay(trace, first, tmp_path / "run", "--url", second, "--router", "least-loaded")
    assert result.exit_code == 0, result.output
    sends = read_attachment(tmp_path / "run", "sends")
    assert sends is not None
    assert sends["replica"].tolist() == [0, 1, 0]
    served = [[len(request["prompt"]) for request in script.requests[-2:]] for script in (one, two)]
    assert (sorted(served[0]), served[1][-1]) == ([20, 22], 21)
    assert read_run(tmp_path / "run").meta.engine_options["router"] == "least-loaded"
