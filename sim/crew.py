"""The replicas of a fleet of which some sleep: who may be chosen, and the bookkeeping of their sleep."""

from collections.abc import Sequence

from sim.engine import SimulatedEngine
from sim.router import Loads
from sim.scaling import Scaling
from sim.standby import Standby
from sim.table import CostTable


class SleepingCrew:
    """Settles, whenever something is asked, who has slept since: no clock has to ring for it.

    Nothing but a request, a finish and time moves a replica, and requests and finishes are told in order.

    Attributes:
        settled_s: Up to when it has been settled who sleeps.
    """

    def __init__(
        self, engines: Sequence[SimulatedEngine], scaling: Scaling, tables: Sequence[CostTable], loads: Loads
    ) -> None:
        """Begin at time 0.

        Args:
            engines: Of all replicas.
            scaling: Decides who sleeps.
            tables: Tell what sleeping takes, one for each replica.
            loads: Unfinished requests of each replica, kept by the fleet.

        Raises:
            ValueError: A table does not tell.
        """
        for table in tables:
            if scaling.state not in table.states:
                there = ", ".join(table.states) or "none"
                raise ValueError(
                    f"table {table.name} has no power state {scaling.state} (it has {there}): measure its "
                    "power and what it takes to get there and back, or leave --scaling out"
                )
        awake = scaling.first_awake(len(engines))
        self.settled_s = 0.0
        self._scaling = scaling
        self._loads = loads
        self._empty_since_s = [0.0] * len(engines)
        self._standby = [
            Standby(engine, scaling.state, table.states[scaling.state], replica < awake)
            for replica, (engine, table) in enumerate(zip(engines, tables, strict=True))
        ]

    @property
    def replicas(self) -> int:
        """How many there are."""
        return len(self._standby)

    def awake(self) -> Sequence[int]:
        """Return who serves or comes up, ascending."""
        return [replica for replica, standby in enumerate(self._standby) if standby.is_awake]

    def load(self, replica: int) -> int:
        """Return its unfinished requests."""
        return self._loads[replica]

    def empty_since_s(self, replica: int) -> float:
        """Return since when it has had none, or since when it has been up if that is later."""
        return max(self._empty_since_s[replica], self._standby[replica].ready_s)

    def sleep(self, replica: int, at_s: float) -> None:
        """Let one go down that has no requests."""
        self._standby[replica].sleep(at_s)

    def wake(self, replica: int, at_s: float) -> None:
        """Let one come up."""
        self._standby[replica].wake(at_s)

    def open(self, now_s: float) -> Loads:
        """Return the loads of those that a request released now may go to.

        A replica that comes up gets requests once it is up, and before only if no other one is.
        """
        self._settle(now_s)
        candidates = self._scaling.candidates(self, now_s)
        up = {one: self._loads[one] for one in candidates if self._standby[one].ready_s <= now_s}
        return up or {one: self._loads[one] for one in candidates}

    def use(self, replica: int) -> None:
        """Note that one gets a request, which waits until the replica is up."""
        self._standby[replica].account(float("inf"))

    def finish(self, replica: int, at_s: float) -> None:
        """Note that requests of a replica have finished."""
        if self._loads[replica] == 0:
            self._empty_since_s[replica] = at_s

    def close(self, end_s: float) -> None:
        """Account what the replicas took up to `end_s` while they were away."""
        self._settle(end_s)
        for standby in self._standby:
            standby.account(end_s)

    def _settle(self, now_s: float) -> None:
        self._scaling.settle(self, now_s)
        self.settled_s = now_s
