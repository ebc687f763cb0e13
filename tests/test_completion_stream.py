"""A streamed completion: its tokens are those that the server counts, however the bytes arrive."""

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.completion_stream import CompletionStream


def event(tokens: int | None, text: str = "a", *, choices: bool = True) -> bytes:
    usage = None if tokens is None else {"completion_tokens": tokens}
    return said({"choices": [{"text": text}] if choices else [], "usage": usage})


def said(value: Any) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"


@given(
    counts=st.lists(st.integers(0, 5), min_size=1, max_size=8),
    cuts=st.sets(st.integers(1, 900)),
    crlf=st.booleans(),
)
def test_tokens_are_the_servers_count_wherever_the_bytes_are_split(
    counts: list[int], cuts: set[int], crlf: bool
) -> None:
    totals = [sum(counts[: place + 1]) for place in range(len(counts))]
    whole = b": ping\n\n" + b"".join(event(total, text="") for total in totals) + DONE
    if crlf:
        whole = whole.replace(b"\n", b"\r\n")
    stream = CompletionStream()
    edges = [0, *sorted(cut for cut in cuts if cut < len(whole)), len(whole)]
    new = [stream.feed(whole[begin:end]) for begin, end in pairwise(edges)]
    stream.end()
    assert sum(new) == stream.tokens == sum(counts)
    assert stream.is_counted_throughout


def test_without_usage_on_the_way_the_first_text_is_a_first_token_and_the_end_counts_them() -> None:
    stream = CompletionStream()
    new = [stream.feed(part) for part in (event(None, ""), event(None, "ab"), event(None, "c"))]
    new += [stream.feed(event(7, choices=False)), stream.feed(DONE)]
    stream.end()
    assert new == [0, 1, 0, 6, 0]
    assert not stream.is_counted_throughout


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([event(1)], "ended after 1 tokens, before"),
        ([event(1), b"data: [DONE"], "ended after 1 tokens"),
        ([event(None), DONE], "reports no usage"),
        ([event(1), said({"error": {"message": "out of\nmemory", "code": 500}})], "failed: out of memory$"),
        ([said({"error": "gone"})], "failed: gone"),
        ([said({"object": "error", "message": "no such model"})], "failed: no such model"),
        ([said([1])], "failed"),
        ([event(3), event(2)], "counts 2 tokens where there were 3"),
        ([b"data: {\n"], "not JSON"),
    ],
)
def test_a_stream_that_is_not_whole_is_no_completion(parts: list[bytes], message: str) -> None:
    stream = CompletionStream()

    def read() -> None:
        for part in parts:
            stream.feed(part)
        stream.end()

    with pytest.raises(ValueError, match=message):
        read()
