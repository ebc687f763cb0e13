"""Fit the cost model to the windows of a calibration, by replaying them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from calibrate.model import Known, Model, guess_model
from calibrate.raw import RawPoint
from calibrate.timeline import Replayed, energy_at, replay_steps
from calibrate.windows import Window, found_idle, idle_power_w, read_host, windows
from sim.host_time import HostTime
from sim.metering import COUNTER_TOLERANCE, INVALIDATING_THROTTLES
from sim.step_cost import Coefficients
from traces.trace import Floats

TOLERANCE = 0.005
"""Relative error that counts as one unit; beyond three of them a window pulls less than its square."""

ALIKE_TOLERANCE = 0.015
"""The same of steps of one window that hold about the same: their sum is compared with the window's, too."""

EVENT_SPREAD = 0.06
"""How far the time of a single step reasonably lies off the mean of its like, relative."""

NEEDED = ("idle", "decode", "prefill", "trickle")
"""Kinds of points that the guesses are read from."""

KV_REACH = 4 / 3
"""How far beyond the fullest load KV tokens still count as measured: a step's cost is linear in them, and the
grid leaves room in the cache."""

SPENT_ON = {"prefill": ("prefill", "burst"), "decode": ("decode", "ragged"), "idle": ("trickle",)}
"""Kinds of points whose errors tell how well each part of a replay's energy is known."""

LEAST = 1e-3
RESTARTS = 1
MOST_STEPS = 80


@dataclass(frozen=True, slots=True)
class Sessions:
    """What tells the sessions of a calibration apart.

    Attributes:
        cards: The card that each was measured on, by its number.
        ascending: Those that sent batches of unequal contexts in ascending order, see `calibrate.loads`.
    """

    cards: dict[str, str]
    ascending: tuple[int, ...]

    def numbers(self, model: Model, log_values: Floats) -> Callable[[Window], tuple[Coefficients, HostTime]]:
        """Return what gives the model's numbers for a window: those of its card and of its batch's order."""
        built = {
            (card, is_ascending): model.build(log_values, card, is_ascending)
            for card in (None, *model.cards)
            for is_ascending in {False, bool(self.ascending)}
        }

        def numbers_of(window: Window) -> tuple[Coefficients, HostTime]:
            card = self.cards.get(str(window.session)) if model.cards else None
            return built[card, window.session in self.ascending and window.point.is_unequal]

        return numbers_of


@dataclass(frozen=True, slots=True)
class Residual:
    """A window, measured and as the fitted model replays it.

    Attributes:
        key: The point's key.
        kind: The point's kind.
        seconds, joules: Measured.
        model_seconds, model_joules: Replayed.
        latency_s, model_latency_s: Mean time from decision to output of steps that found an idle engine, None
            where there is none.
    """

    key: str
    kind: str
    seconds: float
    joules: float
    model_seconds: float
    model_joules: float
    latency_s: float | None
    model_latency_s: float | None


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """A fitted model and how well it replays what it was fitted to.

    Attributes:
        coefficients, host: Its numbers, of several cards the mean card's.
        parameters: What was fitted, by name.
        residuals: The windows it was fitted to, each by the numbers of its own card.
        idle_spread_w: Standard deviation of the idle points' power.
        spread: What `spread_of` says of the numbers above.
    """

    coefficients: Coefficients
    host: HostTime
    parameters: dict[str, float]
    residuals: tuple[Residual, ...]
    idle_spread_w: float
    spread: dict[str, float]


def fit(
    points: list[RawPoint],
    facts: dict[str, Any],
    say: Callable[[str], None],
    before: Mapping[str, float] | None = None,
) -> Fit:
    """Return the model fitted to all points.

    Args:
        points: What `calibrate.measure` measured.
        facts: What it wrote beside them: engine options and GPU.
        say: Told how the fit goes, a line at a time.
        before: `Fit.parameters` to start from, of a fit to some of these points; what is not in it, and
            without it all, starts from guesses read from the points.

    Raises:
        ValueError: A kind of point that a table needs is missing, or counter and power disagree.
    """
    points = usable(points, say)
    missing = [kind for kind in NEEDED if kind not in {raw.point.kind for raw in points}]
    if missing:
        raise ValueError(f"no {missing[0]} point is there; a fit needs one: let calibrate finish its grid")
    measured = windows(points)
    sessions = Sessions(facts.get("session_cards", {}), tuple(facts.get("ascending_sessions", ())))
    idle_w, idle_spread_w = idle_power_w(points)
    padded = padding(facts["engine"].get("cudagraph_capture_sizes", []))
    known = Known(idle_w, _limits(measured), padded, read_host(points, len(padded) - 1))
    gpus = facts["gpu"]["gpus"]
    cards = tuple(sorted(set(sessions.cards.values())))
    model = guess_model(
        measured, known, facts["gpu"]["power_limit_w"] * gpus, gpus, cards, bool(sessions.ascending)
    )
    start = {**dict(zip(model.names, model.guess.tolist(), strict=True)), **(before or {})}
    log_start = np.log([start[name] for name in model.names])
    log_values = _least_squares(model, log_start, measured, sessions, say)
    coefficients, host_time = model.build(log_values)
    numbers_of = sessions.numbers(model, log_values)
    of_mean_card = tuple(residual_of(coefficients, host_time, window) for window in measured)
    return Fit(
        coefficients=coefficients,
        host=host_time,
        parameters=dict(zip(model.names, np.exp(log_values).tolist(), strict=True)),
        residuals=tuple(residual_of(*numbers_of(window), window) for window in measured),
        idle_spread_w=idle_spread_w,
        spread=spread_of(of_mean_card, idle_spread_w / idle_w),
    )


def usable(points: list[RawPoint], say: Callable[[str], None]) -> list[RawPoint]:
    """Return the points during which the GPU did not slow down for heat or lack of power.

    Raises:
        ValueError: Counter and integrated power disagree.
    """
    bits = sum(INVALIDATING_THROTTLES)
    kept = [raw for raw in points if not raw.throttle_reasons & bits]
    if len(kept) < len(points):
        say(f"{len(points) - len(kept)} of {len(points)} points are left out: the GPU throttled")
    _check_counter(kept)
    return kept


def spread_of(residuals: tuple[Residual, ...], idle_fraction: float) -> dict[str, float]:
    """Return how far joules lie off the model, as fractions (root mean square), by what they are spent on.

    Args:
        residuals: Windows by the numbers that a simulation takes: of several cards, the mean card's.
        idle_fraction: Standard deviation of power without work, of its mean.
    """
    spread = {
        name: _rms([r.model_joules / r.joules - 1 for r in residuals if r.kind in members])
        for name, members in SPENT_ON.items()
    }
    return {**spread, "idle": float(np.hypot(spread["idle"], idle_fraction))}


def _rms(errors: list[float]) -> float:
    return float(np.sqrt(np.mean(np.square(errors)))) if errors else 0.0


def _check_counter(points: list[RawPoint]) -> None:
    """Compare the energy of all windows, by the counter, with their integrated power.

    Raises:
        ValueError: They disagree by more than `sim.metering.COUNTER_TOLERANCE`.
    """
    counter_j = sum(raw.energy_j(*raw.window_s) for raw in points)
    integrated_j = sum(raw.integrated_j(*raw.window_s) for raw in points)
    if abs(integrated_j - counter_j) > COUNTER_TOLERANCE * counter_j:
        raise ValueError(
            f"over all points the counter says {counter_j:.6g} J, integrated power {integrated_j:.6g} J; "
            f"they must agree within {100 * COUNTER_TOLERANCE:g} %, or this GPU cannot be measured"
        )


def padding(graph_sizes: list[int]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Return what each number of tokens up to the largest CUDA graph is padded to."""
    sizes = np.array(sorted(graph_sizes), dtype=np.int64)
    if not len(sizes):
        return np.zeros(1, dtype=np.int64)
    tokens = np.arange(sizes[-1] + 1)
    return np.asarray(sizes[np.searchsorted(sizes, tokens)])


def _limits(measured: list[Window]) -> Floats:
    """Return the most prefill tokens, sequences, KV tokens and pairs of a step that count as measured."""
    columns = ("prefill_tokens", "decode_seqs", "kv_tokens", "prefill_pairs")
    largest = [max(float(getattr(window.steps, column).max()) for window in measured) for column in columns]
    return np.asarray(np.array(largest) * [1.0, 1.0, KV_REACH, 1.0], dtype=np.float64)


def _least_squares(
    model: Model, start: Floats, measured: list[Window], sessions: Sessions, say: Callable[[str], None]
) -> Floats:
    def all_residuals(log_values: Floats) -> Floats:
        numbers_of = sessions.numbers(model, log_values)
        errors = [error for window in measured for error in errors_of(*numbers_of(window), window)]
        return np.concatenate([errors, model.prior_residuals(log_values)])

    rng = np.random.default_rng(0)
    best: Any = None
    for restart in range(1 + RESTARTS):
        near = start if best is None else best.x + rng.normal(0.0, 0.05, len(start))
        found = search(all_residuals, near)
        say(f"fit {restart + 1} of {1 + RESTARTS}: cost {found.cost:.0f} after {found.nfev} evaluations")
        if best is None or found.cost < best.cost:
            best = found
    return np.asarray(best.x, dtype=np.float64)


def search(residuals: Callable[[Floats], Floats], start: Floats) -> Any:
    """Return SciPy's result of least squares from `start`; beyond three units an error pulls less."""
    from scipy.optimize import least_squares

    steps = np.full(len(start), 1e-4)
    return least_squares(residuals, start, loss="soft_l1", f_scale=3.0, max_nfev=MOST_STEPS, diff_step=steps)


def errors_of(coefficients: Coefficients, host: HostTime, window: Window) -> list[float]:
    """Return how far the model is off a window: seconds, joules, latency if any, and steps that are alike.

    The unit is TOLERANCE; of steps that are alike ALIKE_TOLERANCE, more if they are few.
    """
    replayed = replay_steps(coefficients, host, window.steps)
    found = _residual(coefficients, replayed, window)
    errors = [
        _off(found.model_seconds, found.seconds),
        _off(found.model_joules, found.joules),
    ]
    if found.latency_s is not None and found.model_latency_s is not None:
        errors.append(_off(found.model_latency_s, found.latency_s))
    units = [error / TOLERANCE for error in errors]
    for group in window.alike:
        modelled_s = group.sum_s(replayed.decided_s, replayed.done_s)
        unit = np.hypot(ALIKE_TOLERANCE, EVENT_SPREAD / np.sqrt(len(group.steps)))
        units.append(_off(modelled_s, group.seconds) / unit)
    return units


def _off(modelled: float, measured: float) -> float:
    """Return the logarithm of the ratio; a search on its way may pass below 0."""
    return float(np.log(max(modelled / measured, LEAST)))


def residual_of(coefficients: Coefficients, host: HostTime, window: Window) -> Residual:
    """Replay a window by the model."""
    return _residual(coefficients, replay_steps(coefficients, host, window.steps), window)


def _residual(coefficients: Coefficients, replayed: Replayed, window: Window) -> Residual:
    seconds = replayed.done_s[window.last] - replayed.done_s[window.first]
    joules = energy_at(replayed, coefficients.idle_w, window.last) - energy_at(
        replayed, coefficients.idle_w, window.first
    )
    latency_s = model_latency_s = None
    if np.isfinite(window.latency_s):
        isolated = found_idle(window.steps, window.first, window.last)
        latency_s = window.latency_s
        model_latency_s = float((replayed.done_s - replayed.decided_s)[isolated].mean())
    return Residual(
        key=window.point.key,
        kind=window.point.kind,
        seconds=window.seconds,
        joules=window.joules,
        model_seconds=float(seconds),
        model_joules=float(joules),
        latency_s=latency_s,
        model_latency_s=model_latency_s,
    )
