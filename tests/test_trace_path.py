"""Wherever a trace is asked for, the name of a public one that was fetched does."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from replay import api
from replay.errors import Exit
from replay.explore_places import Places
from replay.main import main
from sim.sweep_key import sha256_of
from traces.fetch import cache_folder
from traces.public import public_trace

NAME = "azure-2023-code"
ROWS = "TIMESTAMP,ContextTokens,GeneratedTokens\n" + "".join(
    f"2023-11-16 18:00:0{second}.0000000,10,5\n" for second in range(4)
)


@pytest.fixture(autouse=True)
def empty_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def file() -> Path:
    public = public_trace(NAME)
    path = cache_folder() / public.name / public.file_name
    path.parent.mkdir(parents=True)
    path.write_text(ROWS)
    return path


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [*map(str, arguments), "--json"])


@pytest.mark.parametrize("command", [("run",), ("estimate",), ("trace", "info")], ids=" ".join)
def test_a_name_is_as_good_as_the_file(command: tuple[str, ...], file: Path) -> None:
    by_name, by_path = call(*command, NAME), call(*command, file)
    assert by_name.exit_code == by_path.exit_code == Exit.DONE, by_name.stderr
    told, expected = json.loads(by_name.stdout), json.loads(by_path.stdout)
    assert {**told, "out": None} == {**expected, "out": None}


@pytest.mark.parametrize(
    "arguments",
    [
        (NAME,),
        ("estimate", NAME),
        ("sweep", NAME, "--out", "out"),
        ("optimize", NAME, "--slo", "ttft=1", "--out", "out"),
        ("validate", NAME, "--model", "toy", "--out", "out"),
        ("trace", "info", NAME),
        ("trace", "convert", NAME, "out.parquet"),
        ("trace", "describe", NAME, "--out", "out.json"),
        ("trace", "compare", NAME, "other.csv"),
    ],
    ids=lambda arguments: " ".join(arguments[:2]),
)
def test_a_name_that_was_not_fetched_tells_how(arguments: tuple[str, ...]) -> None:
    refused = call(*arguments)
    assert refused.exit_code == Exit.REFUSED
    way_out = f"the public trace {NAME} was not fetched yet; `replay trace fetch {NAME}` does"
    assert refused.stderr == f"Error: {way_out}\n"


def test_the_api_takes_a_name_too(file: Path) -> None:
    assert len(api.read_trace(NAME)) == 4
    assert api.simulate(NAME).run.meta.trace_sha256 == api.simulate(file).run.meta.trace_sha256


def test_the_trace_of_a_record_is_found_among_the_fetched(file: Path) -> None:
    nowhere = Places(None, (), ())
    assert nowhere.find_trace(NAME, sha256_of(file)) == file
    with pytest.raises(ValueError, match=r"AzureLLMInferenceTrace_code\.csv is another, by its hash"):
        nowhere.find_trace(NAME, "0" * 64)
    file.unlink()
    with pytest.raises(ValueError, match=rf"no file {NAME}\.\* is here"):
        nowhere.find_trace(NAME, sha256_of(Path(__file__)))
