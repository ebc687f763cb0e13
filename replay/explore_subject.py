"""What a page is about: a run, a sweep or a trace."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from replay.explore_base import Base, base_of_cell, base_of_run, base_of_trace
from replay.explore_offer import Offer
from replay.explore_places import Places
from replay.explore_runs import simulated
from replay.report_page import title_of
from sim.report_figure import Figure
from sim.report_sweep import SWEEP_FILE, read_sweep, sweep_figure
from sim.slo import Slo
from sim.sweep import Case
from traces.record_files import META_FILE


@dataclass(frozen=True, slots=True)
class Subject:
    """What a page is about.

    Attributes:
        title: Its heading.
        offered: What may be chosen.
        slos: Limits to draw and to judge.
        bases: What may be looked at: one, or the cells of a sweep.
        sweeps: Figures of a sweep, none of a run or a trace.
        firsts: Of each of these, which of `bases` is its row 0.
    """

    title: str
    offered: Offer
    slos: tuple[Slo, ...]
    bases: tuple[Base, ...]
    sweeps: tuple[Figure, ...] = ()
    firsts: tuple[int, ...] = ()

    @property
    def keys(self) -> list[str]:
        """The keys of the figures of a sweep."""
        return [figure.key for figure in self.sweeps]

    def base(self, cell: str | None) -> Base | None:
        """Return what an address looks at, None for nothing yet.

        Args:
            cell: Which of `bases`, as text; None if the address says nothing.

        Raises:
            ValueError: There is no such cell.
        """
        if not self.sweeps:
            return self.bases[0]
        if cell is None:
            return None
        if not (cell.isascii() and cell.isdecimal() and int(cell) < len(self.bases)):
            raise ValueError(f"no cell {cell!r}; the sweep has {len(self.bases)}, counted from 0")
        return self.bases[int(cell)]

    def case(self, cell: str | None) -> Case | None:
        """Return the replay that an address looks at, None where there is none to simulate anew."""
        try:
            base = self.base(cell)
            return None if base is None else base.replay()
        except ValueError:  # which `Runs.picture` tells
            return None

    def clicked(self, key: str, click: Any) -> str:
        """Return the cell of the point that a click on a figure of the sweep is on, as Plotly tells it."""
        return str(self.firsts[self.keys.index(key)] + click["points"][0]["customdata"])


def open_subject(what: Path, places: Places, offered: Offer, slos: tuple[Slo, ...], policy: str) -> Subject:
    """Return what lies at a path: a run, a sweep or a trace; a trace is simulated.

    Args:
        what: The folder of a run or of a sweep, or the file of a trace.
        places: Where things are that a record names.
        offered: What may be chosen.
        slos: Limits to draw and to judge.
        policy: What a trace is simulated under.

    Raises:
        OSError: A file cannot be read.
        ValueError: It is none of these, or damaged, or the trace cannot be simulated.
    """
    if (what / SWEEP_FILE).is_file():
        return _of_sweep(what, places, offered, slos)
    if (what / META_FILE).is_file():
        base = base_of_run(what, places, offered)
    elif what.is_file():
        base = base_of_trace(what, policy, places.find_table(None))
        base = replace(base, recorded=simulated(base.replay()))
    else:
        raise ValueError(
            f"{what}: no run, sweep or trace; give a folder with {META_FILE} or {SWEEP_FILE}, or a file"
        )
    assert base.recorded is not None
    return Subject(title_of([base.recorded], []), offered, slos, (base,))


def _of_sweep(folder: Path, places: Places, offered: Offer, slos: Sequence[Slo]) -> Subject:
    workloads = read_sweep(folder, slos)
    bases: list[Base] = []
    firsts = []
    for workload in workloads:
        firsts.append(len(bases))
        bases += [base_of_cell(one, places, offered) for one in workload.rows]
    sweeps = tuple(sweep_figure(workload, f"sweep{number}") for number, workload in enumerate(workloads))
    return Subject(title_of([], workloads), offered, tuple(slos), tuple(bases), sweeps, tuple(firsts))
