"""A trace survives Parquet bit for bit, and a bad file is refused in one line."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from traces import parquet
from traces.parquet import write_trace
from traces.reading import read_trace
from traces.trace import PrefixBlocks, Trace

NAN = float("nan")


@st.composite
def any_trace(draw: st.DrawFn) -> Trace:
    """A trace with any of the optional columns, arrivals anything a float can be."""
    arrival_s = sorted(draw(st.lists(st.floats(0, 1e9), min_size=1, max_size=12)))
    size = len(arrival_s)

    def column(values: st.SearchStrategy[Any]) -> Any:
        return draw(st.none() | st.lists(values, min_size=size, max_size=size))

    tokens = st.lists(st.integers(1, 2**31 - 1), min_size=size, max_size=size)
    blocks = column(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=3))
    sessions = column(st.none() | st.text(st.characters(codec="utf-8"), max_size=5))
    offline = column(st.booleans())
    deadlines = column(st.floats(0, 1e9) | st.just(NAN))
    return Trace(
        name=draw(st.text(st.characters(codec="utf-8"), min_size=1)),
        source="invented for a test",
        licence="none",
        sha256="0" * 64,
        arrival_s=np.array(arrival_s),
        prompt_tokens=np.array(draw(tokens), dtype=np.int32),
        output_tokens=np.array(draw(tokens), dtype=np.int32),
        prefix=None if blocks is None else blocks_of(blocks),
        session_id=None if sessions is None else np.array(sessions, dtype=object),
        is_offline=None if offline is None else np.array(offline),
        deadline_s=None if deadlines is None else np.array(deadlines),
        notes=tuple(draw(st.lists(st.text(), max_size=2))),
        synthetic=draw(st.booleans()),
    )


def blocks_of(rows: list[list[int]]) -> PrefixBlocks:
    offsets = np.cumsum([0, *map(len, rows)])
    return PrefixBlocks(np.array([one for row in rows for one in row], dtype=np.int64), offsets, 16)


def assert_same(one: Trace, other: Trace) -> None:
    for field in fields(Trace):
        left, right = getattr(one, field.name), getattr(other, field.name)
        if isinstance(left, PrefixBlocks):
            assert isinstance(right, PrefixBlocks)
            assert left.block_tokens == right.block_tokens
            assert left.hashes.tolist() == right.hashes.tolist()
            assert left.offsets.tolist() == right.offsets.tolist()
        elif isinstance(left, np.ndarray):
            assert left.dtype == right.dtype, field.name
            np.testing.assert_array_equal(left, right)
        else:
            assert left == right, field.name


@settings(deadline=None)
@given(any_trace())
def test_a_trace_comes_back_as_it_was(tmp_path_factory: pytest.TempPathFactory, trace: Trace) -> None:
    path = tmp_path_factory.mktemp("round") / "trace.parquet"
    write_trace(trace, path)
    assert_same(trace, read_trace(path))


def test_a_trace_of_several_row_groups_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "ROW_GROUP_ROWS", 4)
    trace = small(10)
    write_trace(trace, tmp_path / "t.parquet")
    assert pq.ParquetFile(tmp_path / "t.parquet").num_row_groups == 3
    assert_same(trace, read_trace(tmp_path / "t.parquet"))


def small(requests: int = 3) -> Trace:
    return Trace(
        name="small",
        source="invented",
        licence="none",
        sha256="0" * 64,
        arrival_s=np.arange(requests) / 2,
        prompt_tokens=np.full(requests, 8, dtype=np.int32),
        output_tokens=np.full(requests, 2, dtype=np.int32),
        prefix=blocks_of([[i, 7] for i in range(requests)]),
        session_id=np.array([None if i % 2 else f"s{i}" for i in range(requests)], dtype=object),
        is_offline=np.arange(requests) % 2 == 0,
        deadline_s=np.where(np.arange(requests) % 2 == 0, np.nan, 9.0),
    )


def test_the_columns_and_facts_are_there_for_other_tools(tmp_path: Path) -> None:
    write_trace(small(), tmp_path / "t.parquet")
    table = pq.read_table(tmp_path / "t.parquet")
    types = {field.name: str(field.type) for field in table.schema}
    assert types == {
        "arrival_s": "double",
        "prompt_tokens": "int32",
        "output_tokens": "int32",
        "prefix_hashes": "list<element: int64>",
        "session_id": "string",
        "request_class": "string",
        "deadline_s": "double",
    }
    facts = {key.decode(): value.decode() for key, value in table.schema.metadata.items()}
    assert facts["name"] == "small"
    assert facts["block_tokens"] == "16"
    assert facts["synthetic"] == "false"
    assert table.column("deadline_s").to_pylist() == [None, 9.0, None]


def test_an_existing_file_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    path.write_text("precious")
    with pytest.raises(ValueError, match=r"exists already; .* --overwrite"):
        write_trace(small(), path)
    assert path.read_text() == "precious"
    write_trace(small(), path, overwrite=True)
    assert len(read_trace(path)) == 3


def test_a_write_that_fails_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(parquet, "_table", fail)
    with pytest.raises(OSError, match="disk full"):
        write_trace(small(), tmp_path / "t.parquet")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such folder"):
        write_trace(small(), tmp_path / "none" / "t.parquet")


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    write_trace(small(), path)
    whole = path.read_bytes()
    for length in (4, 50, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="not a whole Parquet file") as caught:
            read_trace(path)
        assert "\n" not in str(caught.value)


def table(**columns: Any) -> Any:
    return pa.table({"arrival_s": [0.0, 1.0], "prompt_tokens": [1, 2], "output_tokens": [1, 2], **columns})


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"arrival_s": [0.0, NAN]}, "row 1: arrival_s must be a number of at least 0, got nan"),
        ({"arrival_s": [0.0, -2.0]}, "row 1: arrival_s must be a number of at least 0, got -2.0"),
        ({"arrival_s": [0.0, None]}, "row 1: arrival_s must be given, but is missing"),
        ({"arrival_s": ["0", "1"]}, "column arrival_s must hold numbers, it holds string"),
        ({"prompt_tokens": [1, 0]}, "row 1: prompt_tokens must be a whole number from 1 .*, got 0"),
        ({"prompt_tokens": [1, -5]}, "row 1: prompt_tokens must be a whole number from 1 .*, got -5"),
        ({"output_tokens": [1.0, 2.5]}, "row 1: output_tokens must be a whole number from 1 .*, got 2.5"),
        ({"output_tokens": [1.0, NAN]}, "row 1: output_tokens must be a whole number from 1 .*, got nan"),
        ({"output_tokens": [1, None]}, "row 1: output_tokens must be given, but is missing"),
        (
            {"output_tokens": [1, 2**31]},
            "row 1: output_tokens must be a whole number from 1 .*, got 2147483648",
        ),
        ({"request_class": ["online", "batch"]}, "row 1: request_class must be online or offline, got batch"),
        ({"deadline_s": [1.0, -1.0]}, "row 1: deadline_s must be a number of at least 0, got -1.0"),
        ({"prefix_hashes": [[1], [2]]}, "prefix_hashes need block_tokens .* got None"),
    ],
)
def test_a_bad_value_is_named_with_its_row(tmp_path: Path, columns: dict[str, Any], message: str) -> None:
    pq.write_table(table(**columns), tmp_path / "t.parquet")
    with pytest.raises(ValueError, match=message):
        read_trace(tmp_path / "t.parquet")


def test_a_missing_column_is_named_beside_those_there(tmp_path: Path) -> None:
    pq.write_table(table().drop_columns("output_tokens"), tmp_path / "t.parquet")
    with pytest.raises(ValueError, match="no column output_tokens; it has arrival_s, prompt_tokens"):
        read_trace(tmp_path / "t.parquet")


def test_an_empty_table_is_refused(tmp_path: Path) -> None:
    pq.write_table(table().slice(0, 0), tmp_path / "t.parquet")
    with pytest.raises(ValueError, match="no rows"):
        read_trace(tmp_path / "t.parquet")


def test_a_table_from_elsewhere_needs_no_facts_and_is_sorted(tmp_path: Path) -> None:
    other = table(arrival_s=[2.0, 1.0], prompt_tokens=[20.0, 10.0])
    pq.write_table(other, tmp_path / "mine.parquet")
    trace = read_trace(tmp_path / "mine.parquet")
    assert trace.name == "mine"
    assert trace.licence == "unknown"
    assert len(trace.sha256) == 64
    assert trace.arrival_s.tolist() == [1.0, 2.0]
    assert trace.prompt_tokens.tolist() == [10, 20]
    assert "sorted by arrival" in trace.notes[0]


def test_an_empty_trace_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no requests"):
        write_trace(small(0), tmp_path / "t.parquet")
