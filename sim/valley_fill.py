"""The policy `valley-fill`: online requests go at once, offline ones where the others leave room."""

from dataclasses import dataclass, field
from math import inf

from sim.offline_backlog import OfflineBacklog
from sim.policy import Decision, Held, HeldRequest
from sim.service_time import Prompts, ServiceTime, told
from sim.told_costs import ToldCosts

LEAST_SPARE = 0.01
"""Of the time, for prompts, however slow decoding is."""


@dataclass(slots=True)
class ValleyFill:
    """Releases online requests as they arrive, and offline ones as far as all that run keep their TPOT.

    Offline requests go about a step's worth of prompts at a time, oldest first, while fewer than `most` run.
    The next ones wait until the prefill of the last, spread over the time since, leaves the mean time per
    output token within `tpot_s`, estimated by the cost table.

    Attributes:
        most: Requests released and unfinished beyond which no offline one is added, at least 1.
        tpot_s: Time per output token to keep, above 0 s.
        lead_s: An offline request with a deadline goes so long before it at the latest, at least 0 s.
        max_wait_s: Longest wait of an offline request without a deadline, at least 0 s.
    """

    most: int = 64
    tpot_s: float = 0.05
    lead_s: float = 60.0
    max_wait_s: float = 86400.0
    _times: ServiceTime | None = field(default=None, init=False, repr=False)
    _backlog: OfflineBacklog = field(init=False, repr=False)
    _seen: Prompts = field(default_factory=Prompts, init=False, repr=False)
    _next_s: float = field(default=0.0, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.most < 1:
            raise ValueError(f"most must be >= 1, got {self.most}")
        if not 0 < self.tpot_s < inf:
            raise ValueError(f"tpot_s must be > 0 and finite, got {self.tpot_s}")
        self._backlog = OfflineBacklog(self.lead_s, self.max_wait_s)

    def learn_costs(self, costs: ToldCosts) -> None:
        """Estimate by these costs from now on."""
        self._times = ServiceTime(costs)

    def decide(self, now_s: float, held: Held, running: int) -> Decision:
        """Release what is online, what is late, and what there is room for."""
        release = self._backlog.take_in(held) + self._backlog.pop_late(now_s)
        for request in release:
            self._seen.add(request.prompt_tokens)
        if now_s >= self._next_s or not running:
            release += self._fill(now_s, running + len(release))
        wake_s = min(self._backlog.latest_s, self._next_s if self._next_s > now_s else inf)
        return Decision(tuple(release), wake_s if self._backlog.waiting else None)

    def _fill(self, now_s: float, running: int) -> list[HeldRequest]:
        """Remove and return the offline requests that go now, and set when the next ones may."""
        times, waiting = told(self._times), self._backlog.waiting
        release: list[HeldRequest] = []
        prompts, token_s, others = Prompts(), 0.0, running
        while waiting and running < self.most and prompts.tokens < times.step_tokens(others):
            oldest = next(iter(waiting.values()))
            with_it_s = times.output_token_s(running + 1, self._mean_tokens(oldest))
            if running and with_it_s >= self.tpot_s:
                break
            release.append(self._backlog.pop_oldest())
            prompts.add(oldest.prompt_tokens)
            self._seen.add(oldest.prompt_tokens)
            running, token_s = running + 1, with_it_s
        if release:
            prefill_s = times.first_tokens_s(prompts, others, self._mean_tokens(release[-1]))
            self._next_s = now_s + prefill_s / max(1.0 - token_s / self.tpot_s, LEAST_SPARE)
        return release

    def _mean_tokens(self, request: HeldRequest) -> int:
        return (self._seen.tokens + request.prompt_tokens) // (self._seen.count + 1)
