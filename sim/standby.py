"""A replica that does not serve: going down, asleep or off, and coming up again."""

from math import inf

from sim.engine import SimulatedEngine
from sim.table import PowerState


class Standby:
    """When a replica goes down and comes up, and what its GPUs take meanwhile.

    The GPUs' energy is accounted when the time away is over: at the next request, sleep, or the close.

    Attributes:
        ready_s: From when on it can serve, infinity while nobody has woken it.
    """

    def __init__(self, engine: SimulatedEngine, name: str, state: PowerState, is_awake: bool) -> None:
        """Begin at time 0 awake, or down since before.

        Args:
            engine: Of the replica.
            name: Of the state that it goes to.
            state: What that state and the ways there and back take.
            is_awake: Whether it is.
        """
        self.ready_s = 0.0 if is_awake else inf
        self._engine = engine
        self._kind = "off" if name == "off" else "asleep"
        self._state = state
        self._is_away = not is_awake
        self._down_s = self._asleep_s = 0.0
        self._leave_s = inf
        self._enter_j = 0.0

    @property
    def is_awake(self) -> bool:
        """Whether it serves or is on its way to."""
        return self.ready_s < inf

    def sleep(self, at_s: float) -> None:
        """Begin to go down, having no requests."""
        self.account(inf)
        self._is_away = True
        self._down_s, self._asleep_s = at_s, at_s + self._state.enter_s
        self._leave_s = self.ready_s = inf
        self._enter_j = self._state.enter_j

    def wake(self, at_s: float) -> None:
        """Begin to come up, or as soon as it is down."""
        self._leave_s = max(at_s, self._asleep_s)
        self.ready_s = self._leave_s + self._state.leave_s

    def account(self, until_s: float) -> None:
        """Account what the GPUs took while the replica was away, up to `until_s`."""
        if not self._is_away:
            return
        self._is_away = False
        state, engine = self._state, self._engine
        engine.rest(min(self._down_s, until_s))
        self._switch(self._down_s, self._asleep_s - self._down_s, self._enter_j, until_s)
        asleep_until_s = min(self._leave_s, until_s)
        if asleep_until_s > self._asleep_s:
            engine.stand_by(self._kind, asleep_until_s, state.power_w * (asleep_until_s - self._asleep_s))
        if self._leave_s <= until_s:
            self._switch(self._leave_s, state.leave_s, state.leave_j, until_s)

    def _switch(self, from_s: float, seconds: float, joules: float, until_s: float) -> None:
        """Account a transition at constant power, up to `until_s`."""
        share = 1.0 if seconds == 0.0 else min(1.0, max(0.0, until_s - from_s) / seconds)
        self._engine.stand_by("switching", min(from_s + seconds, until_s), share * joules)
