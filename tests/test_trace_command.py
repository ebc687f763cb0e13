"""`replay trace` does what it says, and answers bad input with one line and exit code 2."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import traces
from replay.trace import cli
from traces.public import PUBLIC_TRACES
from traces.reading import read_trace

PACKAGE = Path(str(traces.__file__)).parent
CHAT = PACKAGE / "chat.parquet"
ROWS = "arrived_at,num_prefill_tokens,num_decode_tokens\n0.5,100,10\n1.5,200,20\n9.5,300,5\n"


def run(*words: object) -> Result:
    return CliRunner().invoke(cli, [str(word) for word in words])


@pytest.fixture
def csv(tmp_path: Path) -> Path:
    path = tmp_path / "mine.csv"
    path.write_text(ROWS)
    return path


def assert_one_line(result: Result, message: str) -> None:
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    assert message in result.stderr


def test_info_tells_what_a_trace_holds(csv: Path) -> None:
    result = run("info", csv)
    assert result.exit_code == 0
    for words in (
        "mine",
        "3 over 9.0 s",
        "0.333 a second",
        "70.0% of seconds empty",
        "file mine.csv, format vidur",
    ):
        assert words in result.stdout


def test_info_as_json_has_the_numbers(csv: Path) -> None:
    found = json.loads(run("info", csv, "--json").stdout)
    assert found["requests"] == 3
    assert found["span_s"] == 9.0
    assert found["rate_per_s"] == pytest.approx(1 / 3)
    assert found["input"]["total"] == 600
    assert found["output"]["p50"] == 10
    assert found["rank_correlation"] == pytest.approx(-0.5)
    assert found["gap_cv"] == pytest.approx(3.5 / 4.5)
    assert found["empty_second_fraction"] == pytest.approx(0.7)
    assert found["sharing"] is None


def test_info_counts_shared_prefixes_in_full_blocks_from_the_start(tmp_path: Path) -> None:
    path = tmp_path / "blocks.jsonl"
    rows = [
        {"timestamp": 0, "input_length": 1024, "output_length": 1, "hash_ids": [1, 2]},
        {"timestamp": 1, "input_length": 1536, "output_length": 1, "hash_ids": [1, 2, 3]},  # 1024 repeated
        {"timestamp": 2, "input_length": 1000, "output_length": 1, "hash_ids": [1, 2]},  # 512: 2 is not full
        {"timestamp": 3, "input_length": 1024, "output_length": 1, "hash_ids": [9, 2]},  # none: 9 comes first
        {"timestamp": 4, "input_length": 1024, "output_length": 1, "hash_ids": [9, 9]},  # 1024: all seen
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    sharing = json.loads(run("info", path, "--json").stdout)["sharing"]
    assert sharing["distinct_blocks"] == 4
    assert sharing["blocks"] == 11
    assert sharing["shared_token_fraction"] == pytest.approx((1024 + 512 + 1024) / 5608)


def test_info_of_a_single_request_has_no_rate(tmp_path: Path) -> None:
    path = tmp_path / "one.csv"
    path.write_text("\n".join(ROWS.splitlines()[:2]))
    result = run("info", path)
    assert result.exit_code == 0
    assert re.search(r"^  rate +none ", result.stdout, re.MULTILINE)
    assert json.loads(run("info", path, "--json").stdout)["gap_cv"] is None


def test_info_draws_a_picture(csv: Path, tmp_path: Path) -> None:
    picture = tmp_path / "mine.png"
    result = run("info", csv, "--plot", picture)
    assert result.exit_code == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert_one_line(run("info", csv, "--plot", picture), "exists already")
    assert run("info", csv, "--plot", picture, "--overwrite").exit_code == 0
    assert_one_line(run("info", csv, "--plot", tmp_path / "mine.txt"), "a plot ends in .png, .svg, .pdf")


def test_info_draws_the_shipped_traces(tmp_path: Path) -> None:
    for name in ("chat", "code"):
        picture = tmp_path / f"{name}.svg"
        assert run("info", PACKAGE / f"{name}.parquet", "--plot", picture).exit_code == 0
        assert b"<svg" in picture.read_bytes()


def test_convert_writes_what_was_read(csv: Path, tmp_path: Path) -> None:
    out = tmp_path / "mine.parquet"
    result = run("convert", csv, out)
    assert result.exit_code == 0
    assert result.stderr == f"3 requests of mine are in {out}\n"
    assert read_trace(out).prompt_tokens.tolist() == [100, 200, 300]
    assert read_trace(out).sha256 == read_trace(csv).sha256


def test_convert_selects_and_stretches(csv: Path, tmp_path: Path) -> None:
    out = tmp_path / "part.parquet"
    assert run("convert", csv, out, "--from-s", 1, "--to-s", 10, "--stretch", 2, "--limit", 1).exit_code == 0
    assert read_trace(out).arrival_s.tolist() == [1.0]


def test_convert_spreads_ticks_and_leaves_out_zeros_on_request(tmp_path: Path) -> None:
    path, out = tmp_path / "ticks.csv", tmp_path / "out.parquet"
    path.write_text(ROWS.splitlines()[0] + "\n" + "0,5,5\n" * 9 + "3,5,5\n4,0,7\n")
    assert_one_line(run("convert", path, out), "line 12: num_prefill_tokens must be at least 1, got 0")
    result = run("convert", path, out, "--leave-out-zero", "--spread", 3, "--seed", 4)
    assert result.exit_code == 0
    assert "note: Left out 1 row with zero tokens." in result.stderr
    assert "note: Arrivals spread over ticks of up to 3 s, seed 4." in result.stderr
    assert len(set(read_trace(out).arrival_s.tolist())) == 10


def test_convert_takes_a_format_that_content_does_not_tell(tmp_path: Path) -> None:
    path, out = tmp_path / "t.jsonl", tmp_path / "out.parquet"
    path.write_text('{"timestamp": 3000, "input_length": 9, "output_length": 2}')
    assert_one_line(run("convert", path, out), "give --format mooncake")
    assert run("convert", path, out, "--format", "mooncake").exit_code == 0
    assert read_trace(out).arrival_s.tolist() == [3.0]
    assert_one_line(run("info", path, "--format", "moon"), "no trace format 'moon'; there are azure-2025")


def test_fetch_lists_and_takes_a_local_file_of_the_right_hash_only(csv: Path, tmp_path: Path) -> None:
    listed = run("fetch")
    assert listed.exit_code == 0
    assert [line.split()[0] for line in listed.stdout.splitlines()] == [trace.name for trace in PUBLIC_TRACES]
    refused = run("fetch", "azure-2023-code", "--from", csv, "--cache", tmp_path / "cache")
    assert_one_line(refused, "not taken")
    assert_one_line(run("fetch", "azure-2025-lmm", "--cache", tmp_path / "cache"), "--sha256 HEX")
    sha256 = read_trace(csv).sha256
    words = ("fetch", "azure-2025-lmm", "--from", csv, "--sha256", sha256, "--cache", tmp_path / "cache")
    taken = run(*words)
    assert taken.exit_code == 0
    assert Path(taken.stdout.strip()).read_text() == ROWS


def test_describe_and_synthesize_make_a_trace_like_another(tmp_path: Path) -> None:
    statistics, out = tmp_path / "mine.json", tmp_path / "mine.parquet"
    assert run("describe", CHAT, "--out", statistics, "--name", "mine").exit_code == 0
    result = run("synthesize", "--statistics", statistics, "--out", out, "--seed", 7, "--duration", 600)
    assert result.exit_code == 0
    assert "requests of mine are in" in result.stderr
    likeness = json.loads(run("compare", out, CHAT, "--json").stdout)
    assert likeness["rate_ratio"] == pytest.approx(1, abs=0.02)
    assert likeness["input_ks"] < 0.03
    assert "input ks" in run("compare", out, CHAT).stdout
    on_off = run("describe", CHAT, "--out", statistics, "--overwrite", "--arrivals", "on-off")
    assert on_off.exit_code == 0
    assert "on-off arrivals" in on_off.stderr


def test_the_shipped_statistics_go_by_name(tmp_path: Path) -> None:
    out = tmp_path / "code.parquet"
    assert run("synthesize", "--statistics", "code", "--out", out, "--duration", 3600).exit_code == 0
    trace = read_trace(out)
    assert trace.synthetic
    assert len(trace) == 9240
    assert_one_line(run("synthesize", "--statistics", "cod", "--out", tmp_path / "x"), "one of chat, code")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("info", "nowhere.csv"), "nowhere.csv: No such file or directory"),
        (("info", "."), "Is a directory"),
        (("convert", CHAT, CHAT), "exists already; choose another name or give --overwrite"),
        (("convert", CHAT, "none/out.parquet"), "no such folder"),
        (("convert", CHAT, "out.parquet", "--stretch", "0"), "stretch must be > 0"),
        (("convert", CHAT, "out.parquet", "--limit", "0"), "limit must be >= 1"),
        (("convert", CHAT, "out.parquet", "--from-s", "9999"), "no request arrives"),
        (("convert", CHAT, "out.parquet", "--spread", "-1"), "spread must be > 0"),
        (("fetch", "nothing"), "no public trace 'nothing'"),
        (("compare", CHAT, "nowhere.csv"), "nowhere.csv: No such file"),
        (
            ("synthesize", "--statistics", "chat", "--out", "o.parquet", "--duration", "0"),
            "duration must be > 0",
        ),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    words: tuple[object, ...], message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert_one_line(run(*words), message)
    assert list(tmp_path.iterdir()) == []


def test_help_needs_no_heavy_imports() -> None:
    look = (
        "import sys, replay.trace; print({'numpy', 'pandas', 'pyarrow', 'matplotlib'} & sys.modules.keys())"
    )
    found = subprocess.run([sys.executable, "-c", look], cwd=PACKAGE.parent, capture_output=True, text=True)
    assert found.stdout == "set()\n", found.stderr
