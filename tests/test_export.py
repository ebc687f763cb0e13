"""`replay export`: what other tools read out of a run is what the run says."""

import importlib
import inspect
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result
from toy_run import toy_run

from replay import export_otel, export_prometheus
from replay.export_bench import bench_result
from replay.export_otel import otlp_metrics
from replay.export_prometheus import prometheus_text
from replay.histogram import histogram
from replay.main import main
from traces.record import Run
from traces.record_files import write_run

NEEDS_VLLM = pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed")
VLLM_WARNS = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # importing it does
NEEDS_PROMETHEUS = pytest.mark.skipif(
    find_spec("prometheus_client") is None, reason="prometheus_client is not installed"
)


def export(run: Run, folder: Path, *arguments: str) -> Result:
    write_run(run, folder / "run")
    return CliRunner().invoke(main, ["export", str(folder / "run"), *arguments], prog_name="replay")


def samples(run: Run) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """What Prometheus' own parser reads, by name and labels other than the model's name."""
    from prometheus_client.parser import text_string_to_metric_families

    return {
        (sample.name, frozenset((key, text) for key, text in sample.labels.items() if key != "model_name")): (
            sample.value
        )
        for family in text_string_to_metric_families(prometheus_text(run))
        for sample in family.samples
    }


def of(name: str, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    return name, frozenset(labels.items())


def test_a_value_on_a_bound_belongs_to_the_bucket_that_it_ends() -> None:
    counted = histogram(np.array([0.5, 1.0, 1.5, 2.0, 9.0]), (1.0, 2.0))
    assert (counted.counts, counted.count, counted.total) == ((2, 2, 1), 5, 14.0)


def test_vllms_benchmark_has_the_counts_and_throughputs_of_the_served_requests() -> None:
    result = bench_result(toy_run())
    told = ("duration", "completed", "failed", "total_input_tokens", "total_output_tokens")
    assert [result[name] for name in told] == [10.0, 3, 1, 70, 14]
    rates = ("request_throughput", "output_throughput", "total_token_throughput")
    assert [result[name] for name in rates] == [0.3, 1.4, 8.4]
    assert result["max_concurrent_requests"] == 3


def test_vllms_benchmark_has_latencies_from_the_arrival_in_milliseconds() -> None:
    result = bench_result(toy_run())
    assert result["mean_ttft_ms"] == pytest.approx(3250 / 3)
    assert (result["median_ttft_ms"], result["p90_ttft_ms"]) == (1000.0, pytest.approx(1800.0))
    assert (result["mean_tpot_ms"], result["p99_tpot_ms"]) == (750.0, pytest.approx(995.0))
    assert (result["median_e2el_ms"], result["std_tpot_ms"]) == (3000.0, 250.0)
    assert not [name for name in result if "itl_" in name]


def test_vllms_benchmark_tells_each_request_as_vllm_does_and_leaves_out_what_is_not_known() -> None:
    result = bench_result(toy_run())
    assert result["ttfts"] == [1.0, 2.0, 0.0, 0.25]
    assert result["latencies"] == [3.0, 9.0, 0.0, 0.25]
    assert result["start_times"] == [0.0, 1.0, 2.0, 3.0]
    assert result["output_lens"] == [5, 8, 0, 1]
    assert result["errors"] == ["", "", "failed", ""]
    for name in ("itls", "generated_texts", "max_output_tokens_per_s", "model_id", "request_rate"):
        assert result[name] is None
    assert result["replay"]["total_energy_j"] == 2400.0


def test_a_latency_that_no_request_has_is_null(tmp_path: Path) -> None:
    result = export(toy_run(output_tokens=[1, 1, 0, 1]), tmp_path, "--format", "vllm-bench")
    assert json.loads(result.stdout)["mean_tpot_ms"] is None


@pytest.mark.vllm
@NEEDS_VLLM
@VLLM_WARNS
def test_vllm_itself_computes_the_same_statistics_from_the_requests() -> None:
    serve: Any = importlib.import_module("vllm.benchmarks.serve")
    calls: Any = importlib.import_module("vllm.benchmarks.lib.endpoint_request_func")
    result = bench_result(toy_run())
    outputs = [
        calls.RequestFuncOutput(
            success=not error,
            latency=latency_s,
            output_tokens=output_tokens,
            ttft=ttft_s,
            prompt_len=prompt_tokens,
            error=error,
            start_time=start_s,
        )
        for error, latency_s, output_tokens, ttft_s, prompt_tokens, start_s in zip(
            *(result[name] for name in ("errors", "latencies", "output_lens", "ttfts")),
            *(result[name] for name in ("input_lens", "start_times")),
            strict=True,
        )
    ]
    theirs, lengths = serve.calculate_metrics([], outputs, result["duration"], None, [90, 99], {})
    assert lengths == result["output_lens"]
    same = {"total_input_tokens": theirs.total_input, "total_output_tokens": theirs.total_output}
    for name in ("completed", "failed", "request_throughput", "output_throughput", "total_token_throughput"):
        same[name] = getattr(theirs, name)
    for name in ("max_concurrent_requests", "rtfx"):
        same[name] = getattr(theirs, name)
    for latency in ("ttft", "tpot", "e2el"):
        for statistic in ("mean", "median", "std"):
            name = f"{statistic}_{latency}_ms"
            same[name] = getattr(theirs, name)
        for percentile, value in getattr(theirs, f"percentiles_{latency}_ms"):
            same[f"p{percentile}_{latency}_ms"] = value
    assert {name: result[name] for name in same} == pytest.approx(same)


@NEEDS_PROMETHEUS
def test_prometheus_reads_cumulative_buckets_counts_and_sums() -> None:
    read = samples(toy_run())
    name = "vllm:time_to_first_token_seconds"
    counts = [read[of(f"{name}_bucket", engine="0", le=le)] for le in ("0.1", "0.25", "1.0", "2.5", "+Inf")]
    assert counts == [0, 1, 2, 3, 3]
    assert (read[of(f"{name}_count", engine="0")], read[of(f"{name}_sum", engine="0")]) == (3, 3.25)
    assert read[of("vllm:e2e_request_latency_seconds_sum", engine="0")] == 12.25
    assert read[of("vllm:request_time_per_output_token_seconds_count", engine="0")] == 2
    assert read[of("vllm:request_generation_tokens_bucket", engine="0", le="5.0")] == 2
    assert read[of("vllm:prompt_tokens_total", engine="0")] == 70
    assert read[of("replay_request_held_seconds_sum", engine="0")] == 0.5
    statuses = ("served", "failed", "unfinished")
    assert [read[of("replay_requests_total", engine="0", status=one)] for one in statuses] == [3, 1, 0]


@NEEDS_PROMETHEUS
def test_prometheus_reads_joules_by_part_or_in_one_or_none() -> None:
    name = "replay_energy_joules_total"
    read = samples(toy_run())
    assert [read[of(name, part=part)] for part in ("prefill", "decode", "idle")] == [500, 1500, 400]
    unsplit = samples(toy_run(energy=None))
    assert [key for key in unsplit if key[0] == name] == [of(name, part="unsplit")]
    assert unsplit[of(name, part="unsplit")] == 2400
    unknown = samples(toy_run(energy=None, counter_j=[], counter_s=[]))
    assert not [key for key in unknown if key[0] == name]


@NEEDS_PROMETHEUS
def test_each_replica_is_an_engine_of_its_own() -> None:
    from dataclasses import replace

    run = toy_run(engine_options={"replicas": 3})
    apart = replace(run, outcomes=replace(run.outcomes, replica=np.array([0, 2, 0, 2], np.int32)))
    name = "vllm:prompt_tokens_total"
    assert [samples(apart)[of(name, engine=engine)] for engine in "012"] == [10, 0, 60]
    assert samples(run)[of(name, engine="all")] == 70


@pytest.mark.vllm
@NEEDS_VLLM
@VLLM_WARNS
def test_names_and_buckets_are_vllms() -> None:
    buckets: Any = importlib.import_module("vllm.v1.metrics.buckets")
    assert buckets.TIME_TO_FIRST_TOKEN_BUCKETS == export_prometheus.TTFT_S
    assert buckets.INTER_TOKEN_LATENCY_BUCKETS == export_prometheus.TPOT_S
    assert buckets.REQUEST_LATENCY_BUCKETS == export_prometheus.LATENCY_S
    read = samples(toy_run(engine_options={"max_model_len": 131072}))
    name = "vllm:request_prompt_tokens_bucket"
    ends = [dict(labels)["le"] for one, labels in read if one == name]
    assert ends == [*map(str, map(float, buckets.build_1_2_5_buckets(131072))), "+Inf"]
    theirs = inspect.getsource(importlib.import_module("vllm.v1.metrics.loggers"))
    families = {
        one.removesuffix("_total").removesuffix("_count") for one, _ in read if one.startswith("vllm:")
    }
    families = {one for one in families if not one.endswith(("_bucket", "_sum"))}
    assert len(families) == 7
    assert [one for one in families if f'name="{one}"' not in theirs] == []


def test_opentelemetry_gets_every_value_once_with_its_unit() -> None:
    (scope,) = otlp_metrics(toy_run())["resourceMetrics"][0]["scopeMetrics"]
    told = {metric["name"]: metric for metric in scope["metrics"]}
    units = {name: metric["unit"] for name, metric in told.items()}
    assert units == {
        "gen_ai.server.request.duration": "s",
        "gen_ai.server.time_to_first_token": "s",
        "gen_ai.server.time_per_output_token": "s",
        "gen_ai.client.token.usage": "{token}",
        "replay.energy": "J",
    }
    (point,) = told["gen_ai.server.time_to_first_token"]["histogram"]["dataPoints"]
    assert (point["count"], point["sum"]) == ("3", 3.25)
    assert len(point["bucketCounts"]) == len(point["explicitBounds"]) + 1
    assert sum(map(int, point["bucketCounts"])) == 3
    prompts, outputs = told["gen_ai.client.token.usage"]["histogram"]["dataPoints"]
    assert (prompts["sum"], outputs["sum"]) == (70, 14)
    assert [one["asDouble"] for one in told["replay.energy"]["sum"]["dataPoints"]] == [500, 1500, 400]
    assert int(point["timeUnixNano"]) - int(point["startTimeUnixNano"]) == 10_000_000_000


def test_opentelemetry_gets_no_energy_where_none_is_known() -> None:
    (scope,) = otlp_metrics(toy_run(energy=None, counter_j=[], counter_s=[]))["resourceMetrics"][0][
        "scopeMetrics"
    ]
    assert "replay.energy" not in [metric["name"] for metric in scope["metrics"]]


def test_opentelemetrys_own_protocol_reads_all_of_it() -> None:
    messages: Any = pytest.importorskip("opentelemetry.proto.metrics.v1.metrics_pb2")
    json_format: Any = importlib.import_module("google.protobuf.json_format")
    written = otlp_metrics(toy_run(versions={"replay": "0.1.0"}))
    read = json_format.Parse(json.dumps(written), messages.MetricsData())
    again = json_format.MessageToDict(read, use_integers_for_enums=True)
    assert again == json.loads(json.dumps(written))
    metric = read.resource_metrics[0].scope_metrics[0].metrics[0]
    assert list(metric.histogram.data_points[0].explicit_bounds) == list(export_otel.DURATION_S)


@NEEDS_PROMETHEUS
@pytest.mark.parametrize("form", ["vllm-bench", "prometheus", "otel"])
def test_a_file_holds_what_standard_output_would(form: str, tmp_path: Path) -> None:
    printed = export(toy_run(), tmp_path, "--format", form)
    assert printed.exit_code == 0, printed.output
    arguments = ["export", str(tmp_path / "run"), "--format", form, "--out", str(tmp_path / "file")]
    assert CliRunner().invoke(main, arguments, prog_name="replay").exit_code == 0
    assert (tmp_path / "file").read_text() == printed.stdout
    refused = CliRunner().invoke(main, arguments, prog_name="replay")
    assert refused.exit_code == 2
    assert "exists already; choose another name or give --overwrite" in refused.stderr


def test_an_invalid_run_is_exported_with_a_warning_and_says_so(tmp_path: Path) -> None:
    run = toy_run(energy_valid=False, invalid_reasons=("guard 5: less than idling",))
    result = export(run, tmp_path, "--format", "vllm-bench")
    assert result.stderr == "warning: the run is not valid: guard 5: less than idling\n"
    assert json.loads(result.stdout)["replay"]["energy_valid"] is False


@pytest.mark.parametrize("name", ["export", "import"])
def test_every_option_is_on_the_page(name: str) -> None:
    page = (Path(__file__).parents[1] / "docs" / "export.md").read_text()
    command = main.get_command(click.Context(main), name)
    assert command is not None
    commands = [command]
    if isinstance(command, click.Group):
        commands = list(command.commands.values())
        assert all(f"`replay {name} {one}`" in page for one in command.commands)
    options = [
        text for one in commands for parameter in one.params for text in parameter.opts if text[0] == "-"
    ]
    assert options
    assert [option for option in options if option not in page] == []
