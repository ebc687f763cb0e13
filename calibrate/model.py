"""The model's parameters as a vector of logarithms, with what is known about them beforehand.

Every parameter is positive, and its prior is a log-normal: the guess comes from the calibration's own
readings, the width says how far it may reasonably lie off. Where the windows speak, they outweigh it.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from calibrate.card import CARD_WIDTHS, Factors, on_card
from calibrate.windows import OUTPUT_S, HostReadings, Window
from sim.host_time import HostTime
from sim.step_cost import Coefficients
from traces.trace import Floats, Ints

DECODE_SECOND_KNOTS = (
    1, 8, 16, 24, 32, 48, 64, 72, 96, 128, 136, 160, 192, 256, 272, 320, 384, 416, 448, 480, 512, 513, 640,
    1024,
)  # fmt: skip
DECODE_JOULE_KNOTS = (1, 8, 16, 32, 64, 72, 96, 128, 136, 192, 256, 384, 512, 640, 1024)
TILE = 256
"""Rows of the blocks that matrix products are cut into: just above a multiple, one more wave begins."""
TILED = 4096
"""Tokens up to which such jumps are fitted; beyond, they are small against the whole."""
PROMPT_SECOND_KNOTS = (
    1, 64, 128, 256, 272, 384, 512, 513,
    *(edge + above for edge in range(3 * TILE, TILED, TILE) for above in (0, 1)),
    TILED, 8192, 16384,
)  # fmt: skip
PROMPT_JOULE_KNOTS = (1, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)

CARDS_BALANCE = 0.002
"""The cards' factors have the geometric mean 1, so that the table is that of the mean card."""

EDGES = (72, 136, 272, 513, *range(2 * TILE + 1, TILED, TILE))
"""Where a jump may be: just above a multiple of TILE, as matrix products may take one more wave of blocks,
and at the CUDA graphs just above 64 and 128, as FP8 then takes another kernel."""
JUMP = 0.3
"""How high it may reasonably be, as a logarithm."""

SMOOTH = {"s": 0.15, "j": 0.25}
"""How far another knot may reasonably lie off the line between its neighbours, as a logarithm."""


LONGEST = 1.75
"""Seconds for each token of the longest context, in those of a KV token: the blocks that read one context are
few, and so each of them reads for longer. This and the next two are what a fit to Llama-3.1-8B in bfloat16 on
one H200 gives, whose batches were measured in all orders and with equal contexts too (docs/design.md)."""

MOST_ALONE = 0.055
"""Share of a step's KV tokens beyond which attention splits a context, on one GPU with eight heads of KV."""

RESTING = 0.6
"""Share of `busy_w` that a GPU draws while it waits for the longest context: fits to Llama-3.1-8B in FP8 say
0.4 to 0.7, from batches of equal and of unequal contexts."""

ASCENDING = 2.6
"""How much more the longest context costs where a batch decodes in ascending order of contexts."""


LIKE_PROMPTS = 0.25
"""How far, as a logarithm, the linear layers of a step that only decodes may reasonably lie off those of one
with prompts and as many tokens, where it is larger than any CUDA graph: both launch the same kernels."""


@dataclass(frozen=True, slots=True)
class Known:
    """What is read from the points before the fit.

    Attributes:
        idle_w: Measured power without work, all GPUs.
        limits: Largest measured prefill tokens, decode sequences, KV tokens and pairs of a step, shape (4,).
        padded: Tokens that each number of tokens is padded to, shape (largest graph + 1,).
        host: Processor times: the client's way to the engine core and back, and what taking in a request
            costs, stay as read; the others are guesses.
    """

    idle_w: float
    limits: Floats
    padded: Ints
    host: HostReadings


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """Names, guesses and widths of the parameters, and how they become a table's numbers.

    Attributes:
        names, guess, width: Of each parameter; the width is of its logarithm, shape (parameters,).
        knots: Tokens in a step at which the linear layers' curves are fitted, ascending, by the name of the
            curve: of steps that `decode` only or hold `prompt`s, in seconds `_s` or joules `_j`.
        known: What is read beforehand.
        cards: Those that have factors of their own.
    """

    names: tuple[str, ...]
    guess: Floats
    width: Floats
    knots: dict[str, Floats]
    known: Known
    cards: tuple[str, ...] = ()

    def build(
        self, log_values: Floats, card: str | None = None, is_ascending: bool = False
    ) -> tuple[Coefficients, HostTime]:
        """Return the numbers that the engine takes, for one of the measured cards or for their mean.

        Args:
            log_values: The parameters' logarithms, shape (parameters,).
            card: One of `cards`, None for their mean.
            is_ascending: Whether the batch decodes in ascending order of contexts.
        """
        p = dict(zip(self.names, np.exp(log_values).tolist(), strict=True))
        decode_knots, decode_s = self._curve(p, "decode_s")
        prompt_knots, prompt_s = self._curve(p, "prompt_s")
        coefficients = Coefficients(
            knots=decode_knots,
            linear_s=decode_s,
            linear_j=np.interp(decode_knots, *self._curve(p, "decode_j")),
            prompt_knots=prompt_knots,
            prompt_s=prompt_s,
            prompt_j=np.interp(prompt_knots, *self._curve(p, "prompt_j")),
            per_chunk=np.array([p["chunk_s"], p["chunk_j"]]),
            per_pair=np.array([p["pair_s"], p["pair_j"]]),
            per_seq=np.array([p["seq_s"], p["seq_j"]]),
            per_kv=np.array([p["kv_s"], p["kv_j"]]),
            limits=self.known.limits,
            idle_w=self.known.idle_w,
            per_kv_mixed=np.array([p["kv_mixed_s"], p["kv_mixed_j"]]),
            per_longest=p["kv_s"] * p["longest"] * (p["ascending"] if is_ascending else 1.0),
            most_alone=p["most_alone"],
            beyond_mean=1.0,
            resting=p["resting"],
            padded=self.known.padded,
            busy_w=p["busy_w"],
            cap_w=p["cap_w"],
            allowance_j=p["allowance_j"],
            drag=p["drag"],
            recovery_s=p["recovery_s"],
            gamma=p["gamma"],
            tail_w=p["tail_w"],
            tail_s=p["tail_s"],
        )
        host = HostTime(
            lead_s=p["lead_s"],
            graph_s=p["graph_s"],
            piecewise_s=p["piecewise_s"],
            eager_s=p["eager_s"],
            per_token_s=p["per_token_s"],
            per_seq_s=p["per_seq_s"],
            process_s=p["process_s"],
            process_seq_s=p["process_seq_s"],
            output_s=p["output_s"],
            submit_s=self.known.host.submit_s,
            deliver_s=self.known.host.deliver_s,
            graph_tokens=len(self.known.padded) - 1,
            submit_token_s=self.known.host.submit_token_s,
            send_s=self.known.host.send_s,
            wake_s=p["wake_s"],
            wake_after_s=p["wake_after_s"],
            intake_s=self.known.host.intake_s,
            intake_token_s=self.known.host.intake_token_s,
        )
        factors = Factors(*(p.get(kind + str(card), 1.0) for kind in CARD_WIDTHS))
        return on_card(coefficients, host, factors)

    def _curve(self, p: dict[str, float], name: str) -> tuple[Floats, Floats]:
        """Return knots and values of a curve; in that of prompts the fixed part comes on what is fitted."""
        fitted = np.array([p[f"{name}_{knot:.0f}"] for knot in self.knots[name]])
        fixed = p[f"decode_{name[-1]}_1"] if name.startswith("prompt") else 0.0
        return self.knots[name], fixed + fitted

    def prior_residuals(self, log_values: Floats) -> Floats:
        """Return how far the parameters lie off their priors, in widths."""
        off = (log_values - np.log(self.guess)) / self.width
        values = dict(zip(self.names, np.exp(log_values).tolist(), strict=True))
        curves = {name: self._curve(values, name) for name in self.knots}
        bends = [bend for name, curve in curves.items() for bend in _bends(*curve, SMOOTH[name[-1]])]
        bends += self._unlike_prompts(curves)
        balance = [
            sum(np.log(values[kind + card]) for card in self.cards) / CARDS_BALANCE for kind in CARD_WIDTHS
        ]
        return np.concatenate([off, bends, balance if self.cards else []])

    def _unlike_prompts(self, curves: dict[str, tuple[Floats, Floats]]) -> list[float]:
        """Return how far decode steps larger than any graph lie off steps with prompts, in widths."""
        unlike: list[float] = []
        for unit in "sj":
            knots, at_knots = curves[f"decode_{unit}"]
            beyond = knots >= len(self.known.padded)
            prompts = np.interp(knots[beyond], *curves[f"prompt_{unit}"])
            unlike += (np.log(at_knots[beyond] / prompts) / LIKE_PROMPTS).tolist()
        return unlike


def _bends(knots: Floats, at_knots: Floats, width: float) -> list[float]:
    """Return how far each knot lies off the line between its neighbours, in widths."""
    bends = []
    for i in range(1, len(knots) - 1):
        line = np.interp(knots[i], [knots[i - 1], knots[i + 1]], [at_knots[i - 1], at_knots[i + 1]])
        is_at_edge = knots[i] in EDGES or knots[i + 1] in EDGES
        bends.append(float(np.log(at_knots[i] / line) / (JUMP if is_at_edge else width)))
    return bends


def guess_model(
    measured: list[Window],
    known: Known,
    power_limit_w: float,
    gpus: int,
    cards: tuple[str, ...],
    has_ascending: bool,
) -> Model:
    """Return the model with guesses read from the windows.

    Args:
        measured: The windows.
        known: What was read from them.
        power_limit_w: Of all GPUs.
        gpus: How many share each step.
        cards: Those that the windows were measured on.
        has_ascending: Whether some were measured with batches in ascending order of contexts.

    Raises:
        ValueError: There is no decode or no prefill window to read them from.
    """
    decodes = [window for window in measured if window.point.kind == "decode"]
    prefills = [window for window in measured if window.point.kind == "prefill"]
    if not decodes or not prefills:
        raise ValueError("a fit needs decode and prefill points; let calibrate finish its grid")
    smallest = min(decodes, key=lambda window: (window.point.batch, window.point.context_tokens))
    largest = max(prefills, key=lambda window: window.tokens)
    floor_s = smallest.step_s
    token_s = largest.step_s / largest.tokens
    cap_w = min(max(window.power_w for window in measured), 0.99 * power_limit_w)
    busy_w = 0.66 * smallest.power_w
    most_decoding = max(float(window.steps.decode_seqs.max()) for window in measured)
    most = max(window.tokens for window in measured)
    knots = {
        "decode_s": _knots(DECODE_SECOND_KNOTS, most_decoding),
        "decode_j": _knots(DECODE_JOULE_KNOTS, most_decoding),
        "prompt_s": _knots(PROMPT_SECOND_KNOTS, most),
        "prompt_j": _knots(PROMPT_JOULE_KNOTS, most),
    }
    floor_j, token_j = (smallest.power_w - busy_w) * floor_s, (cap_w - busy_w) * token_s
    guesses: dict[str, Callable[[float], float]] = {
        "decode_s": lambda knot: max(floor_s, 0.8 * token_s * knot),
        "decode_j": lambda knot: floor_j + 0.8 * token_j * knot,
        "prompt_s": lambda knot: max(0.2 * floor_s, 0.9 * token_s * knot),
        "prompt_j": lambda knot: 0.2 * floor_j + 0.9 * token_j * knot,
    }
    parameters: dict[str, tuple[float, float]] = {
        f"{name}_{knot:.0f}": (guess(knot), 2.0) for name, guess in guesses.items() for knot in knots[name]
    }
    kv_s, kv_j = _per_kv_token(decodes)
    parameters |= {
        "chunk_s": (0.005 * floor_s, 2.0),
        "chunk_j": (0.0005 * cap_w * floor_s, 2.0),
        "pair_s": (5e-5 * token_s, 1.5),
        "pair_j": (3e-5 * cap_w * token_s, 1.5),
        "seq_s": (0.001 * floor_s, 1.5),
        "seq_j": (0.001 * cap_w * floor_s, 1.5),
        "kv_s": (kv_s, 0.5),
        "kv_j": (kv_j, 0.7),
        "kv_mixed_s": (0.5 * kv_s, 1.5),
        "kv_mixed_j": (0.5 * kv_j, 1.5),
        "longest": (LONGEST * gpus, 0.15),
        "most_alone": (MOST_ALONE / gpus, 0.2),
        "resting": (RESTING, 0.3),
        "busy_w": (busy_w, 0.2),
        "cap_w": (cap_w, 0.02),
        "gamma": (2.0, 0.3),
        "allowance_j": (0.03 * power_limit_w, 1.0),
        "drag": (0.6, 1.0),
        "recovery_s": (0.05, 0.5),
        "tail_w": (0.4 * known.idle_w, 1.0),
        "tail_s": (0.03, 1.0),
        "lead_s": (2e-3, 0.5),
        "graph_s": (0.3 * floor_s, 0.3),
        "piecewise_s": (known.host.piecewise_s, 0.2),
        "eager_s": (known.host.eager_s, 0.05),
        "per_token_s": (max(known.host.per_token_s, 1e-8), 0.2),
        "per_seq_s": (3e-6, 1.0),
        "process_s": (known.host.process_s, 0.1),
        "process_seq_s": (known.host.process_seq_s, 0.05),
        "output_s": (OUTPUT_S, 1.0),
        "wake_s": (5e-4, 0.5),
        "wake_after_s": (0.05, 0.2),
    }
    if has_ascending:
        parameters["ascending"] = (ASCENDING, 0.15)
    several = cards if len(cards) > 1 else ()
    parameters |= {kind + card: (1.0, width) for kind, width in CARD_WIDTHS.items() for card in several}
    return Model(
        names=tuple(parameters),
        guess=np.array([value for value, _ in parameters.values()]),
        width=np.array([width for _, width in parameters.values()]),
        knots=knots,
        known=known,
        cards=several,
    )


def _knots(candidates: tuple[int, ...], most: float) -> Floats:
    kept = [float(knot) for knot in candidates if knot < most]
    return np.array([*kept, next((float(knot) for knot in candidates if knot >= most), most)])


def _per_kv_token(decodes: list[Window]) -> tuple[float, float]:
    """Return seconds and joules of a KV token, from the longest against the shortest context of one batch."""
    best: tuple[float, float, float] = (0.0, 3e-8, 1.5e-5)
    for batch in {window.point.batch for window in decodes}:
        same = sorted((w for w in decodes if w.point.batch == batch), key=lambda w: w.point.context_tokens)
        short, long = same[0], same[-1]
        more = _mean_kv(long) - _mean_kv(short)
        if more > best[0] and long.step_s > short.step_s:
            per_step_j = long.joules / (long.last - long.first) - short.joules / (short.last - short.first)
            seconds = (long.step_s - short.step_s) / more
            best = (more, seconds, max(0.5 * per_step_j / more, 1e-9))
    return best[1], best[2]


def _mean_kv(window: Window) -> float:
    return float(window.steps.kv_tokens[window.first + 1 : window.last + 1].mean())
