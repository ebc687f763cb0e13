"""A run of any length whose requests come at equal distances."""

from dataclasses import replace

import numpy as np
from toy_run import META

from traces.record import SERVED, EnergySplit, Outcomes, Power, Run


def large_run(requests: int) -> Run:
    """Return a run of so many requests, one every 0.2 s, each decoding for 3 s, at 400 W."""
    arrival_s = 0.2 * np.arange(requests, dtype=np.float64)
    makespan_s = float(arrival_s[-1] + 3.1)
    total_j = 400.0 * makespan_s
    rng = np.random.default_rng(0)
    outcomes = Outcomes(
        request_id=np.arange(requests),
        arrival_s=arrival_s,
        released_s=arrival_s,
        first_token_s=arrival_s + 0.1,
        finished_s=arrival_s + 3.1,
        prompt_tokens=rng.integers(10, 4000, requests, dtype=np.int32),
        output_tokens=rng.integers(2, 600, requests, dtype=np.int32),
        status=np.full(requests, SERVED, np.uint8),
        energy_j=np.full(requests, 0.9 * total_j / requests),
    )
    time_s = np.append(np.arange(0.0, makespan_s, 0.1), makespan_s)
    split = EnergySplit(0.4 * total_j, 0.5 * total_j, 0.1 * total_j)
    meta = replace(META, requests=requests, makespan_s=makespan_s, energy=split)
    return Run(meta, outcomes, Power(time_s, 400.0 * time_s))
