"""The replicas of a fleet that takes them in turn, divided among processes."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any, Protocol

from sim.replica_group import ReplicaGroup, Totals
from sim.serving import Setup


class Group(Protocol):
    """Replicas to tell what to do; they do it meanwhile, or at once."""

    def begin(self, what: str, *arguments: Any) -> None:
        """Call a method of the `ReplicaGroup`; the answer of the call before has been taken."""
        ...

    def answer(self) -> Any:
        """Return what the method returned, or raise what it raised."""
        ...


class GroupHere:
    """A group in this process."""

    def __init__(self, *made_of: Any) -> None:
        self._group = ReplicaGroup(*made_of)
        self._answer: Any = None

    def begin(self, what: str, *arguments: Any) -> None:
        """Call a method now."""
        self._answer = getattr(self._group, what)(*arguments)

    def answer(self) -> Any:
        """Return what it returned."""
        return self._answer


class GroupThere:
    """A group in a process of its own, which ends with this one."""

    def __init__(self, *made_of: Any) -> None:
        context = get_context("spawn")
        self._pipe, theirs = context.Pipe()
        context.Process(target=_work, args=(theirs, made_of), daemon=True).start()
        theirs.close()

    def begin(self, what: str, *arguments: Any) -> None:
        """Let the process call a method."""
        with _answering():
            self._pipe.send((what, arguments))

    def answer(self) -> Any:
        """Wait for what it returned."""
        with _answering():
            error, answer = self._pipe.recv()
        if error is not None:
            raise error
        return answer


@contextmanager
def _answering() -> Iterator[None]:
    try:
        yield
    except (EOFError, ConnectionError) as error:
        raise ChildProcessError(
            "a process of the simulation has ended, perhaps for want of memory; nothing is kept"
        ) from error


def _work(pipe: Connection, made_of: tuple[Any, ...]) -> None:
    group = ReplicaGroup(*made_of)
    while True:
        try:
            what, arguments = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send((None, getattr(group, what)(*arguments)))
        except Exception as error:  # whatever it is, the other side raises it
            pipe.send((error, None))


class Processes:
    """All replicas of a fleet; results do not depend on the number of processes."""

    def __init__(self, setup: Setup, power_tick_s: float, processes: int) -> None:
        """Start them at time 0 with nothing to do.

        Args:
            setup: What they are.
            power_tick_s: Seconds between power samples.
            processes: How many to divide them among, 1 for this one alone.
        """
        count = setup.fleet.replicas
        processes = min(processes, count)
        kind = GroupHere if processes == 1 else GroupThere
        self._groups: list[Group] = [
            kind(range(first, count, processes), count, setup.options, setup.table, power_tick_s)
            for first in range(processes)
        ]

    def begin(self, what: str, *arguments: Any) -> None:
        """Let all groups do something."""
        for group in self._groups:
            group.begin(what, *arguments)

    def answers(self) -> list[Any]:
        """Return what each group returned."""
        return [group.answer() for group in self._groups]

    def close(self, end_s: float) -> list[Totals]:
        """Account the idle energy up to `end_s` and return what each replica did, in order."""
        self.begin("close", end_s)
        of_groups: list[Sequence[Totals]] = self.answers()
        return [of_groups[i % len(of_groups)][i // len(of_groups)] for i in range(sum(map(len, of_groups)))]
