"""A small run whose every number is easy to check by hand."""

from dataclasses import replace
from typing import Any

import numpy as np

from traces.record import FAILED, SERVED, EnergySplit, Meta, Outcomes, Power, Run

META = Meta(
    run_id="toy",
    kind="simulated",
    started_at="2030-01-01T00:00:00+00:00",
    trace_name="toy",
    trace_sha256="0" * 64,
    trace_source="invented for a test",
    trace_options={},
    requests=4,
    policy="immediate",
    policy_options={},
    engine_options={},
    table="toy",
    table_source="nowhere: invented numbers",
    gpu="Toy GPU",
    gpus=1,
    power_limit_w=700.0,
    idle_w=100.0,
    versions={},
    seed=0,
    makespan_s=10.0,
    energy=EnergySplit(prefill_j=500.0, decode_j=1500.0, idle_j=400.0),
    energy_source="simulated",
    out_of_range_fraction=0.0,
    energy_valid=True,
)


def toy_run(**changes: Any) -> Run:
    """Return the run, with fields of its meta, its outcomes or its power (`counter_j`, `counter_s`) changed.

    Row 2 failed after its release; the others were served.
    """
    nan = float("nan")
    columns = {
        "request_id": np.arange(4, dtype=np.int64),
        "arrival_s": np.array([0.0, 1.0, 2.0, 3.0]),
        "released_s": np.array([0.5, 1.0, 2.0, 3.0]),
        "first_token_s": np.array([1.0, 3.0, nan, 3.25]),
        "finished_s": np.array([3.0, 10.0, nan, 3.25]),
        "prompt_tokens": np.array([10, 20, 30, 40], dtype=np.int32),
        "output_tokens": np.array([5, 8, 0, 1], dtype=np.int32),
        "status": np.array([SERVED, SERVED, FAILED, SERVED], dtype=np.uint8),
        "energy_j": np.array([600.0, 1000.0, nan, 400.0]),
    }
    power = Power(
        time_s=np.array(changes.pop("counter_s", [0.0, 5.0, 10.0])),
        energy_j=np.array(changes.pop("counter_j", [0.0, 1200.0, 2400.0])),
    )
    for name in [name for name in changes if name in columns]:
        columns[name] = np.array(changes.pop(name), dtype=columns[name].dtype)
    return Run(replace(META, **changes), Outcomes(**columns), power)
