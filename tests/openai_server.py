"""A server for tests that speaks OpenAI completions with streaming and does what a script says."""

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web


@dataclass
class Script:
    """What the server does.

    Attributes:
        models: Cards of its models.
        chunks: Tokens of each chunk, over and over; a text stands for one token each, empty for no text.
        step_s: Seconds before each chunk.
        usage: `throughout`, `end` or `none`.
        faults: What happens instead, by the request's prompt tokens: `refuse`, `error`, `cut`, `early`,
            `short` or `not json`; it happens after the first chunk.
        vocabulary: Larger token ids are refused.
        requests: Bodies of the requests so far.
        gone: Prompt tokens of the requests that the client gave up.
    """

    models: list[dict[str, Any]] = field(default_factory=lambda: [{"id": "org/toy", "max_model_len": 2048}])
    chunks: tuple[int, ...] = (1,)
    texts: tuple[str, ...] = ("a",)
    step_s: float = 0.0
    usage: str = "throughout"
    faults: dict[int, str] = field(default_factory=dict)
    vocabulary: int = 200_000
    requests: list[dict[str, Any]] = field(default_factory=list)
    gone: list[int] = field(default_factory=list)

    async def begin(self, prompt_tokens: int) -> None:
        """Let a request begin."""

    def finish(self) -> None:
        """Be told that a request has ended."""


def application(script: Script) -> web.Application:
    """Return the server."""

    async def models(_: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": script.models})

    async def version(_: web.Request) -> web.Response:
        return web.json_response({"version": "0.99.0"})

    async def completions(request: web.Request) -> web.StreamResponse:
        body = json.loads(await request.text())
        script.requests.append(body)
        fault = script.faults.get(len(body["prompt"]), "")
        if fault == "refuse" or max(body["prompt"]) >= script.vocabulary:
            message = "this request is out of order"
            return web.json_response({"error": {"message": message, "code": 400}}, status=400)
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await answer.prepare(request)
        try:
            await script.begin(len(body["prompt"]))
            await stream(request, answer, body, fault)
        except (ConnectionResetError, asyncio.CancelledError):
            script.gone.append(len(body["prompt"]))
            raise
        finally:
            script.finish()
        return answer

    async def stream(
        request: web.Request, answer: web.StreamResponse, body: dict[str, Any], fault: str
    ) -> None:
        told, number, wanted = 0, 0, body["max_tokens"]
        while told < wanted:
            await asyncio.sleep(script.step_s)
            if fault and number == 1:
                if await fail(request, answer, fault):
                    return
                wanted = told
                continue
            tokens = min(script.chunks[number % len(script.chunks)], wanted - told)
            told += tokens
            text = script.texts[number % len(script.texts)]
            number += 1
            event: dict[str, Any] = {"choices": [{"index": 0, "text": text * tokens}], "usage": None}
            if script.usage == "throughout":
                event["usage"] = {"prompt_tokens": len(body["prompt"]), "completion_tokens": told}
            await say(answer, json.dumps(event))
        if script.usage != "none":
            usage = {"prompt_tokens": len(body["prompt"]), "completion_tokens": told}
            await say(answer, json.dumps({"choices": [], "usage": usage}))
        await say(answer, "[DONE]")

    async def fail(request: web.Request, answer: web.StreamResponse, fault: str) -> bool:
        """Do what the script wants, and return whether nothing more is to be said."""
        if fault == "error":
            await say(answer, json.dumps({"error": {"message": "EngineCore died", "code": 500}}))
            await say(answer, "[DONE]")
        elif fault == "not json":
            await say(answer, "{")
        elif fault == "cut":
            assert request.transport is not None
            request.transport.abort()
        return fault != "short"

    async def say(answer: web.StreamResponse, data: str) -> None:
        await answer.write(f"data: {data}\n\n".encode())

    app = web.Application(client_max_size=2**30)
    app.router.add_get("/v1/models", models)
    app.router.add_get("/version", version)
    app.router.add_post("/v1/completions", completions)
    return app


@contextmanager
def running(script: Script) -> Iterator[str]:
    """Run the server on the loopback, in a thread of its own, and yield where its API begins."""
    loop = asyncio.new_event_loop()
    runner = web.AppRunner(application(script), handler_cancellation=True, shutdown_timeout=0.1)

    async def start() -> str:
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        return f"http://127.0.0.1:{runner.addresses[0][1]}/v1"

    url = loop.run_until_complete(start())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield url
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
