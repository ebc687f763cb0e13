"""The simulated engine: vLLM's decisions, timed and metered by a cost table."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

import numpy as np

from sim.compiled import entry_for
from sim.engine_loop import FINISHED, FULL, advance, send_submitted
from sim.engine_state import (
    DECODE_J,
    EVENT_COLUMNS,
    EVENTS_TOLD,
    EXECUTED_STEPS,
    FINISHED_NOW,
    GPU_END_S,
    IDLE_J,
    INBOX_ROWS,
    OUTSIDE_STEPS,
    PIECES,
    PREFILL_J,
    STEP_COLUMNS,
    STEPS_TOLD,
    SUBMITTED,
    new_engine,
)
from sim.gpu_step import rest_until
from sim.options import EngineOptions
from sim.power_samples import PowerSamples
from sim.scheduler_state import ENERGY_J, FINISHED_S, FIRST_TOKEN_S, FREE_BLOCKS, INPUT_S, PREEMPTIONS
from sim.table import CostTable
from traces.record import EnergySplit, Power
from traces.trace import Floats, Ints, Trace

NOBODY_FINISHED: Ints = np.zeros(0, np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class Advanced:
    """How far the engine came.

    Attributes:
        time_s: The time reached.
        finished: Rows of the trace whose last token reached the client at just that time.
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
    """One replica of vLLM, serving rows of a trace in simulated time.

    Attributes:
        first_token_s, finished_s: When each row's first and last token reach the client, NaN until known.
        energy_j: Each row's share of the steps' energy so far, NaN until it has one; idle energy is nobody's.
    """

    def __init__(
        self,
        trace: Trace,
        options: EngineOptions,
        table: CostTable,
        *,
        power_tick_s: float = 0.1,
        keeps_steps: bool = False,
    ) -> None:
        """Check that every request can be served, and start at time 0 with nothing to do.

        Args:
            trace: Supplies the lengths; its arrival times are not looked at.
            options: What the engine is told.
            table: What steps cost.
            power_tick_s: Seconds between power samples, above 0.
            keeps_steps: Whether `log` is kept: some 100 bytes a step and 48 bytes a request in it.

        Raises:
            ValueError: A request is longer than max_model_len or than all KV blocks, or the tick is not > 0.
        """
        if not power_tick_s > 0:
            raise ValueError(f"power_tick_s must be > 0, got {power_tick_s}")
        _check_lengths(trace, options)
        self._core = new_engine(trace, options, table, power_tick_s, keeps_steps)
        self._advance = entry_for(advance, self._core, 0.0)
        self._samples = PowerSamples(power_tick_s)
        self._running = 0
        self._power: Power | None = None
        self._steps: list[Floats] = []
        self._events: list[Ints] = []
        self.first_token_s: Floats = self._core.results[:, FIRST_TOKEN_S]
        self.finished_s: Floats = self._core.results[:, FINISHED_S]
        self.energy_j: Floats = self._core.results[:, ENERGY_J]

    @property
    def running(self) -> int:
        """Requests submitted whose finish has not been returned."""
        return self._running

    @property
    def idle(self) -> bool:
        """Whether there are none."""
        return self._running == 0

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
        return EnergySplit(float(tally[PREFILL_J]), float(tally[DECODE_J]), float(tally[IDLE_J]))

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

    def submit(self, rows: Sequence[int] | Ints, at_s: float) -> None:
        """Take in rows of the trace, released at `at_s` in this order.

        Times never decrease from call to call, and no row comes twice.
        """
        core = self._core
        submitted = int(core.number[SUBMITTED])
        for row in rows:
            if submitted == INBOX_ROWS:
                core.number[SUBMITTED] = submitted
                send_submitted(core)
                submitted = 0
            core.inbox[submitted] = row
            core.results[row, INPUT_S] = at_s + core.host.submit_s
            submitted += 1
        core.number[SUBMITTED] = submitted
        self._running += len(rows)

    def advance(self, until_s: float) -> Advanced:
        """Run to the first moment at which a last token reaches its client, but not beyond `until_s`.

        Args:
            until_s: May be infinity.

        Returns:
            The time reached and all rows that finish just then. No decision has been taken that a submit at
            that time or later could change.
        """
        status = self._advance(self._core, until_s)
        while status == FULL:
            self._collect()
            status = self._advance(self._core, until_s)
        if status != FINISHED:
            return Advanced(until_s, NOBODY_FINISHED)
        finished = self._core.outbox[: self._core.number[FINISHED_NOW]].copy()
        self._running -= len(finished)
        return Advanced(float(self.finished_s[finished[0]]), finished)

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
        self._collect()
        self._power = self._samples.finish(end_s, self.split.total_j)

    def _collect(self) -> None:
        core, number = self._core, self._core.number
        self._samples.add(core.pieces[: number[PIECES]])
        if number[STEPS_TOLD] or number[EVENTS_TOLD]:
            self._steps.append(core.steps[: number[STEPS_TOLD]].copy())
            self._events.append(core.events[: number[EVENTS_TOLD]].copy())
        number[[PIECES, STEPS_TOLD, EVENTS_TOLD]] = 0


def _check_lengths(trace: Trace, options: EngineOptions) -> None:
    tokens = trace.prompt_tokens.astype(np.int64) + trace.output_tokens
    row = int(tokens.argmax()) if len(tokens) else 0
    longest = int(tokens.max(initial=0))
    if longest > options.max_model_len:
        raise ValueError(
            f"request {row} of {trace.name} has {longest} tokens, max_model_len is {options.max_model_len}: "
            f"raise it or leave out the {np.sum(tokens > options.max_model_len)} longer requests"
        )
    room = (options.num_gpu_blocks - 1) * options.block_size
    if longest - 1 > room:
        raise ValueError(
            f"request {row} of {trace.name} needs KV for {longest - 1} tokens, num_gpu_blocks = "
            f"{options.num_gpu_blocks} holds {room}: "
            f"raise it or leave out the {np.sum(tokens - 1 > room)} longer requests"
        )
