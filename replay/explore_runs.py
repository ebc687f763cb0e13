"""The runs that a page shows: the one that it begins with, and those simulated for it."""

from dataclasses import asdict, dataclass, field, replace
from threading import Lock

from replay.errors import one_line
from replay.explore_base import Base
from replay.explore_choice import Choice, chosen, words_of
from replay.explore_offer import Offer
from sim.report_guards import judge
from sim.report_runs import Reported, shortened
from sim.simulate import simulate_fleet
from sim.summary import summarize
from sim.sweep import Case

AT_ONCE = 25_000
"""Requests that are simulated without asking; of more, somebody presses a button first."""
MOST_KEPT = 8


@dataclass(frozen=True, slots=True)
class Picture:
    """What is shown for a choice.

    Attributes:
        runs: The base and what was chosen, as far as there is something.
        case: What was chosen; None if it was refused, or there is nothing to choose.
        notice: Why something is missing, in one line; empty if nothing is.
        waits: Whether the button would simulate it.
        is_open: Whether there is something to choose.
    """

    runs: tuple[Reported, ...] = ()
    case: Case | None = None
    notice: str = ""
    waits: bool = False
    is_open: bool = False


@dataclass(slots=True)
class Runs:
    """Simulates, one replay at a time, and keeps the latest.

    Attributes:
        offered: What may be chosen.
    """

    offered: Offer
    _kept: dict[str, Reported] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def picture(self, base: Base | None, choice: Choice, *, is_asked: bool) -> Picture:
        """Return what to show for a choice; what cannot be simulated is told, not raised.

        Args:
            base: What the choice changes, None for nothing.
            choice: As a request tells it.
            is_asked: Whether somebody pressed the button.
        """
        if base is None:
            return Picture(notice="Click a point to simulate it and to see more of it.")
        runs: tuple[Reported, ...] = () if base.recorded is None else (base.recorded,)
        is_open = isinstance(base.case, Case)
        try:
            before = base.replay()
            base.check()
            if not runs:
                runs = (self._run(before, base.name),)
            case = chosen(before, choice, self.offered)
            if case == before and runs[0].run.meta.kind == "simulated":
                return Picture(runs, case, is_open=True)
            requests = len(case.read_trace())
            if requests > AT_ONCE and not is_asked and repr(case) not in self._kept:
                wait = f"{requests:,} requests take a while to simulate: press Simulate."
                return Picture(runs, case, wait, waits=True, is_open=True)
            name = words_of(choice, case) if choice else f"{case.policy}, simulated"
            return Picture((*runs, self._run(case, name)), case, is_open=True)
        except (ValueError, OSError) as error:
            return Picture(runs, notice=one_line(error), is_open=is_open)

    def _run(self, case: Case, name: str) -> Reported:
        key = repr(case)
        with self._lock:
            reported = self._kept.pop(key, None) or simulated(case)
            self._kept[key] = reported
            if len(self._kept) > MOST_KEPT:
                del self._kept[next(iter(self._kept))]
        return replace(reported, name=shortened(name))


def simulated(case: Case) -> Reported:
    """Return a replay, named after its policy.

    Raises:
        OSError: A file cannot be read.
        ValueError: It cannot be simulated.
    """
    run = simulate_fleet(case.read_trace(), case.make_policy(), case.setup(), seed=case.seed)
    return Reported(case.policy, run, asdict(run.meta), None, summarize(run), judge(run))
