"""The twin without vLLM: what its pretend GPU does is what the simulation says, and the meter reads it."""

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from serving import serve, small_options
from toy_table import toy_table
from toy_trace import toy_trace

from backends.meter import Meter
from backends.twin import ENERGY_FILE, FOLDER_VARIABLE, STRETCH, platform
from backends.twin_counter import TwinCounter, open_twins
from backends.twin_gpu import TwinGpu
from backends.twin_rig import notes, twin_options, watch_twins
from replay.live_engine import shipped_model
from replay.main import main
from sim.engine import SimulatedEngine
from sim.engine_state import STEP_COLUMNS
from sim.gpu_step import Load
from sim.table import CostTable
from sim.table_files import load_table, save_table, shipped
from traces.parquet import write_trace

GOVERNED = toy_table(per_pair=np.zeros(2), cap_w=420.0, allowance_j=3.0, tail_w=40.0, tail_s=0.02)
"""A table with all there is to a GPU, but for pairs, which a step log does not tell."""
DECODE = Load(chunks=0, prefill_tokens=0, prefill_pairs=0.0, decode_seqs=4, kv_tokens=400, longest_tokens=130)
ENGINE = {"vllm": "0.25.1", "max_num_batched_tokens": 8192, "max_num_seqs": 1024, "num_gpu_blocks": 500}
ENGINE |= {"quantization": None, "dtype": "bfloat16", "model": "toy", "random_weights": True}


def stretches(folder: Path) -> "np.ndarray[tuple[int], np.dtype[np.void]]":
    return np.fromfile(folder / ENERGY_FILE, dtype=STRETCH)


@pytest.fixture
def simulated(tmp_path: Path) -> SimulatedEngine:
    """Serve a few requests in simulation, and let the pretend GPU run the very same steps."""
    trace = toy_trace([0.0, 0.0, 0.3, 0.31, 2.0], [700, 30, 2000, 5, 60], [30, 80, 40, 3, 20])
    options = small_options(max_num_batched_tokens=512, num_gpu_blocks=800, max_model_len=4096)
    engine = serve(trace, options, GOVERNED)
    gpu = TwinGpu(GOVERNED, tmp_path / ENERGY_FILE, now_s=0.0)
    for decided_s, _, _, chunks, prefill_tokens, *decodes in engine.log.steps[:, :8].tolist():
        if chunks + decodes[0]:
            load = Load(int(chunks), int(prefill_tokens), 0.0, *map(int, decodes))
            gpu.launch(load, decided_s, now_s=decided_s)
    gpu.close()
    return engine


def test_the_pretend_gpu_runs_the_steps_of_a_simulation_when_the_simulation_does(
    simulated: SimulatedEngine, tmp_path: Path
) -> None:
    ran, steps = stretches(tmp_path)[1:], simulated.log.steps
    assert len(ran) == simulated.steps > 100
    steps = steps[steps[:, STEP_COLUMNS.index("chunks")] + steps[:, STEP_COLUMNS.index("decode_seqs")] > 0]
    np.testing.assert_allclose(ran["from_s"], steps[:, STEP_COLUMNS.index("start_s")], rtol=1e-12)
    np.testing.assert_allclose(ran["to_s"], steps[:, STEP_COLUMNS.index("end_s")], rtol=1e-12)


def test_its_counter_is_the_simulated_energy_of_the_last_tick(
    simulated: SimulatedEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counter = TwinCounter(tmp_path / ENERGY_FILE, GOVERNED.coefficients, gpus=1)
    power = simulated.power
    for at_s, energy_j in zip(power.time_s[:-1], power.energy_j[:-1], strict=True):
        monkeypatch.setattr(time, "monotonic", lambda at_s=at_s: at_s + 0.05)
        assert counter.energy_j() == pytest.approx(energy_j, rel=1e-9)
    monkeypatch.setattr(time, "monotonic", lambda: float(power.time_s[-1]) + 10.0)
    assert counter.power_w() == pytest.approx(GOVERNED.coefficients.idle_w)


def test_several_pretend_gpus_share_the_energy(simulated: SimulatedEngine, tmp_path: Path) -> None:
    save_table(GOVERNED, tmp_path)
    assert simulated.steps
    with open_twins([tmp_path], 2) as both, open_twins([tmp_path], 1) as alone:
        assert len(both) == 2
        assert both[1].power_w() == pytest.approx(alone[0].power_w() / 2)


@pytest.fixture
def gpu(tmp_path: Path) -> Iterator[TwinGpu]:
    with closing(TwinGpu(GOVERNED, tmp_path / ENERGY_FILE, now_s=0.0)) as running:
        yield running


def test_what_the_host_spent_since_the_decision_is_part_of_the_launch(gpu: TwinGpu, tmp_path: Path) -> None:
    host = GOVERNED.host
    launch_s = host.graph_s + 4 * host.per_seq_s
    for begun_s, spent_s in ((1.0, 0.0), (2.0, 0.5 * launch_s), (3.0, 2 * launch_s)):
        launch = gpu.launch(DECODE, decided_s=begun_s, now_s=begun_s + spent_s)
        launched_s = begun_s + max(launch_s, spent_s)
        assert launch.launched_s == pytest.approx(launched_s)
        assert stretches(tmp_path)["from_s"][-1] == pytest.approx(launched_s)
        assert launch.output_s == pytest.approx(stretches(tmp_path)["to_s"][-1] + host.output_s)


def test_a_step_waits_for_the_one_before(gpu: TwinGpu, tmp_path: Path) -> None:
    for _ in range(3):
        gpu.launch(DECODE, decided_s=1.0, now_s=1.0)
    ran = stretches(tmp_path)[1:]
    assert ran["from_s"][1:].tolist() == ran["to_s"][:-1].tolist()


def test_the_meter_reads_the_pretend_counter(tmp_path: Path) -> None:
    save_table(GOVERNED, tmp_path)
    idle_w = GOVERNED.coefficients.idle_w
    began_s = time.monotonic()
    row = [(began_s - 1.0, 0.0, began_s - 1.0, 0.0), (began_s, idle_w, began_s + 60.0, idle_w + 60 * 300.0)]
    np.array(row, dtype=STRETCH).tofile(tmp_path / ENERGY_FILE)
    with Meter(tmp_path / "meter.bin", (0, 1), [tmp_path]) as meter:
        time.sleep(0.5)
        samples = meter.samples(0.0)
    for gpu in (0, 1):
        own = samples[samples["gpu"] == gpu]
        ticks_s = own["time_s"] // 0.1 * 0.1
        sure = np.abs(own["time_s"] - ticks_s - 0.05) < 0.04  # read and noted in the same tick
        assert np.count_nonzero(sure) > 20
        np.testing.assert_allclose(own["energy_j"][sure], (idle_w + 300 * (ticks_s[sure] - began_s)) / 2)
        np.testing.assert_allclose(own["power_w"][np.isfinite(own["power_w"])], 150.0, rtol=1e-3)
    assert samples["throttle_reasons"].max() == 0


def test_the_gpus_of_several_twins_are_one_twins_after_the_others(tmp_path: Path) -> None:
    folders = [tmp_path / "one", tmp_path / "other"]
    for power_w, folder in zip((300.0, 500.0), folders, strict=True):
        folder.mkdir()
        save_table(GOVERNED, folder)
        now_s = time.monotonic()
        row = [(now_s - 60.0, 0.0, now_s + 60.0, 120 * power_w)]
        np.array(row, dtype=STRETCH).tofile(folder / ENERGY_FILE)
    with open_twins(folders, 4) as gpus:
        assert [gpu.power_w() for gpu in gpus] == pytest.approx([150.0, 150.0, 250.0, 250.0])


def table_of(**engine: Any) -> CostTable:
    return toy_table(engine={**ENGINE, **engine}, gpus=2, gpu="Toy GPU")


def test_the_engine_has_the_options_of_the_table_unless_told_otherwise() -> None:
    options = twin_options(table_of(), {})
    assert (options["max_num_batched_tokens"], options["max_num_seqs"]) == (8192, 1024)
    assert options["num_gpu_blocks_override"] == 500
    assert options["distributed_executor_backend"] == "backends.twin_executor.TwinExecutor"
    assert not options.keys() & {"vllm", "model", "random_weights", "num_gpu_blocks"}
    options = twin_options(table_of(), {"max_num_batched_tokens": 512, "num_gpu_blocks_override": 9})
    assert (options["max_num_seqs"], options["num_gpu_blocks_override"]) == (512, 9)
    assert twin_options(table_of(), {"max_num_seqs": 7, "dtype": "bfloat16"})["max_num_seqs"] == 7


@pytest.mark.parametrize(
    ("name", "value"), [("quantization", "fp8"), ("enforce_eager", True), ("scheduler_cls", "mine.Scheduler")]
)
def test_an_option_under_which_the_table_would_not_hold_is_refused(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"^{name}={value}: the twin takes its times from table toy"):
        twin_options(table_of(), {name: value})


def test_what_is_not_known_or_not_the_same_is_said() -> None:
    table = table_of()
    watch = watch_twins(table, 2)
    assert [fact.name for fact in watch.facts] == ["Toy GPU"] * 4
    assert watch.engine_uuids == ("twin-0", "twin-1", "twin-2", "twin-3")
    said = " ".join(notes(table, {"vllm": "0.32.0"}))
    assert "Nothing was measured" in said
    assert "measured with vLLM 0.25.1, this is 0.32.0" in said
    assert "not measured" in said
    assert len(notes(toy_table(source="measured", engine=ENGINE), {"vllm": "0.25.1"})) == 1


def test_vllm_is_on_the_twin_only_where_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)
    assert platform() is None
    monkeypatch.setenv(FOLDER_VARIABLE, "somewhere")
    assert platform() == "backends.twin_platform.TwinPlatform"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--device", "twin"], "--device is of a live engine: give --backend, too"),
        (
            ["--backend", "openai", "--url", "http://a/v1", "--device", "twin"],
            "--device is of --backend vllm",
        ),
        (
            ["--backend", "vllm", "--device", "twin", "--gpu", "0"],
            "--gpu names a GPU to meter; a twin has none",
        ),
        (["--backend", "vllm", "--device", "twin", "--table", "none"], "no table 'none'"),
    ],
)
def test_the_options_of_a_twin_go_together(arguments: list[str], message: str, tmp_path: Path) -> None:
    write_trace(toy_trace([0.0]), tmp_path / "toy.parquet")
    result = CliRunner().invoke(main, [str(tmp_path / "toy.parquet"), *arguments])
    assert result.exit_code == 2
    assert message in result.output


def test_a_validation_on_the_twin_needs_no_model_and_no_gpu(tmp_path: Path) -> None:
    write_trace(toy_trace([0.0]), tmp_path / "toy.parquet")
    command = ["validate", str(tmp_path / "toy.parquet"), "--device", "twin", "--out", str(tmp_path / "out")]
    refused = CliRunner().invoke(main, [*command, "--gpu", "0"])
    assert "a twin has none" in refused.output
    refused = CliRunner().invoke(main, [*command, "--engine", "enforce_eager=true"])
    assert "enforce_eager=True: the twin takes its times from table" in refused.output


def test_the_model_of_a_shipped_table_ships() -> None:
    for name in shipped():
        assert (Path(shipped_model(load_table(name))) / "config.json").is_file()
    with pytest.raises(ValueError, match="its model toy does not ship; give the model by --model"):
        shipped_model(table_of())
