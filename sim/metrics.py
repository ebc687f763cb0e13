"""What is reported of requests, each defined once, for simulated and measured runs alike.

A metric of latency is taken over the served requests; one that a request does not have (TPOT of a single
token) leaves that request out. Missing is None or NaN, never 0.
"""

import numpy as np
from numpy.typing import NDArray

from traces.record import SERVED, Outcomes
from traces.trace import Floats


def served(outcomes: Outcomes) -> NDArray[np.bool_]:
    """Return which requests were served, shape (requests,)."""
    is_served: NDArray[np.bool_] = outcomes.status == SERVED
    return is_served


def ttft_s(outcomes: Outcomes) -> Floats:
    """Return the times to first token of the served requests.

    TTFT = first_token_s - arrival_s, holding and queueing included.
    """
    rows = served(outcomes)
    return outcomes.first_token_s[rows] - outcomes.arrival_s[rows]


def tpot_s(outcomes: Outcomes) -> Floats:
    """Return the times per output token of the served requests that have at least 2 output tokens.

    TPOT = (finished_s - first_token_s) / (output_tokens - 1): the first token is TTFT's.
    """
    rows = served(outcomes) & (outcomes.output_tokens >= 2)
    return (outcomes.finished_s[rows] - outcomes.first_token_s[rows]) / (outcomes.output_tokens[rows] - 1)


def e2e_s(outcomes: Outcomes) -> Floats:
    """Return the end-to-end latencies of the served requests.

    E2E = finished_s - arrival_s.
    """
    rows = served(outcomes)
    return outcomes.finished_s[rows] - outcomes.arrival_s[rows]


def latency_s(outcomes: Outcomes, latency: str) -> Floats:
    """Return `ttft`, `tpot` or `e2e` of every request as defined above, NaN where it has none."""
    with np.errstate(invalid="ignore", divide="ignore"):
        values = {
            "ttft": outcomes.first_token_s - outcomes.arrival_s,
            "tpot": (outcomes.finished_s - outcomes.first_token_s) / (outcomes.output_tokens - 1),
            "e2e": outcomes.finished_s - outcomes.arrival_s,
        }[latency]
    has_it = served(outcomes)
    if latency == "tpot":
        has_it = has_it & (outcomes.output_tokens >= 2)
    return np.where(has_it, values, np.nan)


def held_s(outcomes: Outcomes) -> Floats:
    """Return how long the policy held each served request.

    held = released_s - arrival_s.
    """
    rows = served(outcomes)
    return outcomes.released_s[rows] - outcomes.arrival_s[rows]


def quantile(values: Floats, q: float) -> float | None:
    """Return the `q` quantile of `values`, None if there are none.

    Linear interpolation between order statistics: at position q * (n - 1) of the sorted values (type 7 of
    Hyndman and Fan, the default of NumPy and R).
    """
    return float(np.quantile(values, q)) if len(values) else None


def ratio(numerator: float | None, denominator: float) -> float | None:
    """Return numerator / denominator, None where there is nothing to divide or to divide by."""
    return None if numerator is None or denominator <= 0 else numerator / denominator
