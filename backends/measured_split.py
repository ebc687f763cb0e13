"""Where the measured joules went: the counter's energy divided among prefill, decode and gaps between steps.

A step lasts from its decision, or from the output before it if that came later, to its own output. Between
two ticks of the counter, the gaps between steps get the idle power times their length, or everything if no
step ran; the rest goes to the steps, by their time and weight. A step's energy is then shared by its prefill
fraction.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from backends.step_log import STEP
from sim.step_cost import Coefficients, logged_longest, new_state, step_cost
from traces.record import EnergySplit, Power, Run
from traces.trace import Floats


class StepShares(NamedTuple):
    """How steps share energy, each array of shape (steps,).

    Attributes:
        weight: Power of each step relative to the others', above 0.
        prefill_fraction: What of its energy its prefill tokens took.
    """

    weight: Floats
    prefill_fraction: Floats


def shares_by_tokens(steps: NDArray[np.void]) -> StepShares:
    """Return shares that need no table: by time, in a step by prefill tokens and decoding sequences."""
    tokens = steps["prefill_tokens"] + steps["decode_seqs"]
    return StepShares(np.ones(len(steps)), steps["prefill_tokens"] / np.maximum(tokens, 1))


def shares_by_table(steps: NDArray[np.void], costs: Coefficients) -> StepShares:
    """Return shares by what a cost table says of each step: its mean power, and its prefill joules."""
    state = new_state()
    weight, prefill_fraction = np.ones(len(steps)), np.zeros(len(steps))
    for row, step in enumerate(steps):
        seconds, prefill_j, decode_j, _, _ = step_cost(
            costs,
            state,
            int(step["chunks"]),
            int(step["prefill_tokens"]),
            float(step["prefill_pairs"]),
            int(step["decode_seqs"]),
            int(step["kv_tokens"]),
            int(step["longest_tokens"]),
        )
        weight[row] = (prefill_j + decode_j) / seconds
        prefill_fraction[row] = prefill_j / (prefill_j + decode_j)
    return StepShares(weight, prefill_fraction)


def split_by_table(run: Run, steps: Mapping[str, Any], costs: Coefficients) -> Run:
    """Return a measured run whose energy is split by what a cost table says of its steps; the total stays.

    Args:
        run: A measured run; one that was not metered is returned as it is.
        steps: The columns of its `steps` table.
        costs: The cost table's numbers.

    Raises:
        ValueError: The steps are those of several replicas, whose energies the record does not tell apart.
    """
    if run.meta.energy is None or run.meta.idle_w is None:
        return run
    if "replica" in steps:
        raise ValueError(
            f"{run.meta.run_id}: has several replicas, whose energy is divided while it is measured; "
            f"give --table to the replay, not here"
        )
    rows = np.zeros(len(steps["done_s"]), dtype=STEP)
    steps = {**steps, "longest_tokens": logged_longest(steps)}
    for name in STEP.names or ():
        rows[name] = steps[name]
    split = split_energy(run.power, rows, run.meta.idle_w, shares_by_table(rows, costs))
    return replace(run, meta=replace(run.meta, energy=split))


def step_spans(steps: NDArray[np.void], end_s: float) -> tuple[Floats, Floats]:
    """Return from when until when each step had the engine, which has one at a time, until `end_s`.

    Args:
        steps: The step log, dtype `backends.step_log.STEP`, in order of `done_s`, seconds since time 0.
        end_s: The last completion.
    """
    until_s = np.clip(steps["done_s"], 0.0, end_s)
    before_s = np.concatenate([[0.0], until_s[:-1]]) if len(steps) else until_s
    return np.minimum(np.clip(np.maximum(steps["scheduled_s"], before_s), 0.0, end_s), until_s), until_s


def split_energy(power: Power, steps: NDArray[np.void], idle_w: float, shares: StepShares) -> EnergySplit:
    """Return the measured energy in three parts, whose sum is the counter's.

    Args:
        power: Energy at the counter's ticks, from time 0 to the last completion.
        steps: The step log, dtype `backends.step_log.STEP`, in order of `done_s`, seconds since time 0.
        idle_w: Power of all GPUs without work, model loaded.
        shares: How the steps share.
    """
    from_s, until_s = step_spans(steps, float(power.time_s[-1]))
    ticks = len(power.time_s) - 1
    edges_s = np.unique(np.concatenate([power.time_s, from_s, until_s]))
    length_s, middle_s = np.diff(edges_s), (edges_s[1:] + edges_s[:-1]) / 2
    tick = np.clip(np.searchsorted(power.time_s, middle_s, side="right") - 1, 0, ticks - 1)
    step = np.searchsorted(until_s, middle_s, side="right")
    runs = step < len(steps)
    runs[runs] = middle_s[runs] >= from_s[step[runs]]

    tick_j = np.diff(power.energy_j)
    gap_s = np.bincount(tick[~runs], length_s[~runs], ticks)
    weighted_s = np.zeros(len(length_s))
    weighted_s[runs] = length_s[runs] * shares.weight[step[runs]]
    all_weighted_s = np.bincount(tick, weighted_s, ticks)
    idle_j = np.where(all_weighted_s > 0, np.minimum(idle_w * gap_s, tick_j), tick_j)
    each_j = np.zeros(len(length_s))
    each_j[runs] = ((tick_j - idle_j)[tick] * weighted_s)[runs] / all_weighted_s[tick[runs]]
    fraction = shares.prefill_fraction[step[runs]]
    return EnergySplit(
        prefill_j=float(np.sum(each_j[runs] * fraction)),
        decode_j=float(np.sum(each_j[runs] * (1.0 - fraction))),
        idle_j=float(np.sum(idle_j)),
    )
