"""An OpenAI server as an engine: what it is asked, how its tokens are counted, how it fails."""

import asyncio
import json
import resource
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any, TypeVar

import pytest
from openai_server import Script, running

from backends.openai_engine import OpenAiEngine
from backends.prompts import SAFE_VOCABULARY

Result = TypeVar("Result")


Use = Callable[[OpenAiEngine], Awaitable[Result]]


async def connected(url: str, use: Use[Result], **options: Any) -> Result:
    engine = OpenAiEngine(url, **options)
    try:
        await engine.start()
        return await use(engine)
    finally:
        await engine.close()


def with_engine(script: Script, use: Use[Result], **options: Any) -> Result:
    with running(script) as url:
        return asyncio.run(connected(url, use, **options))


async def started(engine: OpenAiEngine) -> OpenAiEngine:
    return engine


async def deliveries(engine: OpenAiEngine, prompt_tokens: int = 3, output_tokens: int = 5) -> list[int]:
    return [tokens async for tokens in engine.generate("one", [9] * prompt_tokens, output_tokens)]


def test_lengths_are_pinned_and_prompts_are_token_ids() -> None:
    script = Script()
    with_engine(script, deliveries)
    assert script.requests[-1] == {
        "model": "org/toy",
        "prompt": [9, 9, 9],
        "max_tokens": 5,
        "min_tokens": 5,
        "ignore_eos": True,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True, "continuous_usage_stats": True},
    }


def test_every_token_is_counted_when_it_comes_with_or_without_text() -> None:
    script = Script(chunks=(2, 1), texts=("", "ab"), step_s=0.02)
    assert with_engine(script, deliveries) == [2, 1, 2]


def test_a_server_that_counts_at_the_end_tells_a_first_token_by_its_text() -> None:
    script = Script(usage="end", texts=("", "a"), step_s=0.02)
    engine = with_engine(script, started)
    assert any("counts tokens at the end only" in note for note in engine.notes)
    assert with_engine(script, deliveries) == [1, 4]


def test_a_server_that_counts_throughout_needs_no_note() -> None:
    assert with_engine(Script(), started).notes == ()


def test_facts_are_what_the_server_says_and_nothing_else() -> None:
    assert with_engine(Script(models=[{"id": "toy"}]), started).facts() == {"model": "toy"}
    card = {"id": "org/toy", "max_model_len": 512, "owned_by": "vllm"}
    facts = with_engine(Script(models=[card]), started, vocabulary=500).facts()
    assert facts == {"model": "toy", "max_model_len": 512, "vllm": "0.99.0", "vocabulary": 500}


@pytest.mark.parametrize("config", [{"vocab_size": 3000}, {"text_config": {"vocab_size": 3000}}])
def test_a_models_folder_tells_the_vocabulary(config: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    script = Script(vocabulary=3000)
    engine = with_engine(script, started, model=str(tmp_path))
    assert engine.facts()["vocabulary"] == 3000
    assert script.requests[0]["prompt"][-1] == 2999


def test_a_smaller_vocabulary_than_the_prompts_is_found_before_the_replay() -> None:
    with pytest.raises(ValueError, match=r"HTTP 400: this request is out of order; .*9999, see --vocabulary"):
        with_engine(Script(vocabulary=SAFE_VOCABULARY - 1), started)


@pytest.mark.parametrize(
    ("script", "options", "message"),
    [
        (Script(usage="none"), {}, "reports no usage, .* stream_options.include_usage"),
        (Script(faults={2: "short"}), {}, "gave 1 tokens when asked for 2"),
        (Script(models=[]), {}, "serves none: say which"),
        (Script(models=[{"id": "a"}, {"id": "b"}]), {}, "serves a, b: say which by --model"),
        (Script(), {"model": "other"}, "serves org/toy: not other"),
        (Script(models=[{"name": "a"}]), {}, "does not answer as OpenAI's API does"),
    ],
)
def test_a_server_that_is_not_fit_is_refused(script: Script, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        with_engine(script, started, **options)


def test_a_server_that_is_not_there_is_said() -> None:
    with running(Script()) as url:
        pass
    with pytest.raises(ValueError, match=r"/v1: no server answers .*vllm serve"):
        asyncio.run(connected(url, started))


def test_an_address_without_the_api_is_said() -> None:
    message = r"v1/v1/models: HTTP 404: .*is the --url right"
    with running(Script()) as url, pytest.raises(ValueError, match=message):
        asyncio.run(connected(f"{url}/v1", started))


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("refuse", "HTTP 400: this request is out of order"),
        ("error", "the server failed: EngineCore died"),
        ("cut", "payload|disconnected"),
        ("early", "ended after 1 tokens"),
        ("not json", "not JSON"),
    ],
)
def test_a_request_that_fails_raises_why(fault: str, message: str) -> None:
    with pytest.raises(Exception, match=f"(?i){message}"):
        with_engine(Script(faults={3: fault}), deliveries)


def test_giving_a_request_up_tells_the_server() -> None:
    script = Script(step_s=0.02)

    async def give_up(engine: OpenAiEngine) -> None:
        async with aclosing(engine.generate("one", [9] * 7, 1000)) as stream:
            async for _ in stream:
                break
        for _ in range(200):
            await asyncio.sleep(0.01)
            if script.gone:
                return

    with_engine(script, give_up)
    assert script.gone == [7]


class Crowd(Script):
    """Answers nobody who asks with three tokens before a thousand of them are there."""

    waiting = 0
    all_there = asyncio.Event()

    async def begin(self, prompt_tokens: int) -> None:
        if prompt_tokens == 3:
            self.waiting += 1
            if self.waiting == 1000:
                self.all_there.set()
            await self.all_there.wait()


def test_a_thousand_streams_are_open_at_once() -> None:
    async def crowd(engine: OpenAiEngine) -> list[list[int]]:
        return await asyncio.gather(*(deliveries(engine) for _ in range(1000)))

    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        given = with_engine(Crowd(), lambda engine: asyncio.wait_for(crowd(engine), 60))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert [sum(tokens) for tokens in given] == [5] * 1000
