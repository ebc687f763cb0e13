"""How long tokens take, estimated from a cost table: for policies, in O(1)."""

from dataclasses import dataclass
from math import ceil

from sim.host_time import launch_s, lead_s, process_s
from sim.step_cost import SPENT_J, new_state, step_cost
from sim.told_costs import ToldCosts

STEPS_UNDER_WAY = 2
"""Decode steps that are scheduled already when prompts come: one runs, one is queued."""


@dataclass(slots=True)
class Prompts:
    """Prompts to prefill, one after the other, as far as their prefill time depends on them.

    Attributes:
        count: How many.
        tokens: Their tokens, summed.
        pairs: Their query-key pairs, tokens * (tokens + 1) / 2, summed.
    """

    count: int = 0
    tokens: int = 0
    pairs: float = 0.0

    def add(self, prompt_tokens: int) -> None:
        """Put one more prompt at the end."""
        self.count += 1
        self.tokens += prompt_tokens
        self.pairs += prompt_tokens * (prompt_tokens + 1) / 2


class ServiceTime:
    """Estimates the latencies of engines that are told a few numbers of what they hold.

    Cautious: the GPU's clock is capped from the start, no prefix is cached, all decode beside the prompts
    for the whole time. Replicas share the requests evenly.
    """

    def __init__(self, costs: ToldCosts) -> None:
        """Estimate by these costs."""
        self._costs = costs
        self.first_tokens_s(Prompts(1, 1, 1.0), 1, 1)  # compiles, if nothing has

    def step_tokens(self, running: int) -> int:
        """Return how many prompt tokens the replicas prefill in one step each, beside `running` requests."""
        options, replicas = self._costs.options, self._costs.replicas
        return replicas * max(options.max_num_batched_tokens - ceil(running / replicas), 1)

    def output_token_s(self, running: int, tokens_each: int) -> float:
        """Return the time of a step in which `running` requests of so many tokens decode, at least one."""
        seqs = min(ceil(running / self._costs.replicas), self._costs.options.max_num_seqs)
        return self._step_s(0, 0, 0.0, seqs, tokens_each)

    def first_tokens_s(self, prompts: Prompts, running: int, tokens_each: int) -> float:
        """Return the time from the release of some prompts to the last of their first tokens.

        Args:
            prompts: At least one, on idle or decoding engines.
            running: Requests that decode meanwhile.
            tokens_each: Their mean tokens of KV.
        """
        h, options = self._costs.table.host, self._costs.options
        count = ceil(prompts.count / self._costs.replicas)
        share = count / prompts.count
        tokens = ceil(prompts.tokens * share)
        decoding = min(ceil(running / self._costs.replicas) + count - 1, options.max_num_seqs - 1)
        budget = max(options.max_num_batched_tokens - decoding, 1)
        steps = ceil(tokens / budget)
        gpu_s = self._step_s(count + steps - 1, tokens, prompts.pairs * share, decoding, tokens_each)
        if running:
            gpu_s += (steps - 1 + STEPS_UNDER_WAY) * self._step_s(0, 0, 0.0, decoding, tokens_each)
        launched_s = steps * launch_s(h, count, min(tokens, budget), decoding)
        sent_s = h.submit_s + h.submit_token_s * tokens + h.send_s * prompts.count
        taken_in_s = h.intake_s * count + h.intake_token_s * tokens
        begun_s = h.wake_s + lead_s(h, count, tokens, decoding)
        seen_s = h.output_s + process_s(h, count + decoding) + h.deliver_s
        return sent_s + taken_in_s + begun_s + max(gpu_s, launched_s) + seen_s

    def _step_s(self, chunks: int, tokens: int, pairs: float, decoding: int, tokens_each: int) -> float:
        """Return the GPU's time for a step of any size, all contexts equal, the allowance spent."""
        c = self._costs.table.coefficients
        state = new_state()
        state[SPENT_J] = c.allowance_j
        return step_cost(c, state, chunks, tokens, pairs, decoding, decoding * tokens_each, tokens_each)[0]


def told(times: ServiceTime | None) -> ServiceTime:
    """Return the estimates of a policy, refused if it has none yet.

    Raises:
        ValueError: The policy was not told what the engines cost.
    """
    if times is None:
        raise ValueError("a policy that estimates was not told what the engines cost; call learn_costs first")
    return times
