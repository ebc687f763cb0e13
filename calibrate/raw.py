"""Raw points: everything that was read while a load ran, one row a point, nothing averaged away."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibrate.grid import Point

STEP_COLUMNS = (
    "scheduled_s",
    "done_s",
    "chunks",
    "prefill_tokens",
    "prefill_pairs",
    "decode_seqs",
    "kv_tokens",
    "longest_tokens",
    "running",
    "waiting",
    "free_blocks",
)


@dataclass(frozen=True, slots=True, eq=False)
class RawPoint:
    """What was read while one load ran.

    Times are seconds since the load began, energies joules since its first reading.

    Attributes:
        point: The load.
        session: Counts the engine starts of this calibration from 0.
        began_at: ISO 8601, UTC.
        window_s: (begin, end) of the steady part.
        end_s: When the load had drained.
        steps: Engine steps, each column of shape (steps,), see STEP_COLUMNS.
        counter: (time_s, energy_j) at each tick of the energy counter, all GPUs summed, shape (ticks, 2).
        power: (time_s, power_w) at each change of the instantaneous power, GPUs summed, shape (changes, 2).
        requests: (submitted, first token, finished) of each streamed request, shape (requests, 3).
        clock_mhz, temperature_c: Mean over window and GPUs, NaN where NVML does not say.
        throttle_reasons: Bits seen in the window, all of them.
    """

    point: Point
    session: int
    began_at: str
    window_s: tuple[float, float]
    end_s: float
    steps: dict[str, NDArray[np.float64]]
    counter: NDArray[np.float64]
    power: NDArray[np.float64]
    requests: NDArray[np.float64]
    clock_mhz: float
    temperature_c: float
    throttle_reasons: int

    def energy_j(self, begin_s: float, end_s: float) -> float:
        """Return the joules between two times by interpolating between counter ticks.

        Raises:
            ValueError: The ticks do not reach that far.
        """
        try:
            return counted_j(self.counter, begin_s, end_s)
        except ValueError as error:
            raise ValueError(f"{self.point.key}: {error}") from error

    def integrated_j(self, begin_s: float, end_s: float) -> float:
        """Return the joules between two times by integrating the power, to check the counter."""
        changes_s, watts = self.power[:, 0], self.power[:, 1]
        inside = (changes_s > begin_s) & (changes_s < end_s)
        edges_s = np.concatenate([[begin_s], changes_s[inside], [end_s]])
        held = np.searchsorted(changes_s, edges_s[:-1], side="right") - 1
        return float(np.sum(watts[np.maximum(held, 0)] * np.diff(edges_s)))


def counted_j(counter: NDArray[np.float64], begin_s: float, end_s: float) -> float:
    """Return the joules between two times by interpolating between counter ticks.

    Args:
        counter: (time_s, energy_j) at each tick, shape (ticks, 2).
        begin_s, end_s: The times.

    Raises:
        ValueError: The ticks do not reach that far.
    """
    ticks_s = counter[:, 0]
    if not len(ticks_s) or begin_s < ticks_s[0] or end_s > ticks_s[-1]:
        ticked = f"from {ticks_s[0]:.3f} to {ticks_s[-1]:.3f} s" if len(ticks_s) else "never"
        raise ValueError(f"the energy counter ticked {ticked}, not throughout {begin_s:.3f} to {end_s:.3f} s")
    at_begin, at_end = np.interp([begin_s, end_s], ticks_s, counter[:, 1])
    return float(at_end - at_begin)


def to_json(raw: RawPoint) -> dict[str, Any]:
    """Return the point as plain JSON values, times rounded to microseconds, energies to millijoules."""

    def rounded(values: NDArray[np.float64], digits: int) -> list[Any]:
        return list(np.round(values, digits).tolist())

    return {
        "point": asdict(raw.point),
        "session": raw.session,
        "began_at": raw.began_at,
        "window_s": list(raw.window_s),
        "end_s": raw.end_s,
        "steps": {name: rounded(column, 6) for name, column in raw.steps.items()},
        "counter": rounded(raw.counter, 4),
        "power": rounded(raw.power, 4),
        "requests": rounded(raw.requests, 6),
        "clock_mhz": None if np.isnan(raw.clock_mhz) else raw.clock_mhz,
        "temperature_c": None if np.isnan(raw.temperature_c) else raw.temperature_c,
        "throttle_reasons": raw.throttle_reasons,
    }


def from_json(values: dict[str, Any]) -> RawPoint:
    """Return the point that `to_json` wrote; a column of steps that it has not got may be None."""
    return RawPoint(
        point=Point(**values["point"]),
        session=values["session"],
        began_at=values["began_at"],
        window_s=(values["window_s"][0], values["window_s"][1]),
        end_s=values["end_s"],
        steps={
            name: np.array(column, dtype=np.float64)
            for name, column in values["steps"].items()
            if column is not None
        },
        counter=np.array(values["counter"], dtype=np.float64).reshape(-1, 2),
        power=np.array(values["power"], dtype=np.float64).reshape(-1, 2),
        requests=np.array(values["requests"], dtype=np.float64).reshape(-1, 3),
        clock_mhz=_or_nan(values["clock_mhz"]),
        temperature_c=_or_nan(values["temperature_c"]),
        throttle_reasons=values["throttle_reasons"],
    )


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value


def append(path: Path, raw: RawPoint) -> None:
    """Append a point as one JSON line, on disk before this returns."""
    import os

    with open(path, "a", encoding="utf-8") as out:
        out.write(json.dumps(to_json(raw), separators=(",", ":"), allow_nan=False) + "\n")
        out.flush()
        os.fsync(out.fileno())


def read_lines(path: Path) -> list[RawPoint]:
    """Return the points of a JSON-lines file; a last line that was cut off is dropped from the file too.

    Raises:
        ValueError: A whole line is no point; the file is left as it is.
    """
    if not path.exists():
        return []
    *whole, cut_off = path.read_bytes().split(b"\n")
    points = []
    for number, line in enumerate(whole, start=1):
        try:
            points.append(from_json(json.loads(line)))
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path}: line {number} is no point ({error!r}); remove the line or use another --out"
            ) from error
    if cut_off:
        with open(path, "r+b") as damaged:
            damaged.truncate(path.stat().st_size - len(cut_off))
    return points


def write_parquet(path: Path, points: Iterable[RawPoint], facts: dict[str, Any]) -> None:
    """Write all points as one Parquet file, one row a point, with `facts` in its metadata."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pylist([to_json(raw) for raw in points])
    table = table.replace_schema_metadata({"facts": json.dumps(facts)})
    pq.write_table(table, path, compression="zstd", compression_level=19)


def read_parquet(path: Path) -> tuple[list[RawPoint], dict[str, Any]]:
    """Return the points and the facts that `write_parquet` wrote."""
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    facts: dict[str, Any] = json.loads(table.schema.metadata[b"facts"])
    return list(_points(table.to_pylist())), facts


def _points(rows: list[dict[str, Any]]) -> Iterator[RawPoint]:
    for row in rows:
        yield from_json(row)
