"""Two policies, one behind the other: what the first releases, the second holds."""

from sim.gateway import Gateway
from sim.policy import Decision, Held, HeldRequest, Policy


class Chain:
    """A policy of two: requests come to the outer one, what it releases goes to the inner one's held.

    Each decides as behind a gateway of its own. To the outer one, what the inner one holds runs. More than
    two are a chain in a chain. An event costs O(1) on top of what the policies cost.

    Attributes:
        names: What the two are called.
        policies: The outer and the inner one.
        retimes: Whether one of them takes the trace as one batch.
        needs_prediction: Whether one of them needs a prediction of output lengths.
    """

    def __init__(self, names: tuple[str, str], policies: tuple[Policy, Policy]) -> None:
        """Put two fresh policies together."""
        self.names = names
        self.policies = policies
        self.retimes = any(getattr(policy, "retimes", False) for policy in policies)
        self.needs_prediction = any(getattr(policy, "needs_prediction", False) for policy in policies)
        self._outer, self._inner = (Gateway(policy) for policy in policies)

    def decide(self, now_s: float, held: Held, running: int) -> Decision:
        """Tell the two what has happened, and release what the inner one does."""
        release: list[HeldRequest] = []

        def pass_on(requests: tuple[HeldRequest, ...]) -> None:
            for request in requests:
                release.extend(self._inner.arrive(request, now_s))

        new = len(held) - len(self._outer.held) - len(self._inner.held)
        if running < self._inner.running:
            release.extend(self._inner.finish(now_s))
            pass_on(self._outer.finish(now_s))
        for place in range(-new, 0):
            pass_on(self._outer.arrive(held[place], now_s))
        if _rings(self._outer, now_s):
            pass_on(self._outer.alarm(now_s))
        if _rings(self._inner, now_s):
            release.extend(self._inner.alarm(now_s))
        alarms_s = [gateway.wake_at_s for gateway in (self._outer, self._inner)]
        return Decision(tuple(release), min((at_s for at_s in alarms_s if at_s is not None), default=None))


def _rings(gateway: Gateway, now_s: float) -> bool:
    return gateway.wake_at_s is not None and gateway.wake_at_s <= now_s
