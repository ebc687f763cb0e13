"""Prefill and decode on engines of their own: one fleet computes prompts, another generates from their KV."""

from collections.abc import Sequence

from sim.engine import NOBODY_FINISHED, Advanced
from sim.fleet import Fleet
from traces.trace import Ints


class Disaggregated:
    """Two fleets as one, for a driver to drive; what finishes in the first is released to the second.

    Each has a table of requests of its own. At a prefill engine a request has one output token and finishes
    when its KV has reached the decode engine; there it brings the KV of its prompt. Neither fleet runs past
    the first moment at which the other one may finish something, as `Fleet` does with engines.
    """

    def __init__(self, prefill: Fleet, decode: Fleet) -> None:
        self._prefill = prefill
        self._decode = decode

    @property
    def idle(self) -> bool:
        """Whether no submitted request is unfinished."""
        return self._prefill.idle and self._decode.idle

    def submit(self, rows: Sequence[int] | Ints, at_s: float) -> None:
        """Take in rows, released at `at_s` in this order; times never decrease."""
        self._prefill.submit(rows, at_s)

    def advance(self, until_s: float) -> Advanced:
        """Run to the first moment at which a last token reaches its client, but not beyond `until_s`."""
        while True:
            prefill_s, decode_s = self._prefill.earliest_finish_s, self._decode.earliest_finish_s
            if min(prefill_s, decode_s) > until_s:
                return Advanced(until_s, NOBODY_FINISHED)
            if prefill_s <= decode_s:
                sent = self._prefill.advance(min(until_s, decode_s))
                self._decode.submit(sent.finished, sent.time_s)
                continue
            advanced = self._decode.advance(min(until_s, prefill_s))
            if len(advanced.finished):
                return advanced
