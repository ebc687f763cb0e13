"""A streamed completion, read as it comes: server-sent events in, counts of new tokens out. No I/O."""

import json
from typing import Any


class CompletionStream:
    """Counts the tokens of one completion by the usage that the server reports, never by its text.

    A token may come without text and several may come at once, so only the server can count them. A server
    that reports usage at the end only tells by its first text that there is a first token.

    Attributes:
        tokens: Output tokens so far.
        is_counted_throughout: Whether usage has come along with tokens, not only at the end.
    """

    def __init__(self) -> None:
        self.tokens = 0
        self.is_counted_throughout = False
        self._is_counted = False
        self._is_done = False
        self._rest = b""

    def feed(self, data: bytes) -> int:
        """Take in what has arrived, split anywhere, and return how many tokens are new.

        Raises:
            ValueError: The server tells of an error, or what it says is no event of a completion.
        """
        before = self.tokens
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            field, _, value = line.partition(b":")
            if field == b"data":
                self._take(value.strip())
        return self.tokens - before

    def end(self) -> None:
        """Take in that nothing more arrives.

        Raises:
            ValueError: The completion is not whole, or nobody has counted its tokens.
        """
        if not self._is_done:
            raise ValueError(f"the stream ended after {self.tokens} tokens, before [DONE]")
        if not self._is_counted:
            raise ValueError("the server reports no usage, so its tokens cannot be counted")

    def _take(self, value: bytes) -> None:
        if value == b"[DONE]":
            self._is_done = True
            return
        try:
            event = json.loads(value)
        except ValueError as error:
            raise ValueError(f"the stream has an event that is not JSON: {value[:80]!r}") from error
        if not isinstance(event, dict) or event.get("error") or event.get("object") == "error":
            raise ValueError(f"the server failed: {error_text(event)}")
        choices, usage = event.get("choices"), event.get("usage")
        if usage is not None:
            self._count(int(usage["completion_tokens"]))
            self.is_counted_throughout = self.is_counted_throughout or bool(choices)
        elif self.tokens == 0 and any(choice.get("text") for choice in choices or ()):
            self.tokens = 1

    def _count(self, tokens: int) -> None:
        if tokens < self.tokens:
            raise ValueError(f"the server counts {tokens} tokens where there were {self.tokens}")
        self.tokens, self._is_counted = tokens, True


def error_text(answer: Any) -> str:
    """Return what a server's answer says went wrong."""
    error = answer.get("error", answer) if isinstance(answer, dict) else answer
    message = error.get("message", error) if isinstance(error, dict) else error
    return " ".join(str(message).split())
