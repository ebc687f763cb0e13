"""Windows: the parts of raw points that a model is fitted to, and what can be read from them without one."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from calibrate.alike import QUICK_SEQS, Alike, alike
from calibrate.grid import Point
from calibrate.intake import read_intake
from calibrate.raw import RawPoint
from calibrate.timeline import Steps, steps_of
from traces.trace import Floats

LEAD_IN_STEPS = 60
"""Steps replayed before a window, so that clocks and pipeline have their state when it begins."""

WAIT_S = 2e-3
"""An engine that scheduled a step that long after its last output had nothing to do in between."""

MANY_STREAMS = 8
AT_ONCE_S = 1e-3
"""Of so many streams, requests submitted less than that apart are submitted as quickly as the client can."""

MIN_STEPS = 3

ENOUGH_LAUNCHES = 30

OUTPUT_S = 3e-4
"""What a step's output takes to the engine core, roughly; the fit says it exactly."""


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """Logged steps of which `first` to `last` are compared.

    Attributes:
        point: The load.
        session: The engine start that it was measured in.
        steps: Steps with their lead-in.
        first, last: The window reaches from the output of step `first` to that of step `last`.
        seconds, joules: Measured in between.
        latency_s: Mean time from decision to output of the steps that found an idle engine, NaN if none did.
    """

    point: Point
    session: int
    steps: Steps
    first: int
    last: int
    seconds: float
    joules: float
    latency_s: float
    alike: tuple[Alike, ...] = ()

    @property
    def power_w(self) -> float:
        """Mean measured power."""
        return self.joules / self.seconds

    @property
    def step_s(self) -> float:
        """Mean measured time from one output to the next."""
        return self.seconds / (self.last - self.first)

    @property
    def tokens(self) -> float:
        """Mean tokens in a step."""
        part = slice(self.first + 1, self.last + 1)
        return float((self.steps.prefill_tokens[part] + self.steps.decode_seqs[part]).mean())


def windows(points: Iterable[RawPoint]) -> list[Window]:
    """Return the window of each point that has one."""
    found = []
    for raw in points:
        done_s = raw.steps["done_s"]
        begin_s, end_s = (0.0 if raw.point.kind == "burst" else raw.window_s[0]), raw.window_s[1]
        inside = np.flatnonzero((done_s > begin_s) & (done_s <= end_s))
        if len(inside) < MIN_STEPS:
            continue
        kept = slice(max(inside[0] - LEAD_IN_STEPS, 0), inside[-1] + 1)
        steps = steps_of({name: column[kept] for name, column in raw.steps.items()})
        first, last = int(inside[0] - kept.start), int(inside[-1] - kept.start)
        from_s, to_s = float(done_s[inside[0]]), float(done_s[inside[-1]])
        isolated = found_idle(steps, first, last)
        latency_s = (steps.done_s - steps.scheduled_s)[isolated]
        found.append(
            Window(
                point=raw.point,
                session=raw.session,
                steps=steps,
                first=first,
                last=last,
                seconds=to_s - from_s,
                joules=raw.energy_j(from_s, to_s),
                latency_s=float(np.mean(latency_s))
                if raw.point.kind == "trickle" and isolated.size
                else np.nan,
                alike=tuple(alike(steps, first, last)) if raw.point.comes_at_random else (),
            )
        )
    return found


def found_idle(steps: Steps, first: int, last: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Return the steps after `first` up to `last` that were scheduled on an engine without work."""
    waited = steps.scheduled_s[1:] > steps.done_s[:-1] + WAIT_S
    found = np.flatnonzero(waited).astype(np.int64) + 1
    return found[(found > first) & (found <= last)]


def idle_power_w(points: Iterable[RawPoint]) -> tuple[float, float]:
    """Return mean and spread (standard deviation) of the power of the idle points, model loaded."""
    watts = [
        raw.energy_j(*raw.window_s) / (raw.window_s[1] - raw.window_s[0])
        for raw in points
        if raw.point.kind == "idle"
    ]
    if not watts:
        raise ValueError(
            "no idle point was measured; a table needs the power without work: let calibrate finish"
        )
    return float(np.mean(watts)), float(np.std(watts))


@dataclass(frozen=True, slots=True)
class HostReadings:
    """Processor times read straight from the step log, see `sim.host_time.HostTime` for their meaning."""

    piecewise_s: float
    eager_s: float
    per_token_s: float
    process_s: float
    process_seq_s: float
    submit_s: float
    submit_token_s: float
    send_s: float
    deliver_s: float
    intake_s: float
    intake_token_s: float


def read_host(points: list[RawPoint], graph_tokens: int) -> HostReadings:
    """Return the engine core's times that show between the steps of the log.

    Launching shows where a step on an idle engine is followed at once by the next decision, and, in open
    loads, where a decode step's output waits for the launch of a larger step; processing, between an output
    and the decision after it; the client's way, where one request at a time is sent. Open loads are believed
    before the others, in which each launch competes with the next request's coming in.

    If no step was larger than the largest graph, or none smaller, these are taken to launch like the others.

    Raises:
        ValueError: One of these times is nowhere to be seen.
    """
    launches, open_launches, processing = [], [], []
    submits, delivers = [], []
    for raw in points:
        scheduled_s, done_s = raw.steps["scheduled_s"], raw.steps["done_s"]
        tokens = raw.steps["prefill_tokens"]
        for k in range(1, len(done_s) - 1):
            alone = scheduled_s[k] > done_s[k - 1] and scheduled_s[k + 1] < done_s[k]
            if alone and raw.point.kind == "prefill" and raw.steps["decode_seqs"][k] == 0:
                launches.append((tokens[k], scheduled_s[k + 1] - scheduled_s[k]))
        if raw.point.comes_at_random:
            open_launches += _launches_seen(raw)
        if raw.point.kind == "decode":
            wait_s = scheduled_s[2:] - done_s[:-2]
            steady = raw.steps["chunks"][2:] == 0
            seqs = raw.steps["decode_seqs"][:-2]
            processing += [
                (n, wait) for n, wait in zip(seqs[steady], wait_s[steady], strict=True) if wait > 0
            ]
        if raw.point.kind == "trickle":
            for submitted_s, first_s, _ in raw.requests:
                step = int(np.searchsorted(scheduled_s, submitted_s))
                if step < len(done_s):
                    submits.append((raw.point.chunk_tokens, scheduled_s[step] - submitted_s))
                    delivers.append(first_s - done_s[step])
    if not (submits and launches and processing):
        raise ValueError("no step was decided while another ran; a fit needs async scheduling in the engine")
    by_tokens = np.array(open_launches if len(open_launches) >= ENOUGH_LAUNCHES else launches)
    is_small = by_tokens[:, 0] <= graph_tokens
    small = by_tokens[is_small] if is_small.any() else by_tokens
    large = by_tokens[~is_small] if not is_small.all() else by_tokens
    per_token_s = max(float(_line(large)[1]), 0.0) if len(large) > 1 else 0.0
    seqs_and_wait = np.array(processing)
    process_s, process_seq_s = _line(seqs_and_wait)
    submit_s, submit_token_s = _line(np.array(submits))
    intake_s, intake_token_s = read_intake(points)
    return HostReadings(
        piecewise_s=float(np.median(small[:, 1] - per_token_s * small[:, 0])),
        eager_s=float(np.median(large[:, 1] - per_token_s * large[:, 0])),
        per_token_s=per_token_s,
        process_s=max(process_s, 1e-6),
        process_seq_s=max(process_seq_s, 1e-9),
        submit_s=max(submit_s - intake_s, 0.0),
        submit_token_s=max(submit_token_s - intake_token_s, 0.0),
        send_s=_between_sends(points),
        deliver_s=max(float(np.median(delivers)) - process_s, 0.0),
        intake_s=intake_s,
        intake_token_s=intake_token_s,
    )


def _between_sends(points: list[RawPoint]) -> float:
    """Return the median time between two requests of several that the client sends at once, 0 if none are."""
    gaps_s = [
        np.diff(np.sort(raw.requests[:, 0]))
        for raw in points
        if raw.point.kind in ("burst", "prefill") and raw.point.streams >= MANY_STREAMS
    ]
    at_once_s = [gap_s[gap_s < AT_ONCE_S] for gap_s in gaps_s]
    return float(np.median(np.concatenate(at_once_s))) if any(map(len, at_once_s)) else 0.0


def _launches_seen(raw: RawPoint) -> list[tuple[float, float]]:
    """Return (prefill tokens, seconds) of launches that a decode step's output had to wait for."""
    steps = raw.steps
    pipelined = steps["scheduled_s"][1:] < steps["done_s"][:-1]
    waited = pipelined & (steps["chunks"][:-1] == 0) & (steps["chunks"][1:] > 0)
    waited &= steps["decode_seqs"][:-1] <= QUICK_SEQS
    places = np.flatnonzero(waited)
    seconds = steps["done_s"][places] - OUTPUT_S - steps["scheduled_s"][places + 1]
    return list(zip(steps["prefill_tokens"][places + 1].tolist(), seconds.tolist(), strict=True))


def _line(points: Floats) -> tuple[float, float]:
    """Return intercept and slope of the line nearest, in relative terms, to the medians of y at each x."""
    at = np.unique(points[:, 0])
    medians = np.array([np.median(points[points[:, 0] == x, 1]) for x in at])
    if len(at) == 1:
        return float(medians[0]), 0.0
    slope, intercept = np.polyfit(at, medians, 1, w=1 / medians)
    return float(intercept), float(slope)
