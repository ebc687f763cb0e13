"""Read a trace of any known format, told apart by what the file holds, not by its name."""

from pathlib import Path

from traces.azure import AZURE_2023, AZURE_2024, AZURE_2025
from traces.burstgpt import BURSTGPT, BURSTGPT_3
from traces.cells import is_zoned
from traces.csv_format import CsvFormat
from traces.csv_rows import read_csv, read_header
from traces.mooncake import JSON_FORMATS, read_json
from traces.parquet import read_parquet
from traces.public import published
from traces.relative import PLAIN, VIDUR
from traces.rows import Origin, Rows, to_trace
from traces.source_file import SourceFile, open_source
from traces.ticks import spread
from traces.trace import Trace

PARQUET_MAGIC = b"PAR1"
# Those with more columns stand before those whose columns they contain.
CSV_FORMATS = (AZURE_2025, AZURE_2023, AZURE_2024, BURSTGPT_3, BURSTGPT, VIDUR, PLAIN)
FORMATS = (*(form.name for form in CSV_FORMATS), *JSON_FORMATS, "parquet")


def read_trace(
    path: Path,
    *,
    spread_s: float | None = None,
    seed: int = 0,
    form: str | None = None,
    leave_out_zero: bool = False,
) -> Trace:
    """Return the trace in the file at `path`, sorted by arrival; its notes say what was left out or changed.

    Args:
        path: Parquet, CSV or JSON lines, gzip or not.
        spread_s: Spread equal arrivals over ticks of this many seconds; None leaves them as they are.
        seed: Seed of the spread.
        form: One of `FORMATS`, where the content does not tell.
        leave_out_zero: Leave out and count rows with zero tokens, where the format does not do so anyway.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is empty, of no known format, not whole, or a value breaks a rule.
    """
    file = open_source(Path(path))
    trace = _read(file, _tell(file) if form is None else _known(form), leave_out_zero)
    return trace if spread_s is None else spread(trace, spread_s, seed)


def _known(form: str) -> str:
    if form not in FORMATS:
        raise ValueError(f"no trace format {form!r}; there are {', '.join(FORMATS)}")
    return form


def _tell(file: SourceFile) -> str:
    if file.head.startswith(PARQUET_MAGIC):
        return "parquet"
    if file.head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{"):
        return "json"
    header = read_header(file)
    for form in CSV_FORMATS:
        if set(form.needs) <= set(header):
            return AZURE_2024.name if form is AZURE_2023 and _first_time_is_zoned(file, header) else form.name
    nearest = max(CSV_FORMATS, key=lambda form: len(set(form.needs) & set(header)))
    missing = [name for name in nearest.needs if name not in header]
    if len(missing) < len(nearest.needs):
        raise ValueError(f"{file.path}: no column {missing[0]}; it has {', '.join(header)}")
    start = file.head[:60].split(b"\n")[0]
    known = ", ".join(FORMATS)
    raise ValueError(f"{file.path}: unknown trace format, it begins with {start!r}; known are {known}")


def _first_time_is_zoned(file: SourceFile, header: list[str]) -> bool:
    rows = file.head.split(b"\n", 2)
    cells = rows[1].decode(errors="replace").split(",") if len(rows) > 1 else []
    place = header.index(AZURE_2023.time)
    return place < len(cells) and is_zoned(cells[place])


def _read(file: SourceFile, form: str, leave_out_zero: bool) -> Trace:
    if form == "parquet":
        return read_parquet(file)
    rows: Rows
    if form == "json":
        form, rows = read_json(file, leave_out_zero=leave_out_zero)
    elif form in JSON_FORMATS:
        form, rows = read_json(file, form, leave_out_zero=leave_out_zero)
    else:
        rows = read_csv(file, _csv_format(form), leave_out_zero=leave_out_zero)
    return to_trace(rows, _origin(file, form))


def _csv_format(name: str) -> CsvFormat:
    return next(form for form in CSV_FORMATS if form.name == name)


def _origin(file: SourceFile, form: str) -> Origin:
    """Return what is known of the file: its publication, if its hash is that of a public trace."""
    sha256 = file.sha256()
    known = published(sha256)
    if known is None:
        return Origin(file.stem, f"file {file.path.name}, format {form}", "unknown", sha256)
    return Origin(known.name, f"{known.title}, {known.address}", known.licence, sha256)
