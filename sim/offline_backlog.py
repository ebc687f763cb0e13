"""Held offline requests, for policies that let online ones pass."""

from collections import OrderedDict
from heapq import heappop, heappush
from math import inf

from sim.policy import Held, HeldRequest


class OfflineBacklog:
    """The offline requests among the held, each with a latest release; an event costs O(log held) at most.

    Attributes:
        waiting: By id, oldest first.
    """

    __slots__ = ("_lead_s", "_max_wait_s", "_queue", "waiting")

    def __init__(self, lead_s: float, max_wait_s: float) -> None:
        """Begin without requests.

        Args:
            lead_s: A request with a deadline goes so long before it at the latest.
            max_wait_s: A request without one waits so long at most.

        Raises:
            ValueError: One is negative or infinite.
        """
        for name, value in (("lead_s", lead_s), ("max_wait_s", max_wait_s)):
            if not 0 <= value < inf:
                raise ValueError(f"{name} must be >= 0 and finite, got {value}")
        self._lead_s = lead_s
        self._max_wait_s = max_wait_s
        self._queue: list[tuple[float, int]] = []
        self.waiting: OrderedDict[int, HeldRequest] = OrderedDict()

    def take_in(self, held: Held) -> list[HeldRequest]:
        """Take in what is new in `held`, that is, not waiting, if it is offline; return what is online."""
        online = []
        for place in range(len(self.waiting) - len(held), 0):
            request = held[place]
            if request.request_class == "online":
                online.append(request)
                continue
            self.waiting[request.id] = request
            heappush(self._queue, (self._latest_s(request), request.id))
        return online

    def pop_late(self, now_s: float) -> list[HeldRequest]:
        """Remove and return the requests that can wait no longer."""
        late = []
        while self.latest_s <= now_s:
            late.append(self.waiting.pop(heappop(self._queue)[1]))
        return late

    def pop_oldest(self) -> HeldRequest:
        """Remove and return the oldest request."""
        return self.waiting.popitem(last=False)[1]

    def pop_all(self) -> list[HeldRequest]:
        """Remove and return all, oldest first."""
        everything = list(self.waiting.values())
        self.waiting.clear()
        self._queue.clear()
        return everything

    @property
    def latest_s(self) -> float:
        """When the first of them can wait no longer, infinite if there is none."""
        while self._queue and self._queue[0][1] not in self.waiting:
            heappop(self._queue)
        return self._queue[0][0] if self._queue else inf

    def _latest_s(self, request: HeldRequest) -> float:
        if request.deadline_s is None:
            return request.arrival_s + self._max_wait_s
        return request.deadline_s - self._lead_s
