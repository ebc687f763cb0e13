"""Fit the cost model to the windows of a calibration, by replaying them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from calibrate.model import Known, Model, guess_model
from calibrate.raw import RawPoint
from calibrate.timeline import energy_at, replay_steps
from calibrate.windows import Window, found_idle, idle_power_w, read_host, windows
from sim.host_time import HostTime
from sim.step_cost import Coefficients
from traces.trace import Floats

TOLERANCE = 0.005
"""Relative error that counts as one unit; beyond three of them a window pulls less than its square."""

RESTARTS = 1
MOST_STEPS = 80


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
    """A fitted model and how well it replays what it was fitted to."""

    coefficients: Coefficients
    host: HostTime
    parameters: dict[str, float]
    residuals: tuple[Residual, ...]
    idle_spread_w: float


def fit(points: list[RawPoint], facts: dict[str, Any], say: Callable[[str], None]) -> Fit:
    """Return the model fitted to all points.

    Args:
        points: What `calibrate.measure` measured.
        facts: What it wrote beside them: engine options and GPU.
        say: Told how the fit goes, a line at a time.
    """
    measured = windows(points)
    idle_w, idle_spread_w = idle_power_w(points)
    padded = padding(facts["engine"].get("cudagraph_capture_sizes", []))
    host = read_host(points, len(padded) - 1)
    known = Known(idle_w, _limits(measured), padded, host.submit_s, host.deliver_s)
    limit_w = (facts["gpu"].get("power_limit_w") or 1e9) * facts["gpu"].get("gpus", 1)
    model = guess_model(measured, host, known, limit_w)
    log_values = _least_squares(model, measured, say)
    coefficients, host_time = model.build(log_values)
    return Fit(
        coefficients=coefficients,
        host=host_time,
        parameters=dict(zip(model.names, np.exp(log_values).tolist(), strict=True)),
        residuals=tuple(_residual(coefficients, host_time, window) for window in measured),
        idle_spread_w=idle_spread_w,
    )


def padding(graph_sizes: list[int]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Return what each number of tokens up to the largest CUDA graph is padded to."""
    sizes = np.array(sorted(graph_sizes), dtype=np.int64)
    if not len(sizes):
        return np.zeros(1, dtype=np.int64)
    tokens = np.arange(sizes[-1] + 1)
    return np.asarray(sizes[np.searchsorted(sizes, tokens)])


def _limits(measured: list[Window]) -> Floats:
    columns = ("prefill_tokens", "decode_seqs", "kv_tokens", "prefill_pairs")
    return np.array(
        [max(float(getattr(window.steps, column).max()) for window in measured) for column in columns]
    )


def _least_squares(model: Model, measured: list[Window], say: Callable[[str], None]) -> Floats:
    from scipy.optimize import least_squares

    def all_residuals(log_values: Floats) -> Floats:
        coefficients, host = model.build(log_values)
        errors = [error for window in measured for error in _errors(coefficients, host, window)]
        return np.concatenate([np.array(errors) / TOLERANCE, model.prior_residuals(log_values)])

    rng = np.random.default_rng(0)
    steps = np.full(len(model.guess), 1e-4)
    best: Any = None
    for restart in range(1 + RESTARTS):
        start = np.log(model.guess) if best is None else best.x + rng.normal(0.0, 0.05, len(model.guess))
        found = least_squares(
            all_residuals, start, loss="soft_l1", f_scale=3.0, max_nfev=MOST_STEPS, diff_step=steps
        )
        say(f"fit {restart + 1} of {1 + RESTARTS}: cost {found.cost:.0f} after {found.nfev} evaluations")
        if best is None or found.cost < best.cost:
            best = found
    return np.asarray(best.x, dtype=np.float64)


def _errors(coefficients: Coefficients, host: HostTime, window: Window) -> list[float]:
    found = _residual(coefficients, host, window)
    errors = [
        np.log(found.model_seconds / found.seconds),
        np.log(found.model_joules / found.joules),
    ]
    if found.latency_s is not None and found.model_latency_s is not None:
        errors.append(np.log(found.model_latency_s / found.latency_s))
    return errors


def _residual(coefficients: Coefficients, host: HostTime, window: Window) -> Residual:
    replayed = replay_steps(coefficients, host, window.steps)
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
