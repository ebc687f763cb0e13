"""A cost table of round invented numbers, for tests that need some table and no particular one."""

from dataclasses import replace
from typing import Any

import numpy as np

from sim.host_time import HostTime
from sim.step_cost import Coefficients
from sim.table import CostTable

TOY_TABLE = CostTable(
    name="toy",
    source="assumed",
    measured_on="nowhere: invented numbers",
    gpu="Toy GPU",
    gpus=1,
    power_limit_w=700.0,
    bare_idle_w=70.0,
    coefficients=Coefficients(
        knots=np.array([1.0, 64.0, 256.0, 2048.0, 16384.0]),
        linear_s=np.array([0.005, 0.005, 0.0065, 0.05, 0.4]),
        linear_j=np.array([2.0, 2.5, 4.0, 33.0, 270.0]),
        prompt_knots=np.array([1.0, 64.0, 256.0, 2048.0, 16384.0]),
        prompt_s=np.array([0.005, 0.005, 0.0065, 0.05, 0.4]),
        prompt_j=np.array([2.0, 2.5, 4.0, 33.0, 270.0]),
        per_chunk=np.array([1e-4, 0.03]),
        per_pair=np.array([2e-9, 1e-6]),
        per_seq=np.array([4e-6, 0.001]),
        per_kv=np.array([2.5e-8, 1.2e-5]),
        limits=np.array([16384.0, 1024.0, 4e6, 2e8]),
        idle_w=120.0,
        per_longest=2.5e-8,
        most_alone=0.3,
    ),
    host=HostTime(
        lead_s=0.0015,
        graph_s=0.001,
        piecewise_s=0.004,
        eager_s=0.006,
        per_token_s=1e-7,
        per_seq_s=2e-6,
        process_s=0.0003,
        process_seq_s=5e-6,
        output_s=0.0002,
        submit_s=0.001,
        deliver_s=0.0008,
        graph_tokens=512,
    ),
    engine={},
    meta={},
)


def toy_table(**overrides: Any) -> CostTable:
    """Return the toy table with fields changed: its own, its `Coefficients`' or its `HostTime`'s."""
    coefficients = {name: overrides.pop(name) for name in Coefficients._fields if name in overrides}
    host = {name: overrides.pop(name) for name in HostTime._fields if name in overrides}
    return replace(
        TOY_TABLE,
        coefficients=TOY_TABLE.coefficients._replace(**coefficients),
        host=TOY_TABLE.host._replace(**host),
        **overrides,
    )
