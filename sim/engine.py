"""The simulated engine: vLLM's decisions, timed and metered by a cost table."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

import numpy as np

from sim.compiled import entry_for
from sim.engine_loop import FINISHED, FULL, advance, earliest_finish_s, free_sent, take_finished
from sim.engine_state import (
    DECODE_J,
    EVENT_COLUMNS,
    EVENTS_TOLD,
    EXECUTED_STEPS,
    FINISHED_NOW,
    GPU_END_S,
    IDLE_J,
    IDLE_S,
    INPUT_HEAD,
    INPUT_TAIL,
    OUTSIDE_STEPS,
    PIECES,
    PREFILL_J,
    STANDBY_J,
    STEP_COLUMNS,
    STEPS_TOLD,
    new_engine,
)
from sim.gpu_step import rest_until, stand_by_until
from sim.kv_transfer import KvTransfer
from sim.options import EngineOptions
from sim.power_samples import PowerSamples
from sim.prefix_cache import forget_all
from sim.request_table import RequestTable, table_of
from sim.scheduler_state import (
    ENERGY_J,
    FINISHED_S,
    FIRST_TOKEN_S,
    FREE_BLOCKS,
    INPUT_S,
    NEXT,
    NOBODY,
    PREEMPTIONS,
    PROMPT_TOKENS,
)
from sim.table import CostTable
from traces.record import AWAY, EnergySplit, Power, ReplicaUse
from traces.trace import Floats, Ints, Trace

NOBODY_FINISHED: Ints = np.zeros(0, np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class Advanced:
    """How far the engine came.

    Attributes:
        time_s: The time reached.
        finished: Rows whose last token reached the client at just that time.
    """

    time_s: float
    finished: Ints


@dataclass(frozen=True, slots=True, eq=False)
class StepLog:
    """What each step held.

    Attributes:
        steps: One row a step, columns STEP_COLUMNS of `sim.engine_state`; an empty step has no tokens.
        events: One row for each request that arrived before a step, was preempted in it or scheduled in it,
            columns EVENT_COLUMNS.
    """

    steps: Floats
    events: Ints


class SimulatedEngine:
    """One replica of vLLM, serving rows of a trace or of a table of requests in simulated time."""

    def __init__(
        self,
        requests: Trace | RequestTable,
        options: EngineOptions,
        table: CostTable,
        *,
        power_tick_s: float = 0.1,
        keeps_steps: bool = False,
        transfer: KvTransfer | None = None,
    ) -> None:
        """Start at time 0 with nothing to do.

        Args:
            requests: What there is to serve; of a trace, whose arrival times are not looked at, request i is
                row i.
            options: What the engine is told.
            table: What steps cost.
            power_tick_s: Seconds between power samples, above 0.
            keeps_steps: Whether `log` is kept: some 100 bytes a step and 48 bytes a request in it.
            transfer: How the KV of finished requests is sent away, None if it is not. If it is, requests
                must have one output token, and finish when their KV has arrived.

        Raises:
            ValueError: A request of the trace cannot be served, or the tick is not > 0.
        """
        if not power_tick_s > 0:
            raise ValueError(f"power_tick_s must be > 0, got {power_tick_s}")
        link = None if transfer is None else transfer.link
        self._table = table_of(requests, options) if isinstance(requests, Trace) else requests
        self._core = new_engine(self._table, options, table, power_tick_s, keeps_steps, link)
        self._advance = entry_for(advance, self._core, 0.0, True)
        self._take_finished = entry_for(take_finished, self._core, 0.0)
        self._earliest_finish_s = entry_for(earliest_finish_s, self._core)
        self._samples = PowerSamples(power_tick_s)
        self._idle_w = table.coefficients.idle_w
        self._running = 0
        self._finished = 0
        self._away = {f"{state}_{unit}": 0.0 for state in AWAY for unit in "sj"}
        self._client_free_s = 0.0
        self._power: Power | None = None
        self._steps: list[Floats] = []
        self._events: list[Ints] = []

    @property
    def first_token_s(self) -> Floats:
        """When each row's first token reaches the client, NaN until known."""
        return self._table.results[:, FIRST_TOKEN_S]

    @property
    def finished_s(self) -> Floats:
        """When each row's last token reaches the client, NaN until known."""
        return self._table.results[:, FINISHED_S]

    @property
    def energy_j(self) -> Floats:
        """Each row's share of the steps' energy so far, NaN until it has one; idle energy is nobody's."""
        return self._table.results[:, ENERGY_J]

    @property
    def running(self) -> int:
        """Requests submitted whose finish has not been returned."""
        return self._running

    @property
    def idle(self) -> bool:
        """Whether there are none."""
        return self._running == 0

    @property
    def earliest_finish_s(self) -> float:
        """No last token reaches its client before; later than the time advanced to, infinity if idle."""
        return self._earliest_finish_s(self._core)

    @property
    def steps(self) -> int:
        """Steps that the GPU ran."""
        return int(self._core.number[EXECUTED_STEPS])

    @property
    def outside_steps(self) -> int:
        """Those outside the table's measured range."""
        return int(self._core.number[OUTSIDE_STEPS])

    @property
    def preemptions(self) -> int:
        """Times that a request was preempted."""
        return int(self._core.scheduler.number[PREEMPTIONS])

    @property
    def free_blocks(self) -> int:
        """KV blocks that nobody uses."""
        return int(self._core.scheduler.number[FREE_BLOCKS])

    @property
    def split(self) -> EnergySplit:
        """Where the energy went so far; complete after `close`."""
        tally = self._core.tally
        idle_j = float(tally[IDLE_J] + tally[STANDBY_J])
        return EnergySplit(float(tally[PREFILL_J]), float(tally[DECODE_J]), idle_j)

    @property
    def use(self) -> ReplicaUse:
        """How long the GPU was busy and idle, and what it took; complete after `close`."""
        tally, away = self._core.tally, self._away
        return ReplicaUse(
            requests=self._finished,
            busy_s=float(tally[GPU_END_S] - tally[IDLE_S] - sum(away[f"{state}_s"] for state in AWAY)),
            idle_s=float(tally[IDLE_S]),
            busy_j=float(tally[PREFILL_J] + tally[DECODE_J]),
            idle_j=float(tally[IDLE_J]),
            idle_w=self._idle_w,
            pool=None,
            **away,
        )

    @property
    def power(self) -> Power:
        """Cumulative energy at every tick from time 0 and at the end; there only after `close`."""
        if self._power is None:
            raise ValueError("the power samples are not complete yet: call close(end_s) first")
        return self._power

    @property
    def log(self) -> StepLog:
        """What each step held so far, empty unless kept."""
        self._collect()
        no_steps, no_events = np.zeros((0, len(STEP_COLUMNS))), np.zeros((0, len(EVENT_COLUMNS)), np.int64)
        return StepLog(np.concatenate([no_steps, *self._steps]), np.concatenate([no_events, *self._events]))

    def submit(self, rows: Sequence[int] | Ints, at_s: float | Floats) -> None:
        """Take in rows, released in this order at `at_s`, one time for all or one for each.

        Times never decrease, also from call to call, and no row comes again before it has finished.
        """
        if not len(rows):
            return
        self._follow_table()
        results, requests, number = self._core.results, self._core.scheduler.requests, self._core.number
        # NumPy takes a single row ten times as fast as a list of one.
        places = rows[0] if len(rows) == 1 and isinstance(at_s, float) else rows
        host = self._core.host
        way_s = host.submit_s + host.submit_token_s * requests[places, PROMPT_TOKENS]
        results[places, INPUT_S] = self._sent_s(at_s, len(rows)) + way_s
        requests[rows[-1], NEXT] = NOBODY
        if len(rows) > 1:
            requests[rows[:-1], NEXT] = rows[1:]
        if number[INPUT_HEAD] == NOBODY:
            number[INPUT_HEAD] = rows[0]
        else:
            requests[number[INPUT_TAIL], NEXT] = rows[0]
        number[INPUT_TAIL] = rows[-1]
        self._running += len(rows)

    def _sent_s(self, at_s: float | Floats, count: int) -> float | Floats:
        """Return when the client sends each of `count` requests released at `at_s`, one after the other."""
        send_s = self._core.host.send_s
        if send_s == 0.0:
            return at_s
        if count == 1 and isinstance(at_s, float):
            sent_s = max(at_s, self._client_free_s)
            self._client_free_s = sent_s + send_s
            return sent_s
        all_sent_s = np.array(np.broadcast_to(at_s, count))
        free_s = self._client_free_s
        for place, released_s in enumerate(all_sent_s.tolist()):
            if free_s > released_s:
                all_sent_s[place] = free_s
            free_s = max(released_s, free_s) + send_s
        self._client_free_s = free_s
        return all_sent_s

    def advance(self, until_s: float) -> Advanced:
        """Run to the first moment at which a last token reaches its client, but not beyond `until_s`.

        Args:
            until_s: May be infinity.

        Returns:
            The time reached and all rows that finish just then. No decision has been taken that a submit at
            that time or later could change.
        """
        if self._go_on(until_s, stops_at_finish=True) != FINISHED:
            return Advanced(until_s, NOBODY_FINISHED)
        finished = self._finished_now()
        return Advanced(float(self._core.results[finished[0], FINISHED_S]), finished)

    def advance_past_finishes(self, until_s: float) -> Ints:
        """Run to `until_s`, whatever finishes on the way.

        Args:
            until_s: May be infinity.

        Returns:
            The rows whose finish has become known since the last call, in the order of their finishes, which
            may be soon after `until_s`.
        """
        self._go_on(until_s, stops_at_finish=False)
        finished = [NOBODY_FINISHED]
        while len(some := self._known_finishes()):
            finished.append(some)
        return np.concatenate(finished)

    def rest(self, until_s: float) -> None:
        """Account the idle energy up to `until_s`; there are no requests."""
        self._collect()
        rest_until(self._core, until_s)

    def stand_by(self, state: str, until_s: float, joules: float) -> None:
        """Spend the time up to `until_s` in a state of AWAY, taking `joules`; no KV block outlives that."""
        assert self._running == 0, "a replica has no requests when it goes away"
        self._collect()
        self._away[f"{state}_s"] += until_s - float(self._core.tally[GPU_END_S])
        self._away[f"{state}_j"] += joules
        stand_by_until(self._core, until_s, joules)
        forget_all(self._core.scheduler)

    def close(self, end_s: float) -> None:
        """Account the idle energy up to `end_s`; nothing runs after that.

        Raises:
            ValueError: Requests are unfinished, or `end_s` is infinite or before the last step's end.
        """
        last_s = float(self._core.tally[GPU_END_S])
        if self._running:
            raise ValueError(
                f"{self._running} requests are unfinished at the close; advance to their finish first"
            )
        if not last_s <= end_s < inf:
            raise ValueError(f"end_s must be finite and >= the last step's end ({last_s} s), got {end_s}")
        rest_until(self._core, end_s)
        free_sent(self._core, end_s)
        self._collect()
        self._power = self._samples.finish(end_s, self.split.total_j)

    def _go_on(self, until_s: float, stops_at_finish: bool) -> int:
        self._follow_table()
        status = self._advance(self._core, until_s, stops_at_finish)
        while status == FULL:
            self._collect()
            status = self._advance(self._core, until_s, stops_at_finish)
        return status

    def _known_finishes(self) -> Ints:
        self._take_finished(self._core, inf)
        return self._finished_now()

    def _finished_now(self) -> Ints:
        finished = self._core.outbox[: self._core.number[FINISHED_NOW]].copy()
        self._running -= len(finished)
        self._finished += len(finished)
        return finished

    def _follow_table(self) -> None:
        """Work on the table's arrays where it has replaced them by longer ones."""
        core, table = self._core, self._table
        if core.results is table.results:
            return
        heap = np.zeros(len(table.requests) if core.scheduler.rules.by_priority else 0, np.int32)
        heap[: len(core.scheduler.heap)] = core.scheduler.heap
        scheduler = core.scheduler._replace(requests=table.requests, prompts=table.prompts, heap=heap)
        self._core = core._replace(scheduler=scheduler, results=table.results)

    def _collect(self) -> None:
        core, number = self._core, self._core.number
        self._samples.add(core.pieces[: number[PIECES]])
        if number[STEPS_TOLD] or number[EVENTS_TOLD]:
            self._steps.append(core.steps[: number[STEPS_TOLD]].copy())
            self._events.append(core.events[: number[EVENTS_TOLD]].copy())
        number[[PIECES, STEPS_TOLD, EVENTS_TOLD]] = 0
