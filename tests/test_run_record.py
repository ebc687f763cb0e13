"""A run on disk is the run that was written, whole or not there at all."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from traces import record_files
from traces.record import FAILED, SERVED, UNFINISHED, EnergySplit, Meta, Outcomes, Power, Run
from traces.record_files import ensure_record_free, read_run, write_run

NAN = float("nan")


def meta(**changes: Any) -> Meta:
    facts = Meta(
        run_id="toy-immediate-1",
        kind="simulated",
        started_at="2025-01-01T00:00:00+00:00",
        trace_name="toy",
        trace_sha256="0" * 64,
        trace_source="invented for a test",
        trace_options={"stretch": 0.5},
        requests=3,
        policy="immediate",
        policy_options={"window_s": 10.0},
        engine_options={"max_num_seqs": 128, "scheduling_policy": "fcfs"},
        table="toy",
        table_source=None,
        gpu=None,
        gpus=1,
        power_limit_w=None,
        idle_w=90.5,
        versions={"replay": "0.1.0"},
        seed=0,
        makespan_s=12.25,
        energy=EnergySplit(1.0, 2.0, 0.1),
        energy_source="simulated",
        out_of_range_fraction=0.0,
        energy_valid=False,
        invalid_reasons=("power above the limit",),
        notes=("one", "two"),
    )
    return replace(facts, **changes)


def run(**changes: Any) -> Run:
    outcomes = Outcomes(
        request_id=np.arange(3, dtype=np.int64),
        arrival_s=np.array([0.0, 0.1, 0.2]),
        released_s=np.array([0.0, 0.1, NAN]),
        first_token_s=np.array([0.5, NAN, NAN]),
        finished_s=np.array([1.0, NAN, NAN]),
        prompt_tokens=np.array([5, 6, 7], dtype=np.int32),
        output_tokens=np.array([2, 0, 0], dtype=np.int32),
        status=np.array([SERVED, FAILED, UNFINISHED], dtype=np.uint8),
        energy_j=np.array([3.5, NAN, 0.0]),
    )
    return Run(meta(**changes), outcomes, Power(np.array([0.0, 12.25]), np.array([0.0, 3.1])))


def assert_same(one: Run, other: Run) -> None:
    assert one.meta == other.meta
    for name in Outcomes.__slots__:
        left, right = getattr(one.outcomes, name), getattr(other.outcomes, name)
        if left is None:
            assert right is None
            continue
        assert left.dtype == right.dtype, name
        np.testing.assert_array_equal(left, right)
    np.testing.assert_array_equal(one.power.time_s, other.power.time_s)
    np.testing.assert_array_equal(one.power.energy_j, other.power.energy_j)


def test_a_run_comes_back_as_it_was(tmp_path: Path) -> None:
    write_run(run(), tmp_path / "run")
    assert_same(run(), read_run(tmp_path / "run"))


def test_the_replica_of_each_request_comes_back(tmp_path: Path) -> None:
    outcomes = replace(run().outcomes, replica=np.array([1, 0, 1], dtype=np.int32))
    written = replace(run(), outcomes=outcomes)
    write_run(written, tmp_path / "run")
    assert_same(written, read_run(tmp_path / "run"))


times = st.floats(0, 1e9) | st.just(NAN)


@settings(deadline=None)
@given(
    columns=st.lists(
        st.tuples(times, times, times, times, times, st.integers(0, 2), st.integers(0, 2**31 - 1)), max_size=8
    ),
    power=st.lists(st.tuples(st.floats(0, 1e9), st.floats(0, 1e12)), max_size=8),
)
def test_any_outcomes_come_back_as_they_were(
    tmp_path_factory: pytest.TempPathFactory, columns: list[tuple[Any, ...]], power: list[tuple[float, float]]
) -> None:
    folder = tmp_path_factory.mktemp("runs") / "run"
    floats = np.array([row[:5] for row in columns], dtype=np.float64).reshape(-1, 5).T
    tokens = np.array([row[6] for row in columns], dtype=np.int32)
    outcomes = Outcomes(
        request_id=np.arange(len(columns), dtype=np.int64),
        arrival_s=floats[0],
        released_s=floats[1],
        first_token_s=floats[2],
        finished_s=floats[3],
        prompt_tokens=tokens,
        output_tokens=tokens[::-1].copy(),
        status=np.array([row[5] for row in columns], dtype=np.uint8),
        energy_j=floats[4],
    )
    samples = np.array(power, dtype=np.float64).reshape(-1, 2).T
    original = Run(meta(requests=len(columns)), outcomes, Power(samples[0], samples[1]))
    write_run(original, folder)
    assert_same(original, read_run(folder))


def test_missing_is_null_on_disk_never_zero_or_nan(tmp_path: Path) -> None:
    write_run(run(out_of_range_fraction=NAN), tmp_path / "run")
    requests = pq.read_table(tmp_path / "run" / "requests.parquet")
    assert requests.column("first_token_s").to_pylist() == [0.5, None, None]
    assert requests.column("energy_j").to_pylist() == [3.5, None, 0.0]
    assert requests.column("status").to_pylist() == ["served", "failed", "unfinished"]
    text = (tmp_path / "run" / "run.json").read_text()
    assert "NaN" not in text
    facts = json.loads(text)
    assert facts["power_limit_w"] is None
    assert facts["out_of_range_fraction"] is None


def test_an_infinite_fact_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_run(run(makespan_s=float("inf")), tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_an_existing_record_is_refused_unless_told(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    write_run(run(seed=1), folder)
    with pytest.raises(ValueError, match=r"exists already; .* --overwrite"):
        write_run(run(seed=2), folder)
    assert read_run(folder).meta.seed == 1
    write_run(run(seed=2), folder, overwrite=True)
    assert read_run(folder).meta.seed == 2
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_folder_that_is_no_record_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(ValueError, match="is no run record"):
        ensure_record_free(tmp_path, overwrite=True)
    with pytest.raises(ValueError, match="is no run record"):
        write_run(run(), tmp_path, overwrite=True)
    assert (tmp_path / "thesis.txt").read_text() == "precious"


@pytest.mark.parametrize("overwrite", [False, True])
def test_an_interrupted_write_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overwrite: bool
) -> None:
    folder = tmp_path / "run"
    if overwrite:
        write_run(run(seed=1), folder)
    before = sorted(tmp_path.rglob("*"))

    def interrupt(path: Path, _: Any) -> None:
        if path.name == "power.parquet":
            raise KeyboardInterrupt

    monkeypatch.setattr(record_files, "_write", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_run(run(seed=2), folder, overwrite=overwrite)
    assert sorted(tmp_path.rglob("*")) == before
    if overwrite:
        assert read_run(folder).meta.seed == 1


def test_a_record_that_cannot_be_replaced_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "run"
    write_run(run(seed=1), folder)
    rename = Path.rename

    def fail_for_parts(self: Path, target: Path) -> Path:
        if self.name.endswith(".part"):
            raise OSError("no more renames")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_for_parts)
    with pytest.raises(OSError, match="no more renames"):
        write_run(run(seed=2), folder, overwrite=True)
    assert read_run(folder).meta.seed == 1
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_damaged_record_is_refused_in_one_line(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    write_run(run(), folder)
    whole = (folder / "requests.parquet").read_bytes()
    (folder / "requests.parquet").write_bytes(whole[:100])
    with pytest.raises(ValueError, match=r"requests\.parquet: not a whole Parquet file"):
        read_run(folder)
    (folder / "requests.parquet").write_bytes(whole)
    facts = json.loads((folder / "run.json").read_text())
    changes: list[tuple[dict[str, object], str]] = [
        ({"format": 99}, "its format is 99, this version of replay reads 1"),
        ({"requests": 4}, "tells of 4 requests, requests.parquet has 3"),
        ({"colour": "red"}, "fields colour are missing or not known"),
    ]
    for change, message in changes:
        (folder / "run.json").write_text(json.dumps({**facts, **change}))
        with pytest.raises(ValueError, match=message):
            read_run(folder)
    (folder / "run.json").write_text('{"format": 1,')
    with pytest.raises(ValueError, match="not whole JSON"):
        read_run(folder)


def test_a_missing_record_is_an_os_error_that_names_the_folder(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"none: no run; give the folder of one, which has run\.json$"
    ):
        read_run(tmp_path / "none")


def test_a_record_from_before_a_field_was_there_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    write_run(run(), folder)
    facts = json.loads((folder / "run.json").read_text())
    del facts["cpu_j"], facts["dram_j"]
    (folder / "run.json").write_text(json.dumps(facts))
    meta = read_run(folder).meta
    assert (meta.cpu_j, meta.dram_j) == (None, None)
    del facts["seed"]
    (folder / "run.json").write_text(json.dumps(facts))
    with pytest.raises(ValueError, match="fields seed are missing or not known"):
        read_run(folder)
