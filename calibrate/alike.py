"""Steps of a window that hold about the same: their mean time says what a sum over the window hides."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from calibrate.timeline import Steps
from traces.trace import Floats, Ints

FROM_DECISION, FROM_LAST, FROM_LAST_BUT_ONE, FROM_NEXT_DECISION = range(4)
"""Since when a step's time is counted: its decision, the output of the step before it or before that, or the
decision of the next step, whose launch its output waits for."""

SIZES = (64, 128, 192, *range(256, 4097, 256), 6144, 8192, 16384)
"""Tokens that part steps with prompts into groups of a size."""

SOON_S = 0.04
"""A step that only decodes finds the clock still low so soon after one with prompts."""

QUICK_SEQS = 64
"""A step that decodes no more sequences is over before the next one's launch is."""


@dataclass(frozen=True, slots=True, eq=False)
class Alike:
    """Steps of a window that hold about the same, whose mean time is compared, too.

    Attributes:
        steps: Which, shape (steps,).
        since: Since when the time of each is counted, see FROM_DECISION, shape (steps,).
        seconds: Measured, their sum.
    """

    steps: Ints
    since: Ints
    seconds: float

    def sum_s(self, decided_s: Floats, done_s: Floats) -> float:
        """Return the sum of their times, had they been decided and done then."""
        return _sum_s(self.steps, self.since, decided_s, done_s)


def _sum_s(k: Ints, since: Ints, decided_s: Floats, done_s: Floats) -> float:
    after = np.minimum(k + 1, len(done_s) - 1)
    began_s = np.choose(since, [decided_s[k], done_s[k - 1], done_s[k - 2], decided_s[after]])
    return float((done_s[k] - began_s).sum())


def alike(steps: Steps, first: int, last: int) -> Iterator[Alike]:
    """Yield the steps after `first` up to `last` that only decode, and those with prompts by their size.

    While a step with prompts is launched, the output of the step before it waits; so the two are counted
    together, and those before it, by its size, for what the launch takes.
    """
    k = np.arange(max(first + 1, 2), last + 1)
    tokens = steps.prefill_tokens + steps.decode_seqs
    holds_prompts = steps.chunks > 0
    found_busy = steps.scheduled_s[k] < steps.done_s[k - 1]
    since = np.where(found_busy, np.where(holds_prompts[k - 1], FROM_LAST, FROM_LAST_BUT_ONE), FROM_DECISION)
    follows = np.append(holds_prompts[1:], True)
    decodes = ~holds_prompts[k] & ~holds_prompts[k - 1] & ~follows[k] & found_busy
    waited_for = found_busy & holds_prompts[k] & ~holds_prompts[k - 1]
    waited_for &= steps.decode_seqs[k - 1] <= QUICK_SEQS
    size = np.searchsorted(SIZES, tokens[k])
    last_prompts = np.maximum.accumulate(np.where(holds_prompts, np.arange(len(tokens)), -1))[k]
    since_s = steps.done_s[k] - np.where(last_prompts < 0, -np.inf, steps.done_s[last_prompts])
    soon = since_s < SOON_S
    groups = [(k[some], np.full(int(some.sum()), FROM_LAST)) for some in (decodes & soon, decodes & ~soon)]
    for each in np.unique(size):
        of_size, launched = holds_prompts[k] & (size == each), waited_for & (size == each)
        groups.append((k[of_size], since[of_size]))
        groups.append((k[launched] - 1, np.full(int(launched.sum()), FROM_NEXT_DECISION)))
    for members, counted in groups:
        if len(members):
            yield Alike(members, counted, _sum_s(members, counted, steps.scheduled_s, steps.done_s))
