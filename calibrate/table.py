"""From a fit to a cost table with its residuals."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from calibrate.fit import Fit, Residual
from sim.table import CostTable

REPEAT_SPREAD = 0.002
"""Standard deviation of a replay's energy from run to run on one card, as measured (docs/accuracy.md)."""


def make_table(
    name: str, fitted: Fit, facts: dict[str, Any], points_file: Path, adapted_from: str | None = None
) -> CostTable:
    """Return the cost table of a fit.

    Args:
        name: Name of the table.
        fitted: The fit.
        facts: What the calibration wrote about engine and GPU.
        points_file: The raw points it was fitted to, whose hash goes into the table.
        adapted_from: The table that was adapted, None if all of the model was fitted.
    """
    gpu, engine = facts["gpu"], facts["engine"]
    cards = f" ({len(gpu['hashes'])} cards in turn)" if len(gpu["hashes"]) > gpu["gpus"] else ""
    return CostTable(
        name=name,
        source="measured",
        measured_on=(
            f"{gpu['gpus']} x {gpu['name']}{cards}, driver {gpu['driver']}, vLLM {engine['vllm']}, "
            f"{engine['model']} {engine['quantization'] or engine['dtype']}"
            f"{', random weights' if engine['random_weights'] else ''}, {facts['date']}"
        ),
        gpu=gpu["name"],
        gpus=gpu["gpus"],
        power_limit_w=gpu["power_limit_w"],
        bare_idle_w=facts["bare_idle_w"],
        coefficients=fitted.coefficients,
        host=fitted.host,
        engine=engine,
        meta={
            "date": facts["date"],
            "driver": gpu["driver"],
            "gpu_hashes": gpu["hashes"],
            "points_sha256": hashlib.sha256(points_file.read_bytes()).hexdigest(),
            "parameters": fitted.parameters,
            "idle_spread_w": fitted.idle_spread_w,
            "errors": errors_by_kind(fitted.residuals),
            "spread": {**fitted.spread, "repeat": REPEAT_SPREAD},
            "adapted_from": adapted_from,
        },
    )


def errors_by_kind(residuals: tuple[Residual, ...]) -> dict[str, dict[str, float]]:
    """Return root mean square and mean of the relative errors of seconds and joules, by kind of point."""
    kinds = sorted({residual.kind for residual in residuals})
    return {kind: _errors([r for r in residuals if r.kind == kind]) for kind in kinds}


def _errors(residuals: list[Residual]) -> dict[str, float]:
    seconds = np.array([r.model_seconds / r.seconds - 1 for r in residuals])
    joules = np.array([r.model_joules / r.joules - 1 for r in residuals])
    return {
        "windows": len(residuals),
        "seconds_rms": float(np.sqrt(np.mean(seconds**2))),
        "seconds_mean": float(seconds.mean()),
        "joules_rms": float(np.sqrt(np.mean(joules**2))),
        "joules_mean": float(joules.mean()),
    }


def read_residuals(path: Path) -> list[Residual]:
    """Return the rows that `write_residuals` wrote."""
    import pyarrow.parquet as pq

    return [Residual(**row) for row in pq.read_table(path).to_pylist()]


def write_residuals(residuals: tuple[Residual, ...], path: Path) -> None:
    """Write one row a window: measured and replayed seconds, joules and latency."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = Residual.__slots__
    rows = [{name: getattr(residual, name) for name in names} for residual in residuals]
    pq.write_table(pa.Table.from_pylist(rows), path, compression="zstd")
