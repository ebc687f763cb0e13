"""The seats of a scheduler: who runs, in which order, and which blocks are held beyond the end of a request.

A prefill engine sends the KV of a finished request to a decode engine. Until it is there the blocks are held,
and with them the seat; the request itself no longer runs.
"""

from sim.compiled import compiled
from sim.kv_blocks import free_blocks
from sim.scheduler_state import (
    BLOCKS,
    COMPUTED,
    HELD,
    HELD_FIRST,
    HELD_ROWS,
    HELD_SEATS,
    NOBODY,
    ORDER,
    PREFILL_UNTIL,
    ROW,
    RUNNING,
    SAMPLING,
    SPARE,
    SPARE_SEATS,
    STEADY,
    Scheduler,
)


@compiled
def has_seat(s: Scheduler) -> bool:
    """Say whether one more request may run; held blocks take seats beyond those for running requests."""
    return bool(s.number[RUNNING] < s.rules.max_seqs and s.number[SPARE_SEATS] > 0)


@compiled
def take_seat(s: Scheduler, row: int, prefill_until: int) -> int:
    """Seat an admitted request, which prefills so many tokens and then decodes, behind those running."""
    s.number[SPARE_SEATS] -= 1
    seat = int(s.seating[SPARE, s.number[SPARE_SEATS]])
    s.seating[ORDER, s.number[RUNNING]] = seat
    s.number[RUNNING] += 1
    s.seats[seat, ROW] = row
    s.seats[seat, COMPUTED] = 0
    s.seats[seat, SAMPLING] = 0
    s.seats[seat, BLOCKS] = 0
    s.seats[seat, PREFILL_UNTIL] = prefill_until
    return seat


@compiled
def leave_seat(s: Scheduler, seat: int, returns: bool) -> None:
    """Empty the seat of a request that stops running, and free its blocks; `order` is the caller's matter."""
    free_blocks(s, seat, returns)
    s.seats[seat, ROW] = NOBODY
    s.seating[SPARE, s.number[SPARE_SEATS]] = seat
    s.number[SPARE_SEATS] += 1
    s.number[STEADY] = 0


@compiled
def close_ranks(s: Scheduler) -> None:
    """Drop the empty seats from `order`."""
    kept = 0
    for place in range(s.number[RUNNING]):
        seat = s.seating[ORDER, place]
        if s.seats[seat, ROW] != NOBODY:
            s.seating[ORDER, kept] = seat
            kept += 1
    s.number[RUNNING] = kept


@compiled
def hold_blocks(s: Scheduler, seat: int, row: int) -> None:
    """Keep the seat and the blocks of a request that has finished, behind those of others, to send its KV."""
    place = (s.number[HELD_FIRST] + s.number[HELD]) % len(s.seats)
    s.seating[HELD_SEATS, place] = seat
    s.seating[HELD_ROWS, place] = row
    s.number[HELD] += 1
    s.seats[seat, ROW] = NOBODY
    s.number[STEADY] = 0


@compiled
def first_held(s: Scheduler) -> int:
    """Return the request whose held blocks are freed first; there is one."""
    return int(s.seating[HELD_ROWS, s.number[HELD_FIRST]])


@compiled
def free_first_held(s: Scheduler) -> None:
    """Free its blocks and its seat, as its KV has been sent."""
    first = s.number[HELD_FIRST]
    seat = s.seating[HELD_SEATS, first]
    s.seats[seat, ROW] = s.seating[HELD_ROWS, first]
    leave_seat(s, seat, False)
    s.number[HELD_FIRST] = (first + 1) % len(s.seats)
    s.number[HELD] -= 1
