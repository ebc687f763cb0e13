"""Replay the steps of a measured window through the cost model, with the engine core's own work around them.

What each step held is taken from the step log, and how long the engine waited for work; when steps begin and
end, and the joules, come from the model. The same functions price the steps of the simulated engine.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sim.compiled import compiled, compiled_entry
from sim.host_time import HostTime, is_one_graph, launch_s, lead_s, process_s, woken_s
from sim.step_cost import Coefficients, gap_energy, logged_longest, new_state, step_cost
from traces.trace import Floats, Ints


class Steps(NamedTuple):
    """Logged steps, each array of shape (steps,); times in seconds since the load began."""

    scheduled_s: Floats
    done_s: Floats
    chunks: Ints
    prefill_tokens: Ints
    prefill_pairs: Floats
    decode_seqs: Ints
    kv_tokens: Ints
    longest_tokens: Ints


class Replayed(NamedTuple):
    """What the model makes of the steps, each array of shape (steps,).

    Attributes:
        begin_s: When the GPU began the step.
        end_s: When it was through.
        done_s: When the step's output was processed.
        decided_s: When the step was decided.
        energy_j: Energy since the first step began, at `end_s`.
        launched_s: When its last kernel was launched.
    """

    begin_s: Floats
    end_s: Floats
    done_s: Floats
    decided_s: Floats
    energy_j: Floats
    launched_s: Floats


def steps_of(columns: Mapping[str, NDArray[Any]]) -> Steps:
    """Return the steps of a log, whose columns may be of other number types and more than these."""
    return Steps(
        scheduled_s=np.asarray(columns["scheduled_s"], np.float64),
        done_s=np.asarray(columns["done_s"], np.float64),
        chunks=np.asarray(columns["chunks"], np.int64),
        prefill_tokens=np.asarray(columns["prefill_tokens"], np.int64),
        prefill_pairs=np.asarray(columns["prefill_pairs"], np.float64),
        decode_seqs=np.asarray(columns["decode_seqs"], np.int64),
        kv_tokens=np.asarray(columns["kv_tokens"], np.int64),
        longest_tokens=logged_longest(columns),
    )


def replay_steps(c: Coefficients, h: HostTime, steps: Steps) -> Replayed:
    """Return when the steps would have run, and their energy, by the model."""
    count = len(steps.done_s)
    replayed = Replayed(*(np.full(count, np.nan) for _ in Replayed._fields))
    _replay_into(replayed, new_state(), c, h, steps)
    return replayed


def replay_at_pace(c: Coefficients, h: HostTime, steps: Steps, modelled: Replayed) -> Replayed:
    """Return the steps at the pace that the host had: decided, and their outputs there, when the log has it.

    A host keeps no steady pace: a step that waits for it may take half as long again a second later. Steps
    that wait for it by the model, before they begin or for their kernels, do so for as long as they did; the
    GPU's own times and all joules are the model's.

    Args:
        c: The cost table's numbers.
        h: The same of the host.
        steps: The logged steps.
        modelled: What `replay_steps` makes of them.
    """
    free_s = np.concatenate([modelled.decided_s[:1], modelled.end_s[:-1]])
    starved = (modelled.begin_s > free_s) | np.isclose(modelled.end_s, modelled.launched_s, rtol=0, atol=1e-9)
    begin_s, end_s, energy_j = (np.full(len(steps.done_s), np.nan) for _ in range(3))
    paced = Replayed(begin_s, end_s, steps.done_s, steps.scheduled_s, energy_j, modelled.launched_s)
    _pace_into(paced, starved, new_state(), c, h, steps)
    return paced


@compiled
def _cost(c: Coefficients, state: Floats, steps: Steps, k: int, at_least_s: float) -> tuple[float, float]:
    """Return seconds and joules of a logged step, as `step_cost` does."""
    seconds, prefill_j, decode_j, _, _ = step_cost(
        c,
        state,
        steps.chunks[k],
        steps.prefill_tokens[k],
        steps.prefill_pairs[k],
        steps.decode_seqs[k],
        steps.kv_tokens[k],
        steps.longest_tokens[k],
        at_least_s,
    )
    return seconds, prefill_j + decode_j


@compiled_entry
def _pace_into(
    paced: Replayed, starved: NDArray[np.bool_], state: Floats, c: Coefficients, h: HostTime, steps: Steps
) -> None:
    count = len(steps.done_s)
    free_s = steps.scheduled_s[0]
    joules = 0.0
    for k in range(count):
        chunks, tokens, seqs = steps.chunks[k], steps.prefill_tokens[k], steps.decode_seqs[k]
        from_s = steps.scheduled_s[k]
        if k > 0 and from_s >= steps.done_s[k - 1]:
            from_s += woken_s(h, from_s - steps.done_s[k - 1])
        begin_s = max(free_s, from_s + lead_s(h, chunks, tokens, seqs))
        until_s = begin_s
        if starved[k] and not is_one_graph(h, chunks, seqs):
            until_s = steps.done_s[k] - h.output_s
            if k + 1 < count and steps.scheduled_s[k + 1] < steps.done_s[k]:
                next_s = lead_s(h, steps.chunks[k + 1], steps.prefill_tokens[k + 1], steps.decode_seqs[k + 1])
                until_s = min(until_s, steps.scheduled_s[k + 1] + next_s)
        joules += gap_energy(c, state, begin_s - free_s)
        seconds, step_j = _cost(c, state, steps, k, until_s - begin_s)
        joules += step_j
        free_s = begin_s + seconds
        paced.begin_s[k], paced.end_s[k], paced.energy_j[k] = begin_s, free_s, joules


@compiled_entry
def _replay_into(replayed: Replayed, state: Floats, c: Coefficients, h: HostTime, steps: Steps) -> None:
    begin_s, end_s, done_s = replayed.begin_s, replayed.end_s, replayed.done_s
    decided_s, energy_j, launched_s = replayed.decided_s, replayed.energy_j, replayed.launched_s
    count = len(done_s)
    free_s = 0.0
    joules = 0.0
    for k in range(count):
        from_s = 0.0
        chunks, tokens, seqs = steps.chunks[k], steps.prefill_tokens[k], steps.decode_seqs[k]
        if k == 0:
            decided_s[k] = steps.scheduled_s[k]
            free_s = decided_s[k]
        elif steps.scheduled_s[k] >= steps.done_s[k - 1]:
            done_s[k - 1] = max(end_s[k - 1], launched_s[k - 1]) + h.output_s
            waited_s = steps.scheduled_s[k] - steps.done_s[k - 1]
            decided_s[k] = done_s[k - 1] + waited_s
            from_s = woken_s(h, waited_s)
        else:
            decided_s[k] = launched_s[k - 1]
            if k > 1 and steps.scheduled_s[k] >= steps.done_s[k - 2]:
                processed_s = done_s[k - 2] + process_s(h, steps.chunks[k - 2] + steps.decode_seqs[k - 2])
                decided_s[k] = max(decided_s[k], processed_s)
        from_s += decided_s[k]
        launched_s[k] = from_s + launch_s(h, chunks, tokens, seqs)
        begin_s[k] = max(free_s, from_s + lead_s(h, chunks, tokens, seqs))
        joules += gap_energy(c, state, begin_s[k] - free_s)
        seconds, step_j = _cost(c, state, steps, k, launched_s[k] - begin_s[k])
        joules += step_j
        free_s = begin_s[k] + seconds
        end_s[k] = free_s
        energy_j[k] = joules
        if k > 0 and np.isnan(done_s[k - 1]):
            done_s[k - 1] = max(end_s[k - 1], launched_s[k]) + h.output_s
    done_s[count - 1] = max(end_s[count - 1], launched_s[count - 1]) + h.output_s


def energy_at(r: Replayed, idle_w: float, step: int) -> float:
    """Return the energy at the moment the output of `step` was processed, the next step perhaps under way."""
    at_s, joules = r.done_s[step], r.energy_j[step]
    if step + 1 == len(r.done_s) or at_s <= r.begin_s[step + 1]:
        return float(joules + idle_w * (at_s - r.end_s[step]))
    gap_j = idle_w * (r.begin_s[step + 1] - r.end_s[step])
    seconds = max(r.end_s[step + 1] - r.begin_s[step + 1], 1e-12)
    share = min((at_s - r.begin_s[step + 1]) / seconds, 1.0)
    return float(joules + gap_j + share * (r.energy_j[step + 1] - joules - gap_j))
