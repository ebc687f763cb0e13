"""`replay estimate`: estimates by bins, by FLOPs and by utilisation, each beside the replay."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st
from terminal import PLAIN_TERMINAL
from toy_table import TOY_TABLE, toy_table
from toy_trace import toy_trace

from replay.estimates import binned, parts_of
from replay.main import main
from sim.binned import Rounding, binned_estimate
from sim.flops import Shape, flops_energy_j, peak_of, shape_from_config, trace_flops
from sim.immediate import Immediate
from sim.options import EngineOptions, FleetOptions
from sim.pools import Pool, Pools
from sim.serving import Setup
from sim.simulate import simulate, simulate_fleet
from sim.table_files import save_table
from sim.utilisation import utilisation_energy_j
from traces.parquet import write_trace

OPTIONS = EngineOptions()
MODELS = Path(__file__).parents[1] / "calibrate" / "models"


def energy_of_j(prompt_tokens: int, output_tokens: int, batch: int) -> float:
    trace = toy_trace([0.0] * batch, prompt_tokens, output_tokens)
    total_j = simulate(trace, Immediate(), OPTIONS, TOY_TABLE).total_energy_j
    assert total_j is not None
    return total_j


@pytest.mark.parametrize(
    ("rounding", "prompt_tokens", "output_tokens"), [("ceiling", 64, 16), ("exact", 50, 12), ("floor", 32, 8)]
)
def test_a_bin_costs_n_over_b_batches_of_its_rounded_lengths(
    rounding: Rounding, prompt_tokens: int, output_tokens: int
) -> None:
    trace = toy_trace(np.arange(5.0).tolist(), [33, 40, 63, 63, 51], [9, 10, 15, 14, 12])
    found = binned_estimate(trace, rounding, OPTIONS, TOY_TABLE, batch=2)
    assert found.energy_j == pytest.approx(5 / 2 * energy_of_j(prompt_tokens, output_tokens, 2))
    assert (found.bins, found.least_batch, found.largest_batch) == (1, 2, 2)
    assert (found.prompt_tokens, found.output_tokens) == (5 * prompt_tokens, 5 * output_tokens)


def test_bins_are_summed_and_short_requests_are_in_the_first() -> None:
    trace = toy_trace([0.0, 1.0, 1.0], [10, 9000, 32], [3, 600, 8])
    expected_j = 2 * energy_of_j(32, 8, 1) + energy_of_j(16384, 1024, 1)
    assert binned_estimate(trace, "ceiling", OPTIONS, TOY_TABLE, batch=1).energy_j == pytest.approx(
        expected_j
    )


def test_lengths_that_are_powers_of_two_are_not_rounded() -> None:
    trace = toy_trace([0.0] * 4, [32, 64, 64, 2048], [8, 8, 16, 512])
    energies_j = {
        binned_estimate(trace, rounding, OPTIONS, TOY_TABLE, batch=3).energy_j
        for rounding in ("ceiling", "exact", "floor")
    }
    assert len(energies_j) == 1


def test_a_batch_is_the_largest_whose_kv_fits() -> None:
    options = EngineOptions(num_gpu_blocks=101)
    trace = toy_trace([0.0], 64, 16)
    assert binned_estimate(trace, "ceiling", options, TOY_TABLE).largest_batch == 20
    assert binned_estimate(trace, "ceiling", options, TOY_TABLE, batch=30).largest_batch == 20
    few = EngineOptions(max_num_seqs=7)
    assert binned_estimate(trace, "ceiling", few, TOY_TABLE).largest_batch == 7


def test_what_the_engine_cannot_hold_or_be_asked_is_refused() -> None:
    with pytest.raises(ValueError, match="batch must be >= 1, got 0"):
        binned_estimate(toy_trace([0.0]), "exact", OPTIONS, TOY_TABLE, batch=0)
    small = EngineOptions(num_gpu_blocks=6)
    with pytest.raises(
        ValueError, match=r"requests have 136 tokens, the engine holds 80; raise num_gpu_blocks"
    ):
        binned_estimate(toy_trace([0.0], 70, 5), "ceiling", small, TOY_TABLE)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.integers(32, 3000), st.integers(8, 300)), min_size=1, max_size=12))
def test_rounding_up_takes_no_less_than_true_lengths_and_down_no_more(lengths: list[tuple[int, int]]) -> None:
    prompts, outputs = zip(*lengths, strict=True)
    trace = toy_trace([0.0] * len(lengths), prompts, outputs)
    up, exact, down = (
        binned_estimate(trace, rounding, OPTIONS, TOY_TABLE, batch=4)
        for rounding in ("ceiling", "exact", "floor")
    )
    assert down.energy_j <= exact.energy_j * (1 + 1e-9)
    assert exact.energy_j <= up.energy_j * (1 + 1e-9)
    assert (exact.prompt_tokens, exact.output_tokens) == (sum(prompts), sum(outputs))


def test_flops_of_a_request_count_layers_head_and_query_key_pairs() -> None:
    shape = Shape(layer_parameters=100, head_parameters=10, attention_width=8)
    trace = toy_trace([0.0], 3, 2)
    pairs = 1 + 2 + 3 + 4
    assert trace_flops(trace, shape) == 2 * 100 * 4 + 2 * 10 * 2 + 4 * 8 * pairs
    assert flops_energy_j(6e12, 3e12, 700) == 1400


@pytest.mark.parametrize(("model", "billions"), [("llama-3.1-8b", 8.03), ("llama-3.2-1b", 1.24)])
def test_the_shipped_models_have_the_parameters_in_their_names(model: str, billions: float) -> None:
    config = json.loads((MODELS / model / "config.json").read_text())
    shape = shape_from_config(config)
    embedding = 0 if config["tie_word_embeddings"] else shape.head_parameters
    assert (shape.layer_parameters + shape.head_parameters + embedding) / 1e9 == pytest.approx(
        billions, abs=0.005
    )


def test_an_unknown_architecture_or_peak_is_refused() -> None:
    with pytest.raises(ValueError, match=r"architectures must be one of LlamaForCausalLM, got \['Other'\]"):
        shape_from_config({"architectures": ["Other"]})
    with pytest.raises(ValueError, match=r"no hidden_size in the model's config\.json"):
        shape_from_config({"architectures": ["LlamaForCausalLM"]})
    with pytest.raises(ValueError, match="the peak of 'Toy GPU' in fp8 is not known"):
        peak_of("Toy GPU", "fp8")


def test_utilisation_takes_the_power_limit_while_busy() -> None:
    setup = Setup(OPTIONS, FleetOptions(), TOY_TABLE)
    run = simulate_fleet(toy_trace([0.0, 5.0]), Immediate(), setup)
    (replica,) = run.meta.replicas
    busy_j, with_idle_j = utilisation_energy_j(run, setup.pools)
    assert 0 < replica.busy_s < run.meta.makespan_s
    assert busy_j == pytest.approx(700 * replica.busy_s)
    assert with_idle_j == pytest.approx(busy_j + 120 * (run.meta.makespan_s - replica.busy_s))


SMALL = replace(toy_table(gpu="NVIDIA H200", idle_w=60.0), name="small", gpus=2, power_limit_w=300.0)
MIXED = Pools(
    (Pool("big", 1, OPTIONS, TOY_TABLE), Pool("small", 2, OPTIONS, SMALL)), "length-split:edges=500"
)


def test_each_pool_is_estimated_by_the_requests_that_it_served() -> None:
    trace = toy_trace(np.arange(8.0).tolist(), [100, 900, 200, 700, 50, 1500, 60, 3000], 20)
    run = simulate_fleet(trace, Immediate(), MIXED)
    parts = parts_of(trace, run, MIXED)
    assert [part.trace.prompt_tokens.tolist() for part in parts] == [
        [100, 200, 50, 60],
        [900, 700, 1500, 3000],
    ]
    for estimate in binned(parts, 2):
        rounding: Any = estimate.name.removeprefix("binned_")
        alone_j = [
            binned_estimate(part.trace, rounding, OPTIONS, part.pool.table, batch=2).energy_j
            for part in parts
        ]
        assert estimate.energy_j == pytest.approx(sum(alone_j))
    busy_s = [replica.busy_s for replica in run.meta.replicas]
    busy_j, with_idle_j = utilisation_energy_j(run, MIXED)
    assert busy_j == pytest.approx(700 * busy_s[0] + 600 * (busy_s[1] + busy_s[2]))
    idle_j = 120 * (run.meta.makespan_s - busy_s[0]) + 60 * (2 * run.meta.makespan_s - busy_s[1] - busy_s[2])
    assert with_idle_j == pytest.approx(busy_j + idle_j)


def test_a_pool_without_requests_takes_nothing_by_bins() -> None:
    trace = toy_trace([0.0, 1.0], [100, 200], 20)
    (part,) = parts_of(trace, simulate_fleet(trace, Immediate(), MIXED), MIXED)
    assert part.pool.name == "big"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The current folder, with a trace and two tables: of a known GPU and model, and of neither."""
    monkeypatch.chdir(tmp_path)
    write_trace(toy_trace([0.3 * row for row in range(20)], 100, 10), Path("toy.parquet"))
    known = toy_table(gpu="NVIDIA H200", engine={"model": "llama-3.1-8b", "dtype": "bfloat16"})
    for name, table in (("known", known), ("unknown", TOY_TABLE)):
        Path(name).mkdir()
        save_table(table, Path(name))


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["estimate", *arguments], prog_name="replay")


def found(*arguments: str) -> dict[str, Any]:
    result = invoke(*arguments, "--json")
    assert result.exit_code == 0, result.output
    values: dict[str, Any] = json.loads(result.stdout)
    return values


def test_each_estimate_has_its_ratio_to_the_replay() -> None:
    values = found("toy.parquet", "--table", "known")
    assert list(values["estimates"]) == [
        *("binned_ceiling", "binned_exact", "binned_floor", "flops_dense", "flops_sparse"),
        *("utilisation", "utilisation_idle"),
    ]
    for one in values["estimates"].values():
        assert one["to_replay"] == pytest.approx(one["energy_j"] / values["replay_energy_j"])
    dense, sparse = (values["estimates"][name]["energy_j"] for name in ("flops_dense", "flops_sparse"))
    assert dense / sparse == pytest.approx(1979 / 989)


def test_options_act_on_the_replay_and_on_the_batches() -> None:
    values = found(
        *("toy.parquet", "--table", "known", "--limit", "5", "--batch", "3", "--policy", "batch-window"),
        *("--set", "window_s=2", "--engine", "max_num_seqs=2"),
    )
    assert "B = 2;" in values["estimates"]["binned_exact"]["how"]
    assert values["estimates"]["utilisation"]["how"].startswith("a step runs 0.")


def test_the_text_fits_80_columns_and_says_that_a_table_is_assumed() -> None:
    arguments = ["estimate", "toy.parquet", "--table", "known"]
    result = CliRunner().invoke(main, arguments, env=PLAIN_TERMINAL)
    assert result.exit_code == 0, result.output
    assert max(len(line) for line in result.stdout.splitlines()) <= 80
    assert "table toy (assumed, not measured)" in result.stdout
    assert "not measured here" in " ".join(result.stdout.split())


def test_a_gpu_without_a_known_peak_gets_the_other_estimates_and_a_line_why() -> None:
    result = invoke("toy.parquet", "--table", "unknown")
    assert result.exit_code == 0
    assert "FLOPs" not in result.stdout
    assert "note: no estimate by FLOPs: the peak of 'Toy GPU'" in result.stderr


def test_a_model_without_a_config_gets_the_other_estimates_and_a_line_why() -> None:
    save_table(toy_table(gpu="NVIDIA H200", engine={"model": "mine", "dtype": "bfloat16"}), Path("unknown"))
    result = invoke("toy.parquet", "--table", "unknown")
    assert "'mine', whose config.json does not ship" in result.stderr


def write_fleet(*pools: str, router: str = "round-robin") -> None:
    Path("fleet.yaml").write_text(f"pools: [{', '.join(pools)}]\nrouter: {router}\n")


def test_a_fleet_of_equal_pools_takes_the_flops_of_one_engine() -> None:
    write_fleet("{name: a, table: known}", "{name: b, table: known, count: 3}")
    one, fleet = (found("toy.parquet", *words) for words in (("--table", "known"), ("--fleet", "fleet.yaml")))
    for kind in ("flops_dense", "flops_sparse"):
        each, whole = (values["estimates"][kind] for values in (one, fleet))
        assert whole["energy_j"] == pytest.approx(each["energy_j"])
        assert whole["how"].startswith("a ")
        assert "; b " in whole["how"]
    assert fleet["replay_energy_j"] > one["replay_energy_j"]
    assert fleet["estimates"]["utilisation"]["how"].endswith(", the mean of 4 engines")


def test_a_fleet_with_a_gpu_without_a_known_peak_gets_no_flops() -> None:
    write_fleet("{name: a, table: known}", "{name: b, table: unknown}")
    assert "flops_dense" not in found("toy.parquet", "--fleet", "fleet.yaml")["estimates"]


def test_a_fleet_whose_engines_share_requests_is_refused() -> None:
    write_fleet("{name: a, table: known, role: prefill}", "{name: b, table: known, role: decode}")
    with Path("fleet.yaml").open("a") as file:
        file.write("kv_transfer: {gigabytes_per_s: 50, latency_ms: 1}\n")
    result = invoke("toy.parquet", "--fleet", "fleet.yaml")
    assert result.exit_code == 2
    assert "estimates are of engines that serve requests whole, here several share them" in result.stderr


@pytest.mark.parametrize("words", [("--table", "known"), ("--engine", "max_num_seqs=2")])
def test_what_a_fleet_file_tells_is_not_given_beside_it(words: tuple[str, str]) -> None:
    write_fleet("{name: a, table: known}")
    result = invoke("toy.parquet", "--fleet", "fleet.yaml", *words)
    assert result.exit_code == 2
    assert " goes into the file that --fleet names; leave it out" in result.stderr
