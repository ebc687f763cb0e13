"""A run over time, as a report draws it: power, phases and counts as means over equal stretches of time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from traces.record import FAILED, Outcomes, Power, Run
from traces.trace import Floats

MOST_STRETCHES = 20_000
"""Of all runs of a report together: what it has room for."""
SHORTEST_STRETCH_S = 0.1
PHASES: Final = ("prefill", "decode", "idle")


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """A run over time, each value the mean over one stretch; None where the record does not tell.

    Attributes:
        edges_s: Where the stretches begin, and the end of the last, shape (stretches + 1,).
        energy_j: Energy since time 0 at each edge, shape (stretches + 1,).
        power_w: Power of all GPUs.
        phase_w: Its parts, by PHASES, see `phase_power_w`.
        held: Requests that the policy holds.
        queued: Requests that were released and have no first token yet.
        decoding: Requests that have their first token and not their last.
        kv_fraction: Part of the KV cache that the tokens of decoding requests take, output coming evenly.
        batch: Requests in the engine's batch, by its steps.
        batch_kv_fraction: Used part of the KV cache, by its steps.
    """

    edges_s: Floats
    energy_j: Floats | None
    power_w: Floats | None
    phase_w: dict[str, Floats] | None
    held: Floats
    queued: Floats
    decoding: Floats
    kv_fraction: Floats | None
    batch: Floats | None
    batch_kv_fraction: Floats | None


def stretch_s(makespans_s: Sequence[float]) -> float:
    """Return how long a stretch is where runs take so long: 1, 2 or 5 times 10^n, and at least 0.1 s."""
    least_s = max(sum(makespans_s) / MOST_STRETCHES, SHORTEST_STRETCH_S)
    power = 10.0 ** np.floor(np.log10(least_s))
    return float(next(power * digit for digit in (1, 2, 5, 10) if power * digit >= least_s * (1 - 1e-9)))


def series(run: Run, steps: Mapping[str, Any] | None, width_s: float) -> Series:
    """Return `run` over time.

    Args:
        run: Its makespan is above 0.
        steps: Columns of its engine's steps, None if the record has none.
        width_s: Length of a stretch; the last one ends with the run.
    """
    end_s, power, outcomes = run.meta.makespan_s, run.power, run.outcomes
    edges_s = np.append(np.arange(0.0, end_s, width_s), end_s)
    arrival_s, released_s, first_s, finished_s = moments_s(outcomes, end_s)
    metered = len(power.time_s) > 0
    energy_j = energy_at(power, edges_s) if metered else None
    return Series(
        edges_s=edges_s,
        energy_j=energy_j,
        power_w=None if energy_j is None else np.diff(energy_j) / np.diff(edges_s),
        phase_w=phase_power_w(power, outcomes, edges_s) if metered else None,
        held=mean_sum(arrival_s, released_s, edges_s),
        queued=mean_sum(released_s, first_s, edges_s),
        decoding=mean_sum(first_s, finished_s, edges_s),
        kv_fraction=_of_cache(run, kv_tokens(outcomes, edges_s)),
        batch=None if steps is None else step_mean(steps, steps["running"], edges_s),
        batch_kv_fraction=None if steps is None else _of_cache(run, _used_tokens(run, steps, edges_s)),
    )


def moments_s(outcomes: Outcomes, end_s: float) -> list[Floats]:
    """Return arrivals, releases, first and last tokens, none missing.

    What an unfinished request did not reach is at `end_s`, what a failed one did not, at its last moment.
    """
    is_lost, moments = outcomes.status == FAILED, [outcomes.arrival_s]
    for times_s in (outcomes.released_s, outcomes.first_token_s, outcomes.finished_s):
        missing_s = np.where(is_lost, moments[-1], end_s)
        moments.append(np.where(np.isfinite(times_s), times_s, missing_s))
    return moments


def energy_at(power: Power, at_s: Floats) -> Floats:
    """Return the energy since time 0 at ascending times; between two samples power is even."""
    energy_j: Floats = np.interp(at_s, np.append(0.0, power.time_s), np.append(0.0, power.energy_j))
    return energy_j


def mean_sum(from_s: Floats, to_s: Floats, edges_s: Floats, weights: Floats | None = None) -> Floats:
    """Return the mean over each stretch of the summed weights of what is there, each counting 1 by default.

    Args:
        from_s, to_s: When each comes and goes, shape (things,).
        edges_s: Edges of the stretches, ascending.
        weights: Shape (things,).
    """
    each = np.ones(len(from_s)) if weights is None else np.asarray(weights, dtype=np.float64)
    area = _passed(from_s, each, edges_s) - _passed(to_s, each, edges_s)
    mean: Floats = np.diff(area) / np.diff(edges_s)
    return np.maximum(mean, 0.0)  # a difference of large sums is a little off 0


def phase_power_w(power: Power, outcomes: Outcomes, edges_s: Floats) -> dict[str, Floats]:
    """Return the power in each stretch by what the requests were at; the parts sum to the whole.

    A moment is prefill if a released request has no first token yet; else decode if one has its first token
    and not its last; else idle.
    """
    _, released_s, first_s, finished_s = moments_s(outcomes, float(edges_s[-1]))
    cuts_s = np.unique(np.concatenate([edges_s, power.time_s, released_s, first_s, finished_s]))
    cuts_s = cuts_s[(cuts_s >= 0) & (cuts_s <= edges_s[-1])]
    from_s, spent_j = cuts_s[:-1], np.diff(energy_at(power, cuts_s))
    prefills = _there(released_s, first_s, from_s)
    decodes = _there(first_s, finished_s, from_s) & ~prefills
    stretch = np.searchsorted(edges_s, from_s, side="right") - 1
    width_s = np.diff(edges_s)
    return {
        name: np.bincount(stretch[rows], spent_j[rows], minlength=len(width_s)) / width_s
        for name, rows in zip(PHASES, (prefills, decodes, ~prefills & ~decodes), strict=True)
    }


def step_mean(steps: Mapping[str, Any], values: Floats, edges_s: Floats) -> Floats:
    """Return the mean over each stretch of what engine steps hold, replicas summed.

    A step's value holds until its replica schedules the next one, at most until the step is done.
    """
    replica = steps.get("replica", np.zeros(len(values)))
    order = np.lexsort((steps["scheduled_s"], replica))
    scheduled_s, replica = steps["scheduled_s"][order], replica[order]
    next_s = np.append(np.where(np.diff(replica) == 0, scheduled_s[1:], np.inf), np.inf)
    return mean_sum(scheduled_s, np.minimum(steps["done_s"][order], next_s), edges_s, values[order])


def kv_tokens(outcomes: Outcomes, edges_s: Floats) -> Floats:
    """Return the tokens of the decoding requests in the middle of each stretch, output coming evenly."""
    _, _, first_s, finished_s = moments_s(outcomes, float(edges_s[-1]))
    rows = finished_s > first_s
    first_s, finished_s = first_s[rows], finished_s[rows]
    per_s = outcomes.output_tokens[rows] / (finished_s - first_s)
    constant = outcomes.prompt_tokens[rows] - per_s * first_s
    at_s = (edges_s[:-1] + edges_s[1:]) / 2
    tokens = np.zeros(len(at_s))
    for times_s, sign in ((first_s, 1), (finished_s, -1)):
        order = np.argsort(times_s)
        before = np.searchsorted(times_s[order], at_s, side="right")
        constants, slopes = (np.append(0.0, np.cumsum(part[order])) for part in (constant, per_s))
        tokens += sign * (constants[before] + slopes[before] * at_s)
    return np.maximum(tokens, 0.0)


def _used_tokens(run: Run, steps: Mapping[str, Any], edges_s: Floats) -> Floats:
    options = run.meta.engine_options
    used = options.get("num_gpu_blocks", 1) - 1 - steps["free_blocks"]
    return step_mean(steps, used * options.get("block_size", 1), edges_s)


def _of_cache(run: Run, tokens: Floats) -> Floats | None:
    """Return the part of the KV cache that `tokens` take, None if its size is not known."""
    options = run.meta.engine_options
    if not {"num_gpu_blocks", "block_size"} <= options.keys():
        return None
    blocks: int = (options["num_gpu_blocks"] - 1) * options.get("replicas", 1)
    return tokens / float(blocks * options["block_size"])


def _passed(times_s: Floats, weights: Floats, at_s: Floats) -> Floats:
    """Return the sum over `times_s` of weight * max(0, at_s - time)."""
    order = np.argsort(times_s)
    before = np.searchsorted(times_s[order], at_s, side="right")
    sums = np.append(0.0, np.cumsum(weights[order]))
    moments = np.append(0.0, np.cumsum(weights[order] * times_s[order]))
    passed: Floats = at_s * sums[before] - moments[before]
    return passed


def _there(from_s: Floats, to_s: Floats, at_s: Floats) -> NDArray[np.bool_]:
    come = np.searchsorted(np.sort(from_s), at_s, side="right")
    gone = np.searchsorted(np.sort(to_s), at_s, side="right")
    return come > gone
