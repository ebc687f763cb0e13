"""Raw points of a GPU that follows the cost model exactly, with numbers invented for it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from calibrate.grid import Point
from calibrate.raw import RawPoint
from calibrate.timeline import Replayed, Steps, energy_at, replay_steps
from sim.host_time import HostTime, process_s
from sim.step_cost import Coefficients
from traces.trace import Floats

GRAPHS = (1, 8, 16, 32, 64, 128)
KNOTS = (1, 32, 128, 512, 2048)
KNOT_SETS = ("DECODE_SECOND_KNOTS", "DECODE_JOULE_KNOTS", "PROMPT_SECOND_KNOTS", "PROMPT_JOULE_KNOTS")
"""Names in `calibrate.model` to which a fit of these points needs KNOTS."""
IDLE_W = 110.0

COEFFICIENTS = Coefficients(
    knots=np.array(KNOTS, dtype=np.float64),
    linear_s=np.array([0.0042, 0.0045, 0.0060, 0.0110, 0.0380]),
    linear_j=np.array([0.9, 1.1, 1.9, 5.5, 22.0]),
    prompt_knots=np.array(KNOTS, dtype=np.float64),
    prompt_s=np.array([0.0047, 0.0049, 0.0066, 0.0116, 0.0401]),
    prompt_j=np.array([1.0, 1.2, 2.1, 5.9, 23.2]),
    per_chunk=np.array([4e-5, 0.004]),
    per_pair=np.array([2e-9, 7e-7]),
    per_seq=np.array([8e-6, 9e-4]),
    per_kv=np.array([4e-8, 1.5e-5]),
    per_kv_mixed=np.array([1.5e-8, 6e-6]),
    per_longest=8e-8,
    most_alone=0.06,
    beyond_mean=1.0,
    resting=0.5,
    limits=np.array([2048.0, 96.0, 150_000.0, 3e6]),
    idle_w=IDLE_W,
    padded=np.array([min(size for size in GRAPHS if size >= i) for i in range(GRAPHS[-1] + 1)]),
    busy_w=260.0,
    cap_w=660.0,
    allowance_j=18.0,
    gamma=2.3,
    tail_w=30.0,
    tail_s=0.02,
)
HOST = HostTime(
    lead_s=0.0018,
    graph_s=0.0012,
    piecewise_s=0.0048,
    eager_s=0.0075,
    per_token_s=4e-7,
    per_seq_s=3e-6,
    process_s=2e-4,
    process_seq_s=5e-6,
    output_s=2.5e-4,
    submit_s=0.0011,
    deliver_s=0.0006,
    graph_tokens=GRAPHS[-1],
    submit_token_s=2e-7,
    wake_s=6e-4,
    wake_after_s=0.04,
)
FACTS: dict[str, Any] = {
    "engine": {
        "vllm": "0.0",
        "model": "invented",
        "dtype": "bfloat16",
        "quantization": None,
        "random_weights": True,
        "cudagraph_capture_sizes": list(GRAPHS),
    },
    "gpu": {"name": "Invented", "driver": "1.0", "power_limit_w": 670.0, "gpus": 1, "hashes": ["aa"]},
    "date": "2026-01-01",
    "bare_idle_w": 70.0,
}


@dataclass(frozen=True, slots=True)
class Load:
    """What a step holds, and how long the engine had waited for it, None if it was decided during another.

    The longest context is `unequal` times as long as their mean.
    """

    chunks: int
    prefill_tokens: int
    context_tokens: int
    decode_seqs: int
    kv_tokens: int
    waited_s: float | None = None
    unequal: float = 1.0

    @property
    def longest_tokens(self) -> int:
        """Tokens of the longest context that decodes."""
        return round(self.unequal * self.kv_tokens / max(self.decode_seqs, 1))

    @property
    def prefill_pairs(self) -> float:
        """Query-key pairs, the tokens spread evenly over the chunks."""
        return self.prefill_tokens * (
            self.context_tokens + (self.prefill_tokens / max(self.chunks, 1) + 1) / 2
        )


Described = tuple[str, dict[str, Any], list[Load]]


def calibration(c: Coefficients = COEFFICIENTS, h: HostTime = HOST) -> list[RawPoint]:
    """Return points of every kind, measured exactly as the model has it with these numbers."""
    loads = [*_decodes(), *_prefills(), *_mixed(), *_mixed_at_random(), *_trickles(), *_bursts(), *_scans()]
    return [_idle_point(), *(_point(*load, c, h) for load in loads)]


def held_out() -> list[RawPoint]:
    """Return points of loads that are not in `calibration`, measured exactly as the model has it."""
    decode = [Load(0, 0, 0, 24, 24 * (2000 + i)) for i in range(50)]
    ragged = [Load(0, 0, 0, 48, 48 * (1500 + i), None, 2.2) for i in range(50)]
    short = [Load(1, 96, 0, 0, 0, 0.004 if i % 3 == 0 else None) for i in range(50)]
    long = [Load(2, 1500, 1000, 0, 0) for _ in range(50)]
    mixed = [Load(i % 2, 700 * (i % 2), 0, 20, 20 * 800) for i in range(60)]
    request = [Load(1, 400, 0, 0, 0, 0.1), *(Load(0, 0, 0, 1, 400 + i) for i in range(1, 5))]
    return [
        _point("decode", {"batch": 24, "context_tokens": 2000}, decode),
        _point("ragged", {"batch": 48, "context_tokens": 1500}, ragged),
        _point("prefill", {"chunk_tokens": 96, "streams": 2}, short),
        _point("prefill", {"chunk_tokens": 750, "context_tokens": 1000, "streams": 4}, long),
        _point("mixed", {"batch": 20, "context_tokens": 800, "chunk_tokens": 700, "streams": 2}, mixed),
        _point("trickle", {"chunk_tokens": 400, "output_tokens": 5, "gap_s": 0.1}, request * 12),
    ]


def _decodes() -> Iterator[Described]:
    for batch, context in (
        (1, 100),
        (1, 4000),
        (8, 100),
        (16, 100),
        (16, 4000),
        (32, 1000),
        (64, 100),
        (96, 1000),
    ):
        steps = [Load(0, 0, 0, batch, batch * (context + i)) for i in range(50)]
        yield "decode", {"batch": batch, "context_tokens": context}, steps


def _prefills() -> Iterator[Described]:
    for tokens, context in (
        (32, 0),
        (64, 0),
        (128, 0),
        (256, 0),
        (512, 0),
        (1024, 0),
        (2048, 0),
        (512, 4000),
    ):
        # Now and then the engine is without work: there the launch shows.
        steps = [Load(1, tokens, context, 0, 0, 0.003 if i % 5 == 4 else None) for i in range(50)]
        yield "prefill", {"chunk_tokens": tokens, "context_tokens": context, "streams": 2}, steps
    packed = [Load(8, 1024, 0, 0, 0, 0.003 if i % 7 == 6 else None) for i in range(40)]
    yield "prefill", {"chunk_tokens": 128, "streams": 24}, packed


def _mixed() -> Iterator[Described]:
    for batch, tokens in ((8, 64), (8, 512), (32, 256), (64, 1024), (64, 1900)):
        alone, both = Load(0, 0, 0, batch, batch * 500), Load(1, tokens, 0, batch, batch * 500)
        steps = [both if i % 2 else alone for i in range(60)]
        yield "mixed", {"batch": batch, "context_tokens": 500, "chunk_tokens": tokens, "streams": 2}, steps


def _mixed_at_random() -> Iterator[Described]:
    for batch, context, unequal in (
        (64, 2100, 1.0),
        (32, 4000, 1.9),
        (64, 2000, 3.8),
        (64, 2200, 9.0),
        (96, 1500, 4.0),
    ):
        steps = [
            Load(int(i % 9 == 4), 200 * (i % 9 == 4), 0, batch, batch * context, None, unequal)
            for i in range(60)
        ]
        yield "mixed", {"batch": batch, "context_tokens": context, "chunk_tokens": 200, "gap_s": 0.1}, steps


def _trickles() -> Iterator[Described]:
    for tokens, output, gap_s in ((256, 8, 0.02), (256, 8, 0.2), (32, 1, 0.05), (1024, 1, 0.05)):
        request = [Load(1, tokens, 0, 0, 0, gap_s)]
        request += [Load(0, 0, 0, 1, tokens + i) for i in range(1, output)]
        yield "trickle", {"chunk_tokens": tokens, "output_tokens": output, "gap_s": gap_s}, request * 12


def _bursts() -> Iterator[Described]:
    for gap_s in (0.05, 0.4):
        steps = [Load(2, 2048, 0, 0, 0, gap_s if i % 12 == 0 else None) for i in range(48)]
        yield "burst", {"chunk_tokens": 1024, "streams": 24, "gap_s": gap_s}, steps


def _scans() -> Iterator[Described]:
    lengths = [20 + 97 * i % 2000 for i in range(40)]
    alone = [Load(1, tokens, 0, 0, 0, 0.03) for tokens in lengths]
    yield "scan", {"chunk_tokens": 2048, "gap_s": 0.03}, alone
    beside = [
        Load(int(i == 2), tokens * (i == 2), 0, 8, 8 * 400, None, 2.5) for tokens in lengths for i in range(5)
    ]
    yield "scan", {"batch": 8, "context_tokens": 400, "chunk_tokens": 2048, "gap_s": 0.03}, beside


def _point(
    kind: Any,
    sizes: dict[str, Any],
    loads: list[Load],
    c: Coefficients = COEFFICIENTS,
    h: HostTime = HOST,
) -> RawPoint:
    logged = _as_decided(loads)
    replayed = replay_steps(c, h, logged)
    steps = logged._replace(scheduled_s=replayed.decided_s, done_s=replayed.done_s)
    count = len(loads)
    counter = _counter(replayed)
    power_w = np.diff(counter[:, 1]) / np.diff(counter[:, 0])
    columns = {name: np.asarray(column, dtype=np.float64) for name, column in steps._asdict().items()}
    columns |= {name: np.zeros(count) for name in ("running", "waiting", "free_blocks")}
    begin = 0 if kind in ("burst", "trickle") else min(10, count // 4)
    return RawPoint(
        point=Point(kind, **sizes),
        session=0,
        began_at="2026-01-01T00:00:00+00:00",
        window_s=(float(replayed.done_s[begin]) - 1e-9, float(replayed.done_s[-1])),
        end_s=float(replayed.done_s[-1]),
        steps=columns,
        counter=counter,
        power=np.column_stack([counter[:-1, 0], power_w]),
        requests=_requests(steps) if kind == "trickle" else np.zeros((0, 3)),
        clock_mhz=1980.0,
        temperature_c=50.0,
        throttle_reasons=0,
    )


def _as_decided(loads: list[Load]) -> Steps:
    """Return steps whose times tell which were decided during others, one second a step."""
    scheduled_s, done_s = np.zeros(len(loads)), np.zeros(len(loads))
    end_s = 0.0
    for k, load in enumerate(loads):
        if load.waited_s is None:
            scheduled_s[k] = end_s - 0.5 if k else 0.0
        else:
            scheduled_s[k] = end_s + load.waited_s
        end_s = done_s[k] = max(scheduled_s[k], end_s) + 1.0
    return Steps(
        scheduled_s=scheduled_s,
        done_s=done_s,
        chunks=np.array([load.chunks for load in loads], dtype=np.int64),
        prefill_tokens=np.array([load.prefill_tokens for load in loads], dtype=np.int64),
        prefill_pairs=np.array([load.prefill_pairs for load in loads]),
        decode_seqs=np.array([load.decode_seqs for load in loads], dtype=np.int64),
        kv_tokens=np.array([load.kv_tokens for load in loads], dtype=np.int64),
        longest_tokens=np.array([load.longest_tokens for load in loads], dtype=np.int64),
    )


def _counter(replayed: Replayed) -> Floats:
    """Return a counter that ticks whenever an output was processed, with idle before and after."""
    energies = [energy_at(replayed, IDLE_W, step) for step in range(len(replayed.done_s))]
    begin = (replayed.begin_s[0] - 1.0, -IDLE_W)
    end = (replayed.done_s[-1] + 1.0, energies[-1] + IDLE_W)
    return np.array([begin, *zip(replayed.done_s.tolist(), energies, strict=True), end])


def _requests(steps: Steps) -> Floats:
    """Return the requests of a trickle: each begins with a prefill and ends before the next."""
    firsts = np.flatnonzero(steps.chunks)
    lasts = np.append(firsts[1:], len(steps.chunks)) - 1
    delivered_s = steps.done_s + process_s(HOST, 1) + HOST.deliver_s
    on_the_way_s = HOST.submit_s + HOST.submit_token_s * steps.prefill_tokens[firsts]
    return np.column_stack(
        [steps.scheduled_s[firsts] - on_the_way_s, delivered_s[firsts], delivered_s[lasts]]
    )


def _idle_point() -> RawPoint:
    ticks_s = np.arange(-0.5, 3.6, 0.1)
    return RawPoint(
        point=Point("idle"),
        session=0,
        began_at="2026-01-01T00:00:00+00:00",
        window_s=(0.0, 3.0),
        end_s=3.0,
        steps={name: np.zeros(0) for name in (*Steps._fields, "running", "waiting", "free_blocks")},
        counter=np.column_stack([ticks_s, IDLE_W * (ticks_s + 0.5)]),
        power=np.array([[-0.5, IDLE_W]]),
        requests=np.zeros((0, 3)),
        clock_mhz=1980.0,
        temperature_c=40.0,
        throttle_reasons=0,
    )
