"""What every guard says of a run, for a report: checked again, and as recorded when the run was made."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from sim.guards import check
from traces.record import Run

Verdict = Literal["holds", "fails", "does not apply"]


@dataclass(frozen=True, slots=True)
class Judgement:
    """What one guard says of a run.

    Attributes:
        number: Of the guard, as in docs/metrics.md; None for reasons that are of no guard.
        claim: What must hold.
        verdict: Whether it does; it does not apply where the run lacks what it speaks of.
        reasons: Why it fails.
    """

    number: int | None
    claim: str
    verdict: Verdict
    reasons: tuple[str, ...]


def judge(run: Run) -> tuple[Judgement, ...]:
    """Return what each guard says of `run`, in order, and reasons of no guard last, if there are any."""
    told = tuple(dict.fromkeys((*check(run), *run.meta.invalid_reasons)))
    if not told and not run.meta.energy_valid:
        told = ("its guards were not checked",)
    reasons: dict[int | None, list[str]] = {}
    for reason in told:
        match = re.fullmatch(r"guard (\d+): (.*)", reason, re.DOTALL)
        reasons.setdefault(int(match[1]) if match else None, []).append(match[2] if match else reason)
    judgements = []
    for number, (claim, applies) in enumerate(GUARDS, 1):
        against = tuple(reasons.pop(number, ()))
        verdict: Verdict = "fails" if against else "holds" if applies(run) else "does not apply"
        judgements.append(Judgement(number, claim, verdict, against))
    if reasons:
        others = tuple(reason for against in reasons.values() for reason in against)
        judgements.append(Judgement(None, "nothing else speaks against it", "fails", others))
    return tuple(judgements)


def invalid_reasons(judgements: tuple[Judgement, ...]) -> tuple[str, ...]:
    """Return why a run is not valid, nothing if it is."""
    return tuple(
        reason if one.number is None else f"guard {one.number}: {reason}"
        for one in judgements
        for reason in one.reasons
    )


def _always(run: Run) -> bool:  # noqa: ARG001
    return True


def _is_metered(run: Run) -> bool:
    return run.total_energy_j is not None or run.meta.gpus > 0


def _knows_idle(run: Run) -> bool:
    return run.total_energy_j is not None and run.meta.idle_w is not None


def _knows_limit(run: Run) -> bool:
    return run.total_energy_j is not None and run.meta.power_limit_w is not None


def _knows_shares(run: Run) -> bool:
    return run.meta.energy is not None and bool(np.isfinite(run.outcomes.energy_j).any())


def _has_range(run: Run) -> bool:
    return run.meta.out_of_range_fraction is not None


def _is_measured(run: Run) -> bool:
    return run.meta.kind != "simulated" and run.total_energy_j is not None


GUARDS: tuple[tuple[str, Callable[[Run], bool]], ...] = (
    ("served + failed = offered", _always),
    ("what counts as served was released and has a first token, a last one, and tokens", _always),
    ("arrival ≤ released ≤ first token ≤ finished ≤ makespan, as far as a request got", _always),
    (
        "the energy is known unless no GPU was metered, and it and each known part is finite and ≥ 0 J",
        _is_metered,
    ),
    (
        "energy ≥ idle power × makespan; of a simulated fleet, × the time that each replica was awake",
        _knows_idle,
    ),
    ("energy / makespan ≤ 1.05 × the power limit, per GPU", _knows_limit),
    (
        "prefill + decode + idle = the counter's last value = the sum over the replicas, where known, and "
        "the counter never falls (simulated: 1e-9, measured: 2 %)",
        _is_metered,
    ),
    (
        "the requests' shares + idle = total, where shares are known (simulated: 1e-9, measured: 2 %)",
        _knows_shares,
    ),
    (
        "simulated, or run on the twin: at most 5 % of the steps lie outside the table's measured range",
        _has_range,
    ),
    ("measured: the metered GPUs are the engine's GPUs, by UUID", _is_measured),
    ("measured: no other process computes on them", _is_measured),
    ("measured: the counter and integrated instant power agree within 3 %", _is_measured),
    (
        "measured: no hardware slowdown, thermal slowdown or power brake; the software power cap is normal "
        "at full load",
        _is_measured,
    ),
    ("measured: the window is at least 5 s, 50 ticks of the counter", _is_measured),
)
"""What must hold, in the words of docs/metrics.md, and which runs it speaks of; by number, from 1."""
