"""`replay calibrate`: what stops it is one line, and what it has measured is kept."""

import json
import re
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from calibration_bench import Bench, step_s
from click.testing import CliRunner
from invented_calibration import COEFFICIENTS, FACTS, KNOT_SETS, KNOTS, calibration
from scripted_nvml import ScriptedNvml
from standin_engine import StandInEngine

from calibrate import measure
from calibrate import model as cost_model
from calibrate.raw import append, read_lines
from replay import calibrate as command
from replay.main import main
from sim.table import PowerState
from sim.table_files import load_table, save_table, table_to_json

VLLM = 'raise ImportError("libcuda.so.1: cannot open shared object file")\n'


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Return a model's folder, without weights."""
    folder = tmp_path / "toy-model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return folder


@pytest.fixture
def vllm(nvml: ScriptedNvml, tmp_path: Path) -> None:
    """Put a vLLM in the way of child processes that is there and cannot be imported."""
    package = tmp_path / "packages" / "vllm"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(VLLM)
    nvml.environment["PYTHONPATH"] += f":{package.parent}"


def refusal_of(nvml: ScriptedNvml, *arguments: str) -> str:
    """Run the command in a child process and return the line with which it refuses."""
    done = nvml.run("-m", "replay", "calibrate", *arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    *talk, line = done.stderr.splitlines()
    assert not any(text.startswith("Error") for text in talk)
    return line


def test_without_vllm_it_says_how_to_install_it(nvml: ScriptedNvml, model: Path, tmp_path: Path) -> None:
    if find_spec("vllm") is not None:
        pytest.skip("vLLM is installed here")
    nvml.add_gpu(0, 80)
    line = refusal_of(nvml, "--model", str(model), "--out", str(tmp_path / "out"))
    assert line == "Error: vLLM is not installed here; install it: pip install 'replay[vllm]'"
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("vllm")
@pytest.mark.parametrize(
    ("says", "options", "message"),
    [
        ({"mig": 1}, [], "MIG is on: an instance reports its whole GPU's energy"),
        ({"process": 4711}, [], "process 4711 computes on the GPU; its energy would be counted too"),
        ({}, ["--gpu", "1"], "--gpu is 1, but the engine will use 0; set CUDA_VISIBLE_DEVICES=1 too"),
        ({}, ["--engine", "tensor_parallel_size=3"], "the engine needs 3 GPUs, 2 are visible"),
        ({"no_power": 1}, [], "the meter does not start: NVML has no instantaneous power"),
        ({"fails": 15}, [], "GPU is lost"),
    ],
    ids=["MIG", "busy", "another GPU", "too few GPUs", "no power", "lost"],
)
def test_a_gpu_that_cannot_be_measured_is_refused(
    nvml: ScriptedNvml, model: Path, tmp_path: Path, says: dict[str, Any], options: list[str], message: str
) -> None:
    nvml.add_gpu(0, 80)
    nvml.add_gpu(1, 80)
    nvml.say(-0.5, 0, **says)
    assert message in refusal_of(nvml, "--model", str(model), "--out", str(tmp_path / "out"), *options)


@pytest.mark.usefixtures("vllm")
@pytest.mark.parametrize("visible", ["1", "GPU-00000001"])
def test_the_gpu_that_is_metered_is_the_one_that_cuda_shows(
    nvml: ScriptedNvml, model: Path, tmp_path: Path, visible: str
) -> None:
    nvml.add_gpu(0, 80)
    nvml.add_gpu(1, 80)
    nvml.say(-0.5, 1, process=4711)
    nvml.environment["CUDA_VISIBLE_DEVICES"] = visible
    arguments = ["--model", str(model), "--out", str(tmp_path / "out")]
    assert "process 4711 computes on the GPU" in refusal_of(nvml, *arguments)
    assert "--gpu is 0, but the engine will use 1;" in refusal_of(nvml, *arguments, "--gpu", "0")


@pytest.mark.usefixtures("vllm")
def test_a_folder_without_a_model_is_refused(nvml: ScriptedNvml, tmp_path: Path) -> None:
    line = refusal_of(nvml, "--model", str(tmp_path), "--out", str(tmp_path / "out"))
    assert line.endswith("no config.json in this folder; give a model's folder or name")


@pytest.mark.usefixtures("vllm")
def test_a_missing_nvml_is_refused(nvml: ScriptedNvml, model: Path, tmp_path: Path) -> None:
    nvml.environment.pop("SCRIPTED_NVML")
    line = refusal_of(nvml, "--model", str(model), "--out", str(tmp_path / "out"))
    assert line.startswith("Error: NVML does not start: Driver Not Loaded; an NVIDIA driver is needed")


@pytest.fixture
def standing_in(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """Let the command measure on the bench."""

    async def bare_idle_w(*_: object) -> float:
        return 80.0

    monkeypatch.setattr(measure, "_bare_idle_w", bare_idle_w)
    monkeypatch.setattr(command, "_instruments", lambda *_: bench.tools())
    return bench


def run_calibrate(bench: Bench, *options: str) -> Any:
    arguments = ["calibrate", "--model", "stand-in", "--out", str(bench.folder), "--hold-s", "0.5"]
    return CliRunner().invoke(main, [*arguments, "--repeats", "1", "--grid", "quick", *options])


def test_a_calibration_that_is_stopped_says_how_to_go_on(standing_in: Bench) -> None:
    done = run_calibrate(standing_in, "--stop-after", "0")
    assert done.exit_code == 0
    assert done.stdout == ""
    assert done.stderr.endswith("1 points are done, 2 are left; give the same command again to go on\n")
    assert len(read_lines(standing_in.folder / "points.jsonl")) == 1
    refused = run_calibrate(standing_in, "--seed", "1")
    assert refused.exit_code == 2
    assert refused.stderr.splitlines()[-1].endswith("was begun with seed = 0, now 1; use another --out")


def test_an_interrupted_calibration_keeps_its_points_and_says_so(
    standing_in: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def say(text: str) -> None:
        standing_in.said.append(text)
        if text.startswith("2/"):
            raise KeyboardInterrupt

    tools = standing_in.tools()
    monkeypatch.setattr(command, "_instruments", lambda *_: tools)
    monkeypatch.setattr(command, "say", say)
    done = run_calibrate(standing_in)
    assert done.exit_code == 130
    assert isinstance(tools.engine, StandInEngine)
    assert tools.engine.is_stopped
    assert standing_in.said[-1].startswith("interrupted; what was measured is in ")
    assert len(read_lines(standing_in.folder / "points.jsonl")) == 2


def test_an_engine_that_fails_is_one_line(standing_in: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> Any:
        tools = standing_in.tools()
        return replace(tools, engine=Broken(standing_in.folder / "unused", step_s))

    monkeypatch.setattr(command, "_instruments", broken)
    done = run_calibrate(standing_in)
    assert done.exit_code == 2
    assert done.stderr.splitlines()[-1] == "Error: vLLM does not start: out of memory; its own log says more"


class Broken(StandInEngine):
    """An engine that does not start."""

    async def start(self) -> None:
        raise ValueError("vLLM does not start: out of memory;\n its own log says more")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--grid", "quick"], "--model is missing: name what to measure, or give --fit-only"),
        (["--model", "m", "--hold-s", "0.1"], "0.1 is not in the range x>=0.5"),
        (["--model", "m", "--repeats", "0"], "0 is not in the range x>=1"),
        (["--model", "m", "--grid", "huge"], "'huge' is not one of 'full', 'standard', 'card', 'quick'"),
        (["--model", "m", "--engine", "async_scheduling=false"], "async_scheduling is off"),
        (["--model", "m", "--engine", "max_num_seqs"], "--engine takes name=value, got 'max_num_seqs'"),
        (["--fit-only"], "no points.jsonl and no points.parquet; measure first, without --fit-only"),
    ],
)
def test_wrong_usage_is_one_line(tmp_path: Path, options: list[str], message: str) -> None:
    done = CliRunner().invoke(main, ["calibrate", "--out", str(tmp_path / "out"), *options])
    assert done.exit_code == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_measured_points_become_a_table_that_can_be_plotted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in KNOT_SETS:
        monkeypatch.setattr(cost_model, name, KNOTS)
    out = tmp_path / "invented"
    out.mkdir()
    for raw in calibration():
        append(out / "points.jsonl", raw)
    (out / "facts.json").write_text(json.dumps(FACTS))

    done = CliRunner().invoke(main, ["calibrate", "--out", str(out), "--fit-only"])
    assert done.exit_code == 0, done.stderr
    assert f"the table is {out / 'table.json'}; use it with --table {out}" in done.stderr
    assert re.search(r"mixed +10 windows: seconds 0\.\d\d % rms, joules 0\.\d\d % rms", done.stderr)
    table = load_table(str(out))
    assert (table.name, table.source, table.gpu) == ("invented", "measured", "Invented")
    assert table.coefficients.cap_w == pytest.approx(COEFFICIENTS.cap_w, rel=0.01)

    first_errors = table.meta["errors"]
    states = {"off": PowerState(70.0, 4.0, 500.0, 80.0, 9000.0)}
    table = replace(table, states=states, meta={**table.meta, "states_notes": {"rounds": 3}})
    save_table(table, out)
    (out / "points.jsonl").unlink()
    fit_again = ["calibrate", "--out", str(out), "--fit-only", "--json", "--quiet"]
    again = CliRunner().invoke(main, fit_again)
    assert again.exit_code == 0, again.stderr
    assert again.stderr == ""
    fitted_again = load_table(str(out))
    assert json.loads(again.stdout) == {
        "table": "invented",
        "errors": fitted_again.meta["errors"],
        "states": {"off": asdict(states["off"])},
        "out": str(out),
    }
    for kind, errors in table.meta["errors"].items():
        assert fitted_again.meta["errors"][kind] == pytest.approx(errors, rel=1e-2, abs=1e-5), kind
    assert fitted_again.meta["states_notes"] == {"rounds": 3}

    save_table(table, out)  # from the same start the same comes out
    assert CliRunner().invoke(main, fit_again).exit_code == 0
    assert table_to_json(load_table(str(out))) == table_to_json(fitted_again)

    old = {**table_to_json(table), "format": 3}
    (out / "table.json").write_text(json.dumps(old))
    anew = CliRunner().invoke(main, ["calibrate", "--out", str(out), "--fit-only"])
    assert anew.exit_code == 0, anew.stderr
    assert (
        "table.json: not a cost table: its format is 3, this version reads 4 and 5; the table is made anew, "
        "without power states: measure those again with --states\n"
    ) in anew.stderr
    assert load_table(str(out)).states == {}
    assert load_table(str(out)).meta["errors"] == first_errors

    plotted = CliRunner().invoke(main, ["tables", str(out), "--plot", str(tmp_path / "plot.png")])
    assert plotted.exit_code == 0, plotted.stderr
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_without_scipy_it_says_so_before_measuring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    done = CliRunner().invoke(main, ["calibrate", "--model", "m", "--out", str(tmp_path / "out")])
    assert done.exit_code == 2
    assert done.stderr == (
        "Error: a fit needs SciPy, which is not installed; pip install 'replay[calibrate]'\n"
    )


def test_a_finished_calibration_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "points.parquet").write_bytes(b"measured")
    done = CliRunner().invoke(main, ["calibrate", "--model", "m", "--out", str(tmp_path)])
    assert done.exit_code == 2
    assert "holds a calibration that is finished; give --fit-only, or another --out" in done.stderr
    assert (tmp_path / "points.parquet").read_bytes() == b"measured"


@pytest.mark.parametrize(
    ("pairs", "options"),
    [
        ((), {}),
        (("max-num-seqs=128", "dtype=bfloat16"), {"max_num_seqs": 128, "dtype": "bfloat16"}),
        (
            ("enforce_eager=true", "gpu_memory_utilization=0.8"),
            {"enforce_eager": True, "gpu_memory_utilization": 0.8},
        ),
        (("a=b=c",), {"a": "b=c"}),
    ],
)
def test_engine_options_are_json_or_text(pairs: tuple[str, ...], options: dict[str, Any]) -> None:
    assert command.parse_engine_options(pairs) == options


def test_every_option_is_in_the_docs() -> None:
    text = (Path(__file__).parents[1] / "docs" / "calibrate.md").read_text()
    for parameter in command.cli.params:
        for option in parameter.opts:
            assert option in text or not option.startswith("--"), option
