"""A server that speaks OpenAI completions with streaming, such as `vllm serve`, with lengths pinned.

By aiohttp: the client's work is part of the latency measured, and aiohttp needs a quarter of httpx's
processor time for each delivery (42 and 176 µs, 300 streams open).
"""

import json
import os
import resource
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backends.completion_stream import CompletionStream, error_text
from backends.prompts import LEAST_TOKEN, SAFE_VOCABULARY

if TYPE_CHECKING:
    import aiohttp

CONNECT_S = 10.0
KEEP_ALIVE_S = 2.0
"""An unused connection is closed after this, sooner than servers do (5 s): none is used while it closes."""
PROBE_TOKENS = 2


class OpenAiEngine:
    """One model of a running server; generates exactly as many tokens as it is asked for, or fails.

    Attributes:
        notes: What the user should know of this server, once it is started.
    """

    def __init__(self, url: str, model: str | None = None, vocabulary: int | None = None) -> None:
        """Prepare to ask a server.

        Args:
            url: Where its API begins, such as `http://127.0.0.1:8000/v1`.
            model: A name that it serves, or the folder of the only model that it serves; None for that one.
            vocabulary: Prompts' token ids are below it; None for what the model's folder says, if given.
        """
        if not url.startswith(("http://", "https://")):
            raise ValueError(f"--url takes http://HOST:PORT/v1, got {url!r}")
        self._url = url.rstrip("/")
        self._model = model
        self._vocabulary = vocabulary if vocabulary is not None else _vocabulary_of(model)
        self._facts: dict[str, Any] = {}
        self._name = ""
        self._session: aiohttp.ClientSession | None = None
        self.notes: tuple[str, ...] = ()

    async def start(self) -> None:
        """Find the model, and see by a request of two tokens that the server does what is needed.

        Raises:
            ValueError: No server answers, or it does not serve the model, take token ids, or count tokens.
        """
        try:
            import aiohttp
        except ImportError as error:
            raise ValueError("aiohttp is not installed; install it: pip install 'replay[openai]'") from error
        _allow_many_connections()
        key = os.environ.get("OPENAI_API_KEY")
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_S),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S),
            headers={"Authorization": f"Bearer {key}"} if key else {},
        )
        try:
            card = self._choose((await self._get(f"{self._url}/models"))["data"])
            self._name = str(card["id"])
            self._facts = await self._find_facts(card)
            await self._probe()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise ValueError(
                f"{self._url}: no server answers ({error}); start one (`vllm serve`), or give another --url"
            ) from error
        except (KeyError, TypeError) as error:
            raise ValueError(f"{self._url}: does not answer as OpenAI's API does; see --url") from error

    def facts(self) -> dict[str, Any]:
        """Return what the server says of itself, and the vocabulary if somebody has said it."""
        return self._facts

    def generate(self, request_id: str, prompt: list[int], output_tokens: int) -> AsyncGenerator[int, None]:
        """Return an iterator of the number of tokens of each delivery, `output_tokens` in all.

        Closing the iterator early closes the connection, which aborts the request.

        Raises:
            ValueError: The server refuses the request, fails, or ends its answer early.
            aiohttp.ClientError: The connection breaks.
        """
        return self._stream(CompletionStream(), request_id, prompt, output_tokens)

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _stream(
        self, stream: CompletionStream, request_id: str, prompt: list[int], output_tokens: int
    ) -> AsyncGenerator[int, None]:
        assert self._session is not None
        request = {
            "model": self._name,
            "prompt": prompt,
            "max_tokens": output_tokens,
            "min_tokens": output_tokens,
            "ignore_eos": True,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True, "continuous_usage_stats": True},
        }
        headers = {"X-Request-Id": request_id}
        async with self._session.post(f"{self._url}/completions", json=request, headers=headers) as answer:
            if answer.status != 200:
                raise ValueError(f"HTTP {answer.status}: {_refusal(await answer.read())}")
            async for data in answer.content.iter_any():
                if tokens := stream.feed(data):
                    yield tokens
        stream.end()

    async def _get(self, url: str) -> Any:
        assert self._session is not None
        async with self._session.get(url) as answer:
            body = await answer.read()
            if answer.status != 200:
                raise ValueError(f"{url}: HTTP {answer.status}: {_refusal(body)}; is the --url right?")
            return json.loads(body)

    def _choose(self, cards: list[dict[str, Any]]) -> dict[str, Any]:
        served = {str(card["id"]): card for card in cards}
        if self._model in served:
            return served[self._model]
        is_any = self._model is None or Path(self._model).is_dir()
        if is_any and len(served) == 1:
            return cards[0]
        names = ", ".join(served) or "none"
        asked = "say which by --model" if is_any else f"not {self._model}; give another --model"
        raise ValueError(f"{self._url} serves {names}: {asked}")

    async def _find_facts(self, card: dict[str, Any]) -> dict[str, Any]:
        facts: dict[str, Any] = {"model": Path(self._name).name}
        if card.get("owned_by") == "vllm":
            facts["vllm"] = (await self._get(f"{self._url.removesuffix('/v1')}/version"))["version"]
        if card.get("max_model_len") is not None:
            facts["max_model_len"] = int(card["max_model_len"])
        if self._vocabulary is not None:
            facts["vocabulary"] = self._vocabulary
        return facts

    async def _probe(self) -> None:
        stream, largest = CompletionStream(), (self._vocabulary or SAFE_VOCABULARY) - 1
        try:
            async for _ in self._stream(stream, "probe", [LEAST_TOKEN, largest], PROBE_TOKENS):
                pass
        except ValueError as error:
            raise ValueError(
                f"{self._url}: cannot be replayed on: {error}; it needs prompts of token ids (up to "
                f"{largest}, see --vocabulary) and stream_options.include_usage"
            ) from error
        if stream.tokens != PROBE_TOKENS:
            raise ValueError(
                f"{self._url}: gave {stream.tokens} tokens when asked for {PROBE_TOKENS}; it must take "
                f"max_tokens and ignore_eos"
            )
        if not stream.is_counted_throughout:
            self.notes = (
                "The server counts tokens at the end only: a first token is seen by its text, so TTFT is too "
                "long where the first has none.",
            )


def _vocabulary_of(model: str | None) -> int | None:
    config = Path(model or "") / "config.json"
    if model is None or not config.is_file():
        return None
    facts = json.loads(config.read_text())
    size = facts.get("vocab_size", facts.get("text_config", {}).get("vocab_size"))
    return None if size is None else int(size)


def _refusal(body: bytes) -> str:
    try:
        return error_text(json.loads(body))
    except ValueError:
        return " ".join(body.decode(errors="replace").split())[:200]


def _allow_many_connections() -> None:
    """Raise this process's limit of open files as far as it may go."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
