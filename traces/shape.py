"""The shape of a trace: statistics that hold none of its rows, and from which traces like it are drawn."""

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from importlib.resources import files
from pathlib import Path
from typing import Any, ClassVar

from traces.quantiles import QuantileTable
from traces.whole_files import whole_file

FORMAT = 1


@dataclass(frozen=True, slots=True)
class ProfileArrivals:
    """Arrivals that never stop for long: a rate that varies slowly, and gaps around it.

    Attributes:
        bin_s: Length of a bin of the profile.
        requests: Requests in each bin.
        gap: Gaps between requests, as a multiple of the mean gap at that time.
    """

    model: ClassVar[str] = "profile"

    bin_s: float
    requests: tuple[int, ...]
    gap: QuantileTable


@dataclass(frozen=True, slots=True)
class OnOffArrivals:
    """Arrivals in bursts: runs of busy bins and of empty bins, in turn.

    Attributes:
        bin_s: Length of a bin.
        busy_fraction: Fraction of bins that are busy.
        busy_runs_per_s: Runs of busy bins a second.
        busy_run_bins: Lengths of busy runs.
        idle_run_bins: Lengths of empty runs.
        requests_per_busy_bin: Requests in a busy bin.
        run_correlation: Rank correlation of the requests in neighbouring busy bins.
        length_correlation: Rank correlation of a busy run's length and its mean requests a bin.
        clump_fraction: Fraction of requests that follow another at once, beyond what chance explains.
        clump_gap_s: How soon they follow it.
    """

    model: ClassVar[str] = "on-off"

    bin_s: float
    busy_fraction: float
    busy_runs_per_s: float
    busy_run_bins: QuantileTable
    idle_run_bins: QuantileTable
    requests_per_busy_bin: QuantileTable
    run_correlation: float
    length_correlation: float
    clump_fraction: float
    clump_gap_s: QuantileTable


@dataclass(frozen=True, slots=True)
class Shape:
    """What is known of a trace.

    Attributes:
        name: Short name.
        source: The trace described, in words.
        licence: Licence of the trace described.
        source_sha256: Hash of the trace described.
        span_s: From its first to its last arrival.
        rate_per_s: Its mean rate.
        prompt_tokens: Its input lengths.
        output_tokens: Its output lengths.
        joint_requests: Requests by tenth of the input lengths (rows) and of the output lengths (columns).
        arrivals: When requests come.
    """

    name: str
    source: str
    licence: str
    source_sha256: str
    span_s: float
    rate_per_s: float
    prompt_tokens: QuantileTable
    output_tokens: QuantileTable
    joint_requests: tuple[tuple[int, ...], ...]
    arrivals: ProfileArrivals | OnOffArrivals

    def __post_init__(self) -> None:
        if not (self.span_s > 0 and self.rate_per_s > 0):
            raise ValueError(f"span_s and rate_per_s must be > 0, got {self.span_s} and {self.rate_per_s}")


def shipped_shapes() -> dict[str, Path]:
    """Return the statistics that come with the project, by name."""
    folder = Path(str(files("traces"))) / "statistics"
    return {path.stem: path for path in sorted(folder.glob("*.json"))}


def read_shape(name: str) -> tuple[Shape, str]:
    """Return the statistics called `name` or in the file `name`, and the SHA-256 of that file.

    Raises:
        OSError: The file cannot be read.
        ValueError: There is no such file, or it is no statistics of this version.
    """
    shipped = shipped_shapes()
    path = shipped.get(name, Path(name))
    if not path.exists():
        raise ValueError(f"no statistics {name!r}: neither a file nor one of {', '.join(shipped)}")
    content = path.read_bytes()
    try:
        return _shape(json.loads(content)), hashlib.sha256(content).hexdigest()
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(
            f"{path}: no trace statistics, make them with `replay trace describe` "
            f"({type(error).__name__}: {error})"
        ) from error


def write_shape(shape: Shape, path: Path, *, overwrite: bool = False) -> None:
    """Write `shape` to `path` as JSON, one field a line.

    Raises:
        ValueError: `path` exists and may not be replaced, or its folder is missing.
    """
    facts = asdict(shape)
    facts["arrivals"] = {"model": shape.arrivals.model, **facts["arrivals"]}
    text = _lines({"format": FORMAT, **facts}, 0)
    with whole_file(path, overwrite=overwrite) as part:
        part.write_text(text + "\n")


def _lines(value: Any, depth: int) -> str:
    if not isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    indent = "  " * (depth + 1)
    inner = ",\n".join(f"{indent}{json.dumps(key)}: {_lines(one, depth + 1)}" for key, one in value.items())
    return f"{{\n{inner}\n{'  ' * depth}}}"


def _shape(facts: dict[str, Any]) -> Shape:
    if facts.pop("format") != FORMAT:
        raise ValueError(f"format must be {FORMAT}")
    models = {kind.model: kind for kind in (ProfileArrivals, OnOffArrivals)}
    arrivals = facts.pop("arrivals")
    kind = models[arrivals.pop("model")]
    joint = tuple(tuple(row) for row in facts.pop("joint_requests"))
    return Shape(**_tables(Shape, facts), joint_requests=joint, arrivals=kind(**_tables(kind, arrivals)))


def _tables(kind: Any, facts: dict[str, Any]) -> dict[str, Any]:
    tables = {field.name for field in fields(kind) if field.type is QuantileTable}
    return {
        name: QuantileTable(tuple(value["probability"]), tuple(value["value"]))
        if name in tables
        else tuple(value)
        if isinstance(value, list)
        else value
        for name, value in facts.items()
    }
