"""The Python API says what the command says, and docs/python.md is a session that runs as it is shown."""

import contextlib
import io
import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from toy_run import toy_run
from toy_table import toy_table
from toy_trace import toy_trace

from replay import api
from replay.api import Result
from replay.main import main
from sim.policy import Decision, Held
from sim.summary import summarize
from sim.table_files import save_table
from traces.frame import from_frame, to_frame
from traces.parquet import write_trace
from traces.trace import PrefixBlocks, Trace

ROOT = Path(__file__).parents[1]
ENGINE = {"max_num_seqs": 4, "num_gpu_blocks": 64, "max_model_len": 4096}


@pytest.fixture
def table(tmp_path: Path) -> str:
    """Folder of a cost table."""
    (tmp_path / "table").mkdir()
    save_table(toy_table(engine=ENGINE), tmp_path / "table")
    return str(tmp_path / "table")


def frame(**columns: Any) -> pd.DataFrame:
    """Twenty requests, with columns changed or added."""
    made = {"arrival_s": 0.5 * np.arange(20), "prompt_tokens": 100, "output_tokens": 10}
    return pd.DataFrame({**made, **columns})


def full_trace() -> Trace:
    """A trace that has every column."""
    from dataclasses import replace

    return replace(
        toy_trace([0.0, 1.0, 2.0], [16, 40, 8], [3, 2, 1]),
        prefix=PrefixBlocks(np.array([7, 7, 8, 9]), np.array([0, 1, 3, 4]), 16),
        session_id=np.array(["a", None, "b"], dtype=object),
        is_offline=np.array([False, True, False]),
        deadline_s=np.array([9.0, np.nan, 8.0]),
        notes=("One note.",),
    )


def test_a_trace_comes_back_from_its_dataframe() -> None:
    trace = full_trace()
    back = from_frame(to_frame(trace))
    for name in ("arrival_s", "prompt_tokens", "output_tokens", "session_id", "is_offline"):
        assert np.array_equal(getattr(back, name), getattr(trace, name)), name
        assert getattr(back, name).dtype == getattr(trace, name).dtype, name
    assert back.deadline_s is not None
    assert trace.deadline_s is not None
    assert np.array_equal(back.deadline_s, trace.deadline_s, equal_nan=True)
    assert back.prefix is not None
    assert [back.prefix.of(row) for row in range(3)] == [(7,), (7, 8), (9,)]
    assert back.prefix.block_tokens == 16
    assert (back.name, back.source, back.licence, back.notes) == (
        *("toy", "invented for a test", "none"),
        ("One note.",),
    )


def test_the_hash_of_a_dataframe_is_that_of_its_requests() -> None:
    one = from_frame(frame())
    assert from_frame(frame(colour="red")).sha256 == one.sha256
    assert from_frame(frame(output_tokens=11)).sha256 != one.sha256
    assert from_frame(frame(deadline_s=90.0)).sha256 != one.sha256


def test_rows_are_sorted_by_arrival_whatever_their_index() -> None:
    mixed = frame().sample(frac=1, random_state=1)
    trace = from_frame(mixed)
    assert (np.diff(trace.arrival_s) > 0).all()
    assert any("sorted by arrival" in note for note in trace.notes)


REFUSED: list[tuple[pd.DataFrame, str]] = [
    (frame().drop(columns="output_tokens"), "no column output_tokens; it has arrival_s, prompt_tokens"),
    (frame().head(0), "no rows; a trace needs at least 1 request"),
    (frame(prompt_tokens=[100] * 19 + [0]), "row 19: prompt_tokens must be a whole number from 1"),
    (frame(arrival_s=[-1.0] + [0.0] * 19), "row 0: arrival_s must be a number of at least 0, got -1.0"),
    (frame(output_tokens=[np.nan] + [1.0] * 19), "row 0: output_tokens must be given, but is missing"),
    (frame(prompt_tokens="many"), "column prompt_tokens must hold numbers"),
    (frame(prompt_tokens=[1, "two"] * 10), "column prompt_tokens holds values of several kinds"),
    (frame(request_class="night"), "row 0: request_class must be online or offline, got night"),
    (frame(prefix_hashes=[[1]] * 20), "prefix_hashes need block_tokens"),
]


@pytest.mark.parametrize(("refused", "message"), REFUSED, ids=[message[:25] for _, message in REFUSED])
def test_a_dataframe_that_is_no_trace_is_refused_in_one_line(refused: pd.DataFrame, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        api.simulate(refused)
    assert "\n" not in str(caught.value)


def test_a_replay_from_python_is_that_of_the_command(table: str, tmp_path: Path) -> None:
    path = tmp_path / "toy.parquet"
    write_trace(toy_trace([0.5 * row for row in range(20)], 100, 10), path)
    arguments = [str(path), "--policy", "batch-window", "--set", "window_s=2", "--set", "max_batch=none"]
    arguments += ["--table", table, "--engine", "max_num_seqs=2", "--engine", "no-async-scheduling"]
    arguments += ["--replicas", "2", "--router", "least-loaded", "--limit", "12", "--json"]
    ended = CliRunner().invoke(main, [*arguments, "--out", str(tmp_path / "run")], prog_name="replay")
    assert ended.exit_code == 0, ended.output
    told = json.loads(ended.stdout)
    told.pop("replicas")
    told.pop("out")
    result = api.simulate(
        api.read_trace(path, limit=12),
        "batch-window",
        options={"window_s": 2, "max_batch": None},
        table=table,
        engine={"max_num_seqs": 2, "async_scheduling": False},
        replicas=2,
        router="least-loaded",
    )
    assert {**result.summary, "invalid_reasons": []} == told
    pd.testing.assert_frame_equal(result.requests, api.read_run(tmp_path / "run").requests)


def test_a_fleet_from_a_file_is_that_of_the_command(table: str, tmp_path: Path) -> None:
    fleet, path = tmp_path / "fleet.yaml", tmp_path / "toy.parquet"
    fleet.write_text(
        f"pools: [{{name: a, table: {table}}}, {{name: b, table: {table}, count: 2}}]\nrouter: pack\n"
    )
    write_trace(toy_trace([0.5 * row for row in range(20)], 100, 10), path)
    rates: dict[str, Any] = {"grid_intensity": 350, "price": 0.25, "currency": "EUR", "pue": 1.2}
    arguments = [
        word for name, value in rates.items() for word in (f"--{name.replace('_', '-')}", str(value))
    ]
    words = [str(path), "--fleet", str(fleet), *arguments, "--json", "--out", str(tmp_path / "run")]
    ended = CliRunner().invoke(main, words, prog_name="replay")
    assert ended.exit_code == 0, ended.output
    told = json.loads(ended.stdout)
    result = api.simulate(path, fleet=fleet, **rates)
    assert {name: told[name] for name in result.summary.index} == {**result.summary, "invalid_reasons": []}
    assert result.summary["carbon_g"] > 0
    others: list[dict[str, Any]] = [
        {"replicas": 2},
        {"table": table},
        {"engine": {}},
        {"scaling": "reactive"},
    ]
    for given in others:
        with pytest.raises(
            ValueError, match="tells table, engine, replicas, router and scaling; leave these out"
        ):
            api.simulate(path, fleet=fleet, **given)


def test_the_summary_tells_the_goodput_of_limits_that_are_given(table: str, tmp_path: Path) -> None:
    requests = frame(prompt_tokens=[100, 800] * 10)
    result = api.simulate(requests, table=table)
    assert result.summary["goodput_rps"] is None
    limit_s = float(result.requests["e2e_s"].quantile(0.7))
    result.save(tmp_path / "run")
    of_record = api.read_run(tmp_path / "run", slos=[f"e2e={limit_s!r}"])
    for judged in (of_record, api.simulate(requests, table=table, slos=[f"e2e={limit_s!r}"])):
        attained = (judged.requests["e2e_s"] <= limit_s).mean()
        assert 0 < attained < 1
        assert judged.summary["attainment_fraction"] == attained
        assert judged.summary["goodput_rps"] == pytest.approx(20 * attained / judged.summary["makespan_s"])
    with pytest.raises(ValueError, match="e2e_p99: goodput is of limits of each request; give e2e=SECONDS"):
        api.read_run(tmp_path / "run", slos=["e2e_p99=1"])


def test_a_file_and_a_prediction_of_lengths_are_recorded(table: str, tmp_path: Path) -> None:
    write_trace(toy_trace([0.0, 1.0]), tmp_path / "toy.parquet")
    result = api.simulate(tmp_path / "toy.parquet", table=table, length_prediction="oracle")
    assert result.run.meta.trace_options == {"length_prediction": "oracle"}
    assert result.run.meta.trace_sha256 == "0" * 64


@dataclass
class Pairs:
    """Releases requests two at a time."""

    def decide(self, now_s: float, held: Held, running: int) -> Decision:  # noqa: ARG002
        return Decision(release=tuple(held)) if len(held) == 2 else Decision()


def test_a_policy_may_be_a_class_of_the_notebook(table: str) -> None:
    result = api.simulate(frame(), Pairs(), table=table)
    assert result.run.meta.policy == "Pairs"
    assert result.requests["held_s"].tolist() == [0.5, 0.0] * 10
    with pytest.raises(ValueError, match="options are for a policy given by name, got Pairs"):
        api.simulate(frame(), Pairs(), options={"most": 2}, table=table)


def test_a_result_shows_every_number_of_the_run() -> None:
    result = Result(toy_run())
    assert result.summary.to_dict() == asdict(summarize(toy_run()))
    assert result.requests["status"].tolist() == ["served", "served", "failed", "served"]
    assert result.requests["ttft_s"].fillna(-1).tolist() == [1.0, 2.0, -1, 0.25]
    assert result.requests["tpot_s"].fillna(-1).tolist() == [0.5, 1.0, -1, -1]
    assert result.requests["e2e_s"].fillna(-1).tolist() == [3.0, 9.0, -1, 0.25]
    assert result.power["power_w"].fillna(-1).tolist() == [-1, 240.0, 240.0]


def test_a_record_comes_back(tmp_path: Path) -> None:
    result = Result(toy_run())
    result.save(tmp_path / "run")
    back = api.read_run(tmp_path / "run")
    assert back.run.meta == result.run.meta
    pd.testing.assert_frame_equal(back.requests, result.requests)
    with pytest.raises(ValueError, match="exists already"):
        result.save(tmp_path / "run")


def test_summaries_stand_side_by_side() -> None:
    both = api.summarize(Result(toy_run()), Result(toy_run(policy="other", makespan_s=20.0)))
    assert both["policy"].tolist() == ["immediate", "other"]
    assert both["mean_power_w"].tolist() == [240.0, 120.0]


def test_a_comparison_has_a_row_a_metric() -> None:
    measured = Result(
        toy_run(kind="measured", energy_source="nvml", counter_j=[0, 1000.0, 2000.0], energy=None)
    )
    rows = api.compare(Result(toy_run()), measured)
    assert rows.loc["total_energy_j", "error_fraction"] == pytest.approx(0.2)
    assert rows.loc["total_energy_j", "is_within_target"] is False
    assert rows.loc["ttft_p50_s", "error_fraction"] == 0.0
    with pytest.raises(ValueError, match="the first run must be simulated"):
        api.compare(measured, measured)
    priced = api.compare(Result(toy_run()), measured, price=0.5, currency="EUR", pue=1.5)
    assert priced.loc["price", "simulated"] == pytest.approx(2400 / 3.6e6 * 1.5 * 0.5)
    assert priced.loc["price", "error_fraction"] == pytest.approx(0.2)
    assert "carbon_g" not in priced.index
    with pytest.raises(ValueError, match="a currency is of a price: give the price, too"):
        api.compare(Result(toy_run()), measured, currency="EUR")


def test_a_file_that_is_not_there_is_a_value_error_of_one_line(tmp_path: Path) -> None:
    for read, why in (
        (api.read_trace, "No such file"),
        (api.simulate, "No such file"),
        (api.read_run, "no run; give the folder of one"),
    ):
        with pytest.raises(ValueError, match=why) as caught:
            read(tmp_path / "nothing")
        assert "\n" not in str(caught.value)


def test_the_session_shown_prints_what_the_page_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "traces").symlink_to(ROOT / "traces")
    page = (ROOT / "docs" / "python.md").read_text()
    cells = re.findall(r"```python\n(.*?)```(?:\n\n```text\n(.*?)```)?", page, re.DOTALL)
    assert len(cells) >= 7
    names: dict[str, Any] = {"__name__": "__main__"}
    for code, shown in cells:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(code, names)
        lines = [line.rstrip() for line in printed.getvalue().splitlines()]
        assert "\n".join(lines) == shown.strip("\n")
