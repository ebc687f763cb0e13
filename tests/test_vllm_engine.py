"""How vLLM is driven: lengths pinned, random weights where there are none, and failures told in a line."""

import asyncio
import importlib.metadata
import os
from pathlib import Path
from typing import Any

import fake_vllm
import pytest

from backends.step_log import PATH_VARIABLE
from backends.vllm_engine import VllmEngine


@pytest.fixture(autouse=True)
def _vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_vllm.install(monkeypatch)
    monkeypatch.setattr(importlib.metadata, "version", lambda name: f"{name}'s version")
    monkeypatch.setenv(PATH_VARIABLE, "")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "toy"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return folder


def started(model: Path | str, **options: Any) -> VllmEngine:
    engine = VllmEngine(str(model), options, Path("steps.bin"))
    asyncio.run(engine.start())
    return engine


def inner(engine: VllmEngine) -> fake_vllm.AsyncLLM:
    """Return the vLLM that the engine drives."""
    found = engine._engine
    assert isinstance(found, fake_vllm.AsyncLLM)
    return found


def test_vllm_gets_the_options_and_a_scheduler_that_records(model: Path) -> None:
    options = inner(started(model, max_num_seqs=8)).options
    assert (options.model, options.max_num_seqs) == (str(model), 8)
    assert options.scheduler_cls == "backends.vllm_scheduler.RecordingScheduler"
    assert options.skip_tokenizer_init
    assert os.environ[PATH_VARIABLE] == "steps.bin"


@pytest.mark.parametrize(
    ("file", "load_format"),
    [(None, "dummy"), ("model-1.safetensors", "auto"), ("pytorch_model.bin", "auto"), ("notes.txt", "dummy")],
)
def test_a_folder_without_weights_runs_on_random_ones(
    model: Path, file: str | None, load_format: str
) -> None:
    if file is not None:
        (model / file).touch()
    engine = started(model)
    assert inner(engine).options.load_format == load_format
    assert engine.facts()["random_weights"] is (load_format == "dummy")


def test_a_name_is_left_to_vllm_and_a_given_option_wins(model: Path) -> None:
    assert inner(started("some/model")).options.load_format == "auto"
    assert inner(started(model, load_format="auto")).options.load_format == "auto"


def test_facts_are_the_options_in_force(model: Path) -> None:
    facts = started(model, quantization="fp8", max_num_seqs=16).facts()
    assert facts["model"] == "toy"
    assert (facts["dtype"], facts["quantization"], facts["max_num_seqs"]) == ("bfloat16", "fp8", 16)
    assert (facts["vllm"], facts["torch"]) == ("0.0.1", "torch's version")
    assert facts["cudagraph_capture_sizes"] == [1, 2, 4]
    assert facts["vocabulary"] == 1000


def test_a_request_gets_exactly_the_tokens_it_asks_for(model: Path) -> None:
    engine = started(model)

    async def deliveries() -> list[int]:
        return [tokens async for tokens in engine.generate("a", [1, 2, 3], 5)]

    assert asyncio.run(deliveries()) == [2, 2, 1]
    (sampling,) = inner(engine).sampling
    assert (sampling.max_tokens, sampling.ignore_eos, sampling.temperature) == (5, True, 0.0)
    assert (sampling.detokenize, sampling.output_kind) == (False, "delta")
    assert inner(engine).prompts == [[1, 2, 3]]


def test_a_request_that_is_closed_early_is_aborted(model: Path) -> None:
    engine = started(model)

    async def first_delivery() -> int:
        stream = engine.generate("a", [1], 100)
        tokens = await anext(stream)
        await stream.aclose()  # type: ignore[attr-defined]
        return tokens

    assert asyncio.run(first_delivery()) == 2
    assert inner(engine).aborted == ["a"]


def test_a_core_that_dies_is_one_line(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = started(model)
    monkeypatch.setattr(fake_vllm.AsyncLLM, "dies_after", 2)

    async def deliveries() -> list[int]:
        return [tokens async for tokens in engine.generate("a", [1], 8)]

    with pytest.raises(ValueError, match=r"^vLLM failed: EngineDeadError: EngineCore encountered an issue$"):
        asyncio.run(deliveries())


def test_an_unknown_option_and_a_failed_start_are_told(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"vLLM does not know an engine option: .*max_seqs"):
        started(model, max_seqs=8)
    monkeypatch.setattr(fake_vllm.AsyncLLM, "refuses", "Engine core initialization failed")
    with pytest.raises(
        ValueError, match="vLLM does not start: Engine core initialization failed; its own log"
    ):
        started(model)


def sleep_and_wake(engine: VllmEngine, level: int) -> None:
    async def both() -> None:
        await engine.sleep(level)
        await engine.wake(level)

    asyncio.run(both())


@pytest.mark.parametrize(
    ("level", "woken"),
    [
        (1, [("wake_up", None)]),
        (2, [("wake_up", ["weights"]), ("collective_rpc", "reload_weights"), ("wake_up", ["kv_cache"])]),
    ],
)
def test_weights_come_back_before_the_kv_cache(model: Path, level: int, woken: list[Any]) -> None:
    engine = started(model, enable_sleep_mode=True)
    sleep_and_wake(engine, level)
    assert inner(engine).told == [("sleep", level), *woken]


def test_weights_that_cannot_be_loaded_again_are_told_and_the_memory_is_there(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fake_vllm.AsyncLLM, "reloads", False)
    engine = started(model, enable_sleep_mode=True)
    with pytest.raises(ValueError, match=r"^vLLM does not wake from level 2: .* no reload of this format$"):
        sleep_and_wake(engine, 2)
    assert inner(engine).told[-1] == ("wake_up", ["kv_cache"])


def test_an_engine_that_sleeps_or_has_died_is_not_awake(model: Path) -> None:
    engine = started(model, enable_sleep_mode=True)
    asyncio.run(engine.ensure_awake())
    asyncio.run(engine.sleep(1))
    with pytest.raises(ValueError, match="vLLM sleeps, and was not to"):
        asyncio.run(engine.ensure_awake())
    inner(engine).told.append(("died", None))
    with pytest.raises(ValueError, match="vLLM failed: EngineCore encountered an issue"):
        asyncio.run(engine.ensure_awake())


def test_an_engine_without_sleep_mode_does_not_sleep(model: Path) -> None:
    with pytest.raises(ValueError, match="vLLM does not go to sleep: Sleep mode is not enabled"):
        sleep_and_wake(started(model), 1)


def test_stopping_shuts_vllm_down_once(model: Path) -> None:
    engine = started(model)
    running = inner(engine)
    engine.stop()
    assert running.is_shut_down
    engine.stop()
    VllmEngine(str(model), {}, Path("steps.bin")).stop()
