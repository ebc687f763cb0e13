"""The policy `carbon-aware`: offline requests wait for hours in which the grid emits little."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from sim.offline_backlog import OfflineBacklog
from sim.policy import Decision, Held
from sim.series import Series, read_series

COLUMN = "g_per_kwh"


@dataclass(slots=True)
class CarbonAware:
    """Releases online requests as they arrive, and offline ones while the grid's intensity is low.

    Attributes:
        intensity: CSV file with the columns time_s (seconds since time 0 of the replay) and g_per_kwh.
        period_s: When the file's values begin again, such as 86400; None if the last one lasts for ever.
        below_g_per_kwh: Offline requests go at this intensity or a lower one; None takes `quantile`.
        quantile: Offline requests go in that fraction of the file's values in which the intensity is lowest.
        lead_s: An offline request with a deadline goes so long before it at the latest, at least 0 s.
        max_wait_s: Longest wait of an offline request without a deadline, at least 0 s.
    """

    intensity: str | None = None
    period_s: float | None = None
    below_g_per_kwh: float | None = None
    quantile: float = 0.25
    lead_s: float = 60.0
    max_wait_s: float = 86400.0
    _series: Series = field(init=False, repr=False)
    _threshold: float = field(init=False, repr=False)
    _backlog: OfflineBacklog = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.intensity is None:
            raise ValueError(f"intensity is needed: a CSV file with columns time_s and {COLUMN}, got none")
        if not 0 <= self.quantile <= 1:
            raise ValueError(f"quantile must be from 0 to 1, got {self.quantile}")
        self._series = read_series(Path(self.intensity), COLUMN, self.period_s)
        quantile = np.quantile(self._series.value, self.quantile, method="inverted_cdf")
        self._threshold = float(quantile) if self.below_g_per_kwh is None else self.below_g_per_kwh
        self._backlog = OfflineBacklog(self.lead_s, self.max_wait_s)

    def decide(self, now_s: float, held: Held, running: int) -> Decision:  # noqa: ARG002
        """Release what is online, what is late, and all while the intensity is low."""
        release = self._backlog.take_in(held)
        if self._series.at(now_s) <= self._threshold:
            release += self._backlog.pop_all()
        release += self._backlog.pop_late(now_s)
        if not self._backlog.waiting:
            return Decision(tuple(release))
        return Decision(tuple(release), min(self._backlog.latest_s, self._series.next_change_s(now_s)))
