"""What the simulated engine remembers: the scheduler, clocks, energy, and what it tells about its steps."""

from typing import NamedTuple

import numpy as np

from sim.host_time import HostTime
from sim.kv_transfer import NO_LINK, Link
from sim.new_scheduler import new_scheduler
from sim.options import EngineOptions
from sim.request_table import RequestTable
from sim.scheduler_state import NOBODY, Scheduler
from sim.step_cost import Coefficients, new_state
from sim.table import CostTable
from traces.trace import Floats, Ints

(
    NOW_S,  # how far the engine core's thread is: it decides, launches and processes, one after the other
    GPU_START_S,  # when it began that step
    GPU_END_S,  # when the GPU is through with its last step
    PREFILL_J,
    DECODE_J,
    IDLE_J,
    NEXT_TICK_S,  # the first power sample not yet covered
    TICK_S,  # seconds between power samples
    FLIGHT_END_S,  # when the GPU is through with flight 0; with flight 1 is the next entry
    _,
    IDLE_S,  # seconds in which the GPU ran no step, awake
    STANDBY_J,  # energy of other states than awake
    LINK_FREE_S,  # when the link that sends KV is through with the last transfer
    TALLIES,
) = range(14)
(
    INPUT_HEAD,  # first request on its way to the engine core
    INPUT_TAIL,  # last of them
    EXECUTED_STEPS,  # steps that the GPU ran
    OUTSIDE_STEPS,  # those outside the measured range
    PIECES,  # rows of `pieces` in use
    STEPS_TOLD,  # rows of `steps` in use
    EVENTS_TOLD,  # rows of `events` in use
    FINISHED_NOW,  # entries of `outbox`
    RUNS_ALLOWED,  # 1: decode runs are summed
    COUNTS,
) = range(10)
STEP_COLUMNS = (
    "decided_s",
    "start_s",
    "end_s",
    "chunks",
    "prefill_tokens",
    "decode_seqs",
    "kv_tokens",
    "longest_tokens",
    "free_blocks",
    "running",
    "waiting",
)
EVENT_COLUMNS = ("step", "kind", "row", "tokens", "context", "blocks")
ARRIVED, PREEMPTED, SCHEDULED = range(3)
PIECE_ROWS = 4096


class Engine(NamedTuple):
    """All that the simulated engine knows.

    Attributes:
        coefficients: What a step costs on the GPU.
        gpu: The GPU's state, which `step_cost` keeps.
        host: What it costs outside.
        link: What KV is sent by, if it is.
        results: What is known of each request, as in `RequestTable`.
        tally: Seconds and joules, by the names above, shape (TALLIES,).
        number: Counts, by the names above, shape (COUNTS,).
        outbox: Rows that the last advance returned, shape (max_num_seqs,).
        pieces: Stretches of constant power that hold a power sample, columns from_s, from_j, to_s and to_j,
            shape (PIECE_ROWS, 4).
        steps: One row a step, by STEP_COLUMNS, shape (rows, columns); 0 rows keeps nothing.
        events: One row an event of a step, by EVENT_COLUMNS, shape (rows, columns); 0 rows keeps nothing.
    """

    scheduler: Scheduler
    coefficients: Coefficients
    gpu: Floats
    host: HostTime
    link: Link
    results: Floats
    tally: Floats
    number: Ints
    outbox: Ints
    pieces: Floats
    steps: Floats
    events: Ints


def new_engine(
    requests: RequestTable,
    options: EngineOptions,
    table: CostTable,
    power_tick_s: float,
    keeps_steps: bool,
    link: Link | None,
) -> Engine:
    """Return an engine at time 0 that has been given nothing; it sends KV if it has a link."""
    tally = np.zeros(TALLIES)
    tally[TICK_S] = power_tick_s
    number = np.zeros(COUNTS, np.int64)
    number[[INPUT_HEAD, INPUT_TAIL]] = NOBODY
    number[RUNS_ALLOWED] = 1
    event_rows = len(requests.requests) + 64 * options.max_num_seqs
    return Engine(
        scheduler=new_scheduler(requests, options, link is not None),
        coefficients=table.coefficients,
        gpu=new_state(),
        host=table.host,
        link=link or NO_LINK,
        results=requests.results,
        tally=tally,
        number=number,
        outbox=np.zeros(options.max_num_seqs, np.int64),
        pieces=np.zeros((PIECE_ROWS, 4)),
        steps=np.zeros((4096 if keeps_steps else 0, len(STEP_COLUMNS))),
        events=np.zeros((event_rows if keeps_steps else 0, len(EVENT_COLUMNS)), np.int64),
    )
