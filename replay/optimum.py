"""What a search found: the best of its trials beside the policy's default."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from replay.errors import Flawed
from replay.printing import quantity
from replay.screen import View
from replay.sweep_text import Sweep, sweep_view
from sim.slo import words_of
from sim.summary import Summary
from sim.sweep_front import latency_s
from sim.sweep_key import key_of
from sim.sweep_ranking import Ranked, best, rank
from sim.sweep_result import Result
from sim.sweep_slos import ATTAINMENT, Slos


@dataclass(frozen=True, slots=True)
class Optimum:
    """The least energy that keeps the SLOs.

    Attributes:
        sweep: The default, if it could be simulated, and all trials, each once, in order.
        trials: How many trials there were.
        best: The best of them all.
        default: What nothing searched comes to, None if it could not be simulated.
    """

    sweep: Sweep
    trials: int
    best: Ranked
    default: Ranked | None

    @property
    def energy_fraction(self) -> float | None:
        """The best's energy per request over the default's, less 1; None without a valid default."""
        if self.default is None or not self.default.result.summary.energy_valid:
            return None
        default_j = self.default.result.summary.energy_j_per_request
        best_j = self.best.result.summary.energy_j_per_request
        return None if default_j is None or best_j is None else best_j / default_j - 1


def optimum_of(default: Result | None, trials: Sequence[Result | None], latency: str, slos: Slos) -> Optimum:
    """Return the best.

    Args:
        default: What nothing searched comes to, None if it could not be simulated.
        trials: Likewise of each trial.
        latency: For the front.
        slos: What has to be kept.

    Raises:
        Flawed: None of them is valid and keeps every SLO; it names the one nearest to that.
    """
    once = {key_of(result.inputs): result for result in (default, *trials) if result is not None}
    if not once:
        raise Flawed("no trial could be simulated; the lines above say why")
    ranked = rank([*once.values()], latency, slos)
    (rows,) = ranked.values()
    chosen = best(rows)
    if chosen is None:
        raise Flawed(f"none of {len(trials)} trials keeps the SLOs{_nearest(rows, slos)}")
    of_default = (one for one in rows if default is not None and one.result.inputs == default.inputs)
    return Optimum(Sweep(ranked, latency, slos, ()), len(trials), chosen, next(of_default, None))


def optimum_view(optimum: Optimum) -> View:
    """Return the best and the default as a table."""
    ((workload, rows),) = optimum.sweep.ranked.items()
    shown = [one for one in rows if one is optimum.best or one is optimum.default]
    view = sweep_view(replace(optimum.sweep, ranked={f"{workload}, {optimum.trials} trials": shown}))
    if optimum.default is None or optimum.energy_fraction is None:
        return view
    if optimum.best is optimum.default:
        return [*view, "", "No trial is better than the default."]
    less = f"{abs(100 * optimum.energy_fraction):.1f} % {'less' if optimum.energy_fraction < 0 else 'more'}"
    missed = f", which violates {', '.join(optimum.default.violates)}" if optimum.default.violates else ""
    return [*view, "", f"That is {less} than the default, {optimum.default.name}{missed}."]


def optimum_values(optimum: Optimum) -> dict[str, Any]:
    """Return the best and the default, and what they were judged by."""
    return {
        "trials": optimum.trials,
        **optimum.sweep.slos.facts,
        "best": asdict(optimum.best.result),
        "default": None if optimum.default is None else asdict(optimum.default.result),
        "energy_fraction": optimum.energy_fraction,
    }


def _nearest(rows: Sequence[Ranked], slos: Slos) -> str:
    """Say by how much the valid one that violates the SLOs least does so."""
    valid = [one for one in rows if one.result.summary.energy_valid]
    if not valid:
        return " with a run that breaks no guard; widen --over"
    nearest = min(valid, key=lambda one: max(slos.excesses(one.result.summary).values()))
    missed = _missed(nearest.result.summary, slos)
    return f"; the nearest, {nearest.name}, has {' and '.join(missed)}: widen --over or loosen --slo"


def _missed(summary: Summary, slos: Slos) -> Iterator[str]:
    violated = slos.violated(summary)
    for slo in slos.of_percentiles:
        if slo.name in violated:
            value_s = quantity(latency_s(summary, slo.name), "s")
            yield f"{words_of(slo.name)} {value_s} > {slo.limit_s:g} s"
    if ATTAINMENT in violated:
        attained, asked = summary.attainment_fraction or 0.0, slos.attainment_fraction
        yield f"{100 * attained:.2f} % of the requests within the limits < {100 * asked:g} %"
