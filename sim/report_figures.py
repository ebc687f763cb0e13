"""All figures of the runs in a report."""

from collections.abc import Sequence

from sim.report_curves import over_time
from sim.report_energy import energy_by_tokens, energy_split
from sim.report_figure import Figure
from sim.report_latency import latencies
from sim.report_phases import power_by_phase
from sim.report_replicas import replica_use
from sim.report_runs import Reported
from sim.report_time import series, stretch_s
from sim.slo import Slo


def figures_of(runs: Sequence[Reported], slos: Sequence[Slo]) -> list[Figure]:
    """Return the figures that the records of `runs` have data for, in the order of the page."""
    if not runs:
        return []
    width_s = stretch_s([one.run.meta.makespan_s for one in runs])
    curves = [series(one.run, one.steps, width_s) for one in runs]
    figures = (
        energy_split(runs),
        over_time(runs, curves, width_s),
        power_by_phase(runs, curves, width_s),
        replica_use(runs),
        latencies(runs, slos),
        energy_by_tokens(runs),
    )
    return [figure for figure in figures if figure is not None]
