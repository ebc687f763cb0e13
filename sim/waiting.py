"""The queue of requests that wait for a seat: a list under `fcfs`, a heap under `priority`."""

from sim.compiled import compiled
from sim.scheduler_state import (
    ARRIVAL,
    ARRIVALS,
    HEAD_BLOCKED,
    NEXT,
    NOBODY,
    PRIORITY,
    WAITING,
    WAITING_HEAD,
    WAITING_TAIL,
    Scheduler,
)
from traces.trace import Counts, Ints


@compiled
def append(requests: Counts, number: Ints, head: int, tail: int, row: int) -> None:
    """Put a request at the back of the list whose ends are `number[head]` and `number[tail]`."""
    requests[row, NEXT] = NOBODY
    if number[head] == NOBODY:
        number[head] = row
    else:
        requests[number[tail], NEXT] = row
    number[tail] = row


@compiled
def take_first(requests: Counts, number: Ints, head: int, tail: int) -> int:
    """Take the request at the front of a list that is not empty."""
    row = int(number[head])
    number[head] = requests[row, NEXT]
    if number[head] == NOBODY:
        number[tail] = NOBODY
    return row


@compiled
def join(s: Scheduler, row: int) -> None:
    """Let an arrival wait: at the back, or by its priority."""
    s.number[WAITING] += 1
    s.number[ARRIVALS] += 1
    s.requests[row, ARRIVAL] = s.number[ARRIVALS]
    if s.rules.by_priority:
        push(s, row)
    else:
        append(s.requests, s.number, WAITING_HEAD, WAITING_TAIL, row)


@compiled
def rejoin(s: Scheduler, row: int) -> None:
    """Let a preempted request wait: at the front, or by its priority."""
    s.number[WAITING] += 1
    s.number[HEAD_BLOCKED] = 0
    if s.rules.by_priority:
        push(s, row)
        return
    s.requests[row, NEXT] = s.number[WAITING_HEAD]
    s.number[WAITING_HEAD] = row
    if s.number[WAITING_TAIL] == NOBODY:
        s.number[WAITING_TAIL] = row


@compiled
def first(s: Scheduler) -> int:
    """Return who is next among the waiting, of whom there is at least one."""
    return int(s.heap[0]) if s.rules.by_priority else int(s.number[WAITING_HEAD])


@compiled
def leave_first(s: Scheduler) -> None:
    """Take out who is next."""
    s.number[HEAD_BLOCKED] = 0
    if s.rules.by_priority:
        drop(s, 0)
    else:
        take_first(s.requests, s.number, WAITING_HEAD, WAITING_TAIL)
    s.number[WAITING] -= 1


@compiled
def leave(s: Scheduler, row: int) -> None:
    """Take out a request that finished while it waited: preempted, so under `fcfs` it is near the front."""
    s.number[HEAD_BLOCKED] = 0
    if s.rules.by_priority:
        place = 0
        while s.heap[place] != row:
            place += 1
        drop(s, place)
    else:
        unlink(s, row)
    s.number[WAITING] -= 1


@compiled
def unlink(s: Scheduler, row: int) -> None:
    """Take a request out of the list, wherever it is."""
    requests = s.requests
    if s.number[WAITING_HEAD] == row:
        take_first(requests, s.number, WAITING_HEAD, WAITING_TAIL)
        return
    before = s.number[WAITING_HEAD]
    while requests[before, NEXT] != row:
        before = requests[before, NEXT]
    requests[before, NEXT] = requests[row, NEXT]
    if s.number[WAITING_TAIL] == row:
        s.number[WAITING_TAIL] = before


@compiled
def goes_before(requests: Counts, one: int, other: int) -> bool:
    """Say whether one request goes before another: the lower priority number, then the earlier arrival."""
    if requests[one, PRIORITY] != requests[other, PRIORITY]:
        return bool(requests[one, PRIORITY] < requests[other, PRIORITY])
    return bool(requests[one, ARRIVAL] < requests[other, ARRIVAL])


@compiled
def push(s: Scheduler, row: int) -> None:
    """Put a request into the heap; `number[WAITING]` counts it already."""
    s.number[HEAD_BLOCKED] = 0
    place = s.number[WAITING] - 1
    s.heap[place] = row
    sift_up(s, place)


@compiled
def drop(s: Scheduler, place: int) -> None:
    """Take the request at `place` out of the heap; `number[WAITING]` still counts it."""
    last = s.number[WAITING] - 1
    s.heap[place] = s.heap[last]
    if place < last:
        sift_up(s, place)
        sift_down(s, place, last)


@compiled
def sift_up(s: Scheduler, place: int) -> None:
    """Move the request at `place` towards the top while it goes before the one above it."""
    while place > 0:
        above = (place - 1) // 2
        if not goes_before(s.requests, s.heap[place], s.heap[above]):
            return
        s.heap[place], s.heap[above] = s.heap[above], s.heap[place]
        place = above


@compiled
def sift_down(s: Scheduler, place: int, size: int) -> None:
    """Move the request at `place` away from the top of a heap of `size` while another goes before it."""
    while 2 * place + 1 < size:
        below = 2 * place + 1
        if below + 1 < size and goes_before(s.requests, s.heap[below + 1], s.heap[below]):
            below += 1
        if not goes_before(s.requests, s.heap[below], s.heap[place]):
            return
        s.heap[place], s.heap[below] = s.heap[below], s.heap[place]
        place = below
