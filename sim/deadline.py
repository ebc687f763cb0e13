"""The policy `deadline`: requests wait as long as their latency target allows, and go together."""

from dataclasses import dataclass, field
from math import inf

from sim.policy import Decision, Held, HeldRequest
from sim.service_time import Prompts, ServiceTime, told
from sim.told_costs import ToldCosts


@dataclass(slots=True)
class Deadline:
    """Releases all held requests when the first of them can wait no longer.

    A request's first token is due `ttft_s` after its arrival. Where it has a deadline of its own and a
    predicted output, it is due `tpot_s` for each predicted token before that: an online request at the
    earlier of both, an offline one then. How long held prompts take to their first tokens is estimated by
    the cost table. Each event costs O(1), plus what it releases.

    Attributes:
        ttft_s: Target for the first token, above 0 s.
        tpot_s: Time per output token that a deadline allows for, at least 0 s.
        margin_s: Kept back for what the estimate leaves out, at least 0 s.
    """

    ttft_s: float = 2.0
    tpot_s: float = 0.05
    margin_s: float = 0.1
    _times: ServiceTime | None = field(default=None, init=False, repr=False)
    _prompts: Prompts = field(default_factory=Prompts, init=False, repr=False)
    _step_tokens: int = field(default=0, init=False, repr=False)
    _step_due_s: float = field(default=inf, init=False, repr=False)
    _full_steps_s: float = field(default=inf, init=False, repr=False)
    _latest_s: float = field(default=inf, init=False, repr=False)
    _busy_until_s: float = field(default=0.0, init=False, repr=False)
    _seen: Prompts = field(default_factory=Prompts, init=False, repr=False)

    def __post_init__(self) -> None:
        if not 0 < self.ttft_s < inf:
            raise ValueError(f"ttft_s must be > 0 and finite, got {self.ttft_s}")
        for name in ("tpot_s", "margin_s"):
            if not 0 <= getattr(self, name) < inf:
                raise ValueError(f"{name} must be >= 0 and finite, got {getattr(self, name)}")

    def learn_costs(self, costs: ToldCosts) -> None:
        """Estimate by these costs from now on."""
        self._times = ServiceTime(costs)

    def decide(self, now_s: float, held: Held, running: int) -> Decision:
        """Release all when the earliest latest release has come, else wake then."""
        if not len(held):
            return Decision()
        for place in range(self._prompts.count - len(held), 0):
            self._take_in(held[place], running)
        if now_s < self._latest_s:
            return Decision(wake_at_s=self._latest_s)
        self._busy_until_s = max(now_s, self._busy_until_s) + self._prefill_s(running)
        self._prompts, self._step_tokens = Prompts(), 0
        self._step_due_s = self._full_steps_s = self._latest_s = inf
        return Decision(tuple(held))

    def _take_in(self, request: HeldRequest, running: int) -> None:
        """Put a request at the end of what is held, and find how long all can wait.

        A first token comes at the end of the step that holds its prompt's last token, whoever else is in it.
        """
        budget = told(self._times).step_tokens(running + self._prompts.count)
        if self._step_tokens + request.prompt_tokens > budget:
            self._full_steps_s, self._step_due_s = self._latest_s, inf
        self._step_tokens = (self._step_tokens + request.prompt_tokens) % budget
        self._step_due_s = min(self._step_due_s, self._due_s(request) - self.margin_s)
        self._prompts.add(request.prompt_tokens)
        self._seen.add(request.prompt_tokens)
        latest_s = self._step_due_s - self._prefill_s(running)
        # Behind prompts that run into its time it is late however it goes; then at once is best.
        if latest_s < self._busy_until_s:
            latest_s = request.arrival_s
        self._latest_s = min(self._full_steps_s, latest_s)

    def _due_s(self, request: HeldRequest) -> float:
        target_s = request.arrival_s + self.ttft_s
        if request.deadline_s is None or request.predicted_output_tokens is None:
            return target_s
        own_s = request.deadline_s - self.tpot_s * request.predicted_output_tokens
        return own_s if request.request_class == "offline" else min(own_s, target_s)

    def _prefill_s(self, running: int) -> float:
        tokens_each = self._seen.tokens // self._seen.count
        return told(self._times).first_tokens_s(self._prompts, running, tokens_each)
