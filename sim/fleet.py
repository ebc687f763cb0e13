"""Several engines as one, each request going to the one that a router chooses."""

from collections.abc import Sequence
from math import inf, nextafter

import numpy as np

from sim.arrivals import held_request
from sim.crew import SleepingCrew
from sim.engine import NOBODY_FINISHED, Advanced, SimulatedEngine
from sim.router import Router
from sim.scaling import Scaling
from sim.table import CostTable
from traces.trace import Counts, Ints, Trace


class Fleet:
    """Engines that serve rows of one table, for a driver to drive as if they were one.

    A finish may be answered by a release to any engine, so none may run past the first finish of all. Each
    engine knows a time before which it finishes nothing; the one whose time is the earliest goes on, up to
    the earliest of the others. What nobody asks about is simulated late, not in step with the rest.

    Attributes:
        replica: Which engine each row went to, shape (rows,).
    """

    def __init__(
        self,
        engines: Sequence[SimulatedEngine],
        router: Router,
        trace: Trace,
        scaling: Scaling | None = None,
        tables: Sequence[CostTable] = (),
    ) -> None:
        """Put engines together.

        Args:
            engines: At least one, at time 0.
            router: Chooses one for each request.
            trace: The requests; the engines' table has a row for each.
            scaling: Decides which of them sleep, None for nobody.
            tables: Of each engine, to tell what sleeping takes if anybody does.

        Raises:
            ValueError: A table does not tell.
        """
        self.replica: Counts = np.zeros(len(trace), np.int32)
        self._engines = engines
        self._router = router
        self._trace = trace
        self._loads = dict.fromkeys(range(len(engines)), 0)
        self._earliest_s = [inf] * len(engines)
        self._crew: SleepingCrew | None = None
        if scaling is not None:
            self._crew = SleepingCrew(engines, scaling, tables, self._loads)

    @property
    def idle(self) -> bool:
        """Whether no submitted request is unfinished."""
        return not any(self._loads.values())

    @property
    def earliest_finish_s(self) -> float:
        """No last token reaches its client before; later than the time advanced to, infinity if idle."""
        return min(self._earliest_s)

    def submit(self, rows: Sequence[int] | Ints, at_s: float) -> None:
        """Take in rows, released at `at_s` in this order; times never decrease."""
        for row in rows:
            loads = self._loads if self._crew is None else self._crew.open(at_s)
            chosen = self._router.route(held_request(self._trace, int(row)), loads)
            if self._crew is not None:
                self._crew.use(chosen)
            self.replica[row] = chosen
            self._loads[chosen] += 1
            self._engines[chosen].submit((row,), at_s)
            self._earliest_s[chosen] = self._engines[chosen].earliest_finish_s

    def close(self, end_s: float) -> None:
        """Account what sleeping replicas took up to `end_s`, the last finish; then the engines can close."""
        if self._crew is not None:
            self._crew.close(end_s)

    def advance(self, until_s: float) -> Advanced:
        """Run to the first moment at which a last token reaches its client, but not beyond `until_s`."""
        finished = [NOBODY_FINISHED]
        while (first_s := self.earliest_finish_s) <= until_s:
            first = self._earliest_s.index(first_s)
            self._earliest_s[first] = inf
            limit_s = min(until_s, *self._earliest_s)
            advanced = self._engines[first].advance(limit_s)
            if len(advanced.finished):
                until_s = limit_s = advanced.time_s
                finished.append(advanced.finished)
                self._loads[first] -= len(advanced.finished)
                if self._crew is not None:
                    self._crew.finish(first, advanced.time_s)
            # What is decided at the limit or later finishes after it, if only by a rounding.
            self._earliest_s[first] = max(self._engines[first].earliest_finish_s, nextafter(limit_s, inf))
        return Advanced(until_s, np.concatenate(finished))
