"""Traces drawn from statistics have the shape of the trace described, and none of its rows."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import traces
from traces.comparison import compare, ks_distance
from traces.describe import describe
from traces.info import gap_cv, per_second
from traces.quantiles import QuantileTable, spaced, tabulate
from traces.reading import read_trace
from traces.shape import OnOffArrivals, ProfileArrivals, Shape, read_shape, shipped_shapes, write_shape
from traces.synthesize import synthesize
from traces.trace import Trace

PACKAGE = Path(str(traces.__file__)).parent
SHARED = Path(__file__).parents[2] / "shared" / "traces"
REAL = {"chat": "AzureLLMInferenceTrace_conv.csv", "code": "AzureLLMInferenceTrace_code.csv"}
needs_real = pytest.mark.skipif(not SHARED.is_dir(), reason="the real traces are not beside the checkout")


def assert_like(drawn: Trace, real: Trace) -> None:
    """The shape that the project promises of its synthetic traces."""
    likeness = compare(drawn, real)
    assert likeness.input_ks <= 0.03
    assert likeness.output_ks <= 0.03
    assert likeness.rate_ratio == pytest.approx(1, abs=0.02)
    assert likeness.gap_cv_ratio == pytest.approx(1, abs=0.15)
    assert likeness.per_second_p99_ratio == pytest.approx(1, abs=0.15)


@needs_real
@pytest.mark.parametrize("name", ["chat", "code"])
def test_the_shipped_traces_are_shaped_like_azure_2023(name: str) -> None:
    shipped, real = read_trace(PACKAGE / f"{name}.parquet"), read_trace(SHARED / REAL[name])
    assert_like(shipped, real)
    likeness = compare(shipped, real)
    assert likeness.rank_correlation_difference == pytest.approx(0, abs=0.02)
    assert likeness.empty_second_difference == pytest.approx(0, abs=0.02)


@needs_real
@pytest.mark.parametrize("name", ["chat", "code"])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_other_seeds_hold_the_shape_too(name: str, seed: int) -> None:
    shape, sha256 = read_shape(name)
    assert_like(synthesize(shape, sha256, seed=seed), read_trace(SHARED / REAL[name]))


@needs_real
@pytest.mark.parametrize("name", ["chat", "code"])
def test_the_shipped_statistics_are_those_that_describe_makes(name: str, tmp_path: Path) -> None:
    write_shape(describe(read_trace(SHARED / REAL[name]), name=name), tmp_path / "made.json")
    assert read_shape(str(tmp_path / "made.json"))[0] == read_shape(name)[0]


@needs_real
@pytest.mark.parametrize("name", ["chat", "code"])
def test_no_recorded_row_is_in_a_shipped_trace(name: str) -> None:
    def rows(trace: Trace) -> set[tuple[float, int, int]]:
        return set(
            zip(
                trace.arrival_s.tolist(),
                trace.prompt_tokens.tolist(),
                trace.output_tokens.tolist(),
                strict=True,
            )
        )

    shipped, real = read_trace(PACKAGE / f"{name}.parquet"), read_trace(SHARED / REAL[name])
    assert not rows(shipped) & rows(real)


@pytest.mark.parametrize(("name", "requests", "empty"), [("chat", 19_366, 0.009), ("code", 8_819, 0.734)])
def test_the_shipped_traces_say_that_they_are_synthetic(name: str, requests: int, empty: float) -> None:
    trace = read_trace(PACKAGE / f"{name}.parquet")
    assert trace.synthetic
    assert trace.source.startswith(
        "synthetic, drawn with seed 0 from statistics of: Azure LLM inference trace 2023"
    )
    assert trace.sha256 == read_shape(name)[1]
    assert trace.licence == "CC-BY-4.0"
    assert len(trace) == requests
    assert trace.arrival_s[-1] == pytest.approx(3_460, abs=60)
    counts = np.bincount(trace.arrival_s.astype(int))
    assert np.mean(counts == 0) == pytest.approx(empty, abs=0.003)


@pytest.mark.parametrize("name", ["chat", "code"])
def test_a_shipped_trace_is_what_its_statistics_give(name: str) -> None:
    shape, sha256 = read_shape(name)
    likeness = compare(synthesize(shape, sha256, seed=0), read_trace(PACKAGE / f"{name}.parquet"))
    # Equal with the NumPy that drew it; another may draw another sample of the same shape.
    assert likeness.input_ks <= 0.02
    assert likeness.output_ks <= 0.02
    assert likeness.rate_ratio == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("name", ["chat", "code"])
def test_a_seed_gives_one_trace_and_another_seed_another(name: str) -> None:
    shape, sha256 = read_shape(name)
    one, same, other = (synthesize(shape, sha256, seed=seed, duration_s=600) for seed in (5, 5, 6))
    assert np.array_equal(one.arrival_s, same.arrival_s)
    assert np.array_equal(one.prompt_tokens, same.prompt_tokens)
    assert not np.array_equal(one.arrival_s, other.arrival_s)


@settings(deadline=None, max_examples=40)
@given(name=st.sampled_from(["chat", "code"]), seed=st.integers(0, 2**32), duration_s=st.floats(200, 20_000))
def test_any_duration_gives_a_valid_trace_of_the_right_rate(name: str, seed: int, duration_s: float) -> None:
    shape, sha256 = read_shape(name)
    trace = synthesize(shape, sha256, seed=seed, duration_s=duration_s)
    assert len(trace) == round(shape.rate_per_s * duration_s)
    assert (np.diff(trace.arrival_s) >= 0).all()
    assert trace.arrival_s[0] >= 0
    assert trace.arrival_s[-1] <= duration_s + 1
    assert trace.prompt_tokens.min() >= 1
    assert trace.output_tokens.min() >= 1
    assert trace.prompt_tokens.max() <= shape.prompt_tokens.value[-1]


def made_up(rng: np.random.Generator, arrival_s: np.ndarray[tuple[int], np.dtype[np.float64]]) -> Trace:
    """Requests whose long inputs have short outputs."""
    inputs = rng.lognormal(6, 1, len(arrival_s)).astype(np.int32) + 1
    outputs = (200_000 / (inputs + 500) * rng.uniform(0.8, 1.2, len(arrival_s))).astype(np.int32) + 1
    return Trace("made-up", "invented", "none", "0" * 64, np.sort(arrival_s), inputs, outputs)


def test_a_steady_trace_is_described_by_its_rate_and_a_bursty_one_by_its_bursts() -> None:
    rng = np.random.default_rng(0)
    steady = made_up(rng, rng.uniform(0, 1800, 20_000))
    bursts = np.repeat(rng.uniform(0, 1800, 100), 40) + rng.uniform(0, 3, 4000)
    bursty = made_up(rng, bursts - bursts.min())
    assert isinstance(describe(steady).arrivals, ProfileArrivals)
    assert isinstance(describe(bursty).arrivals, OnOffArrivals)
    assert isinstance(describe(bursty, arrivals="profile").arrivals, ProfileArrivals)
    for trace in (steady, bursty):
        drawn = synthesize(describe(trace), "0" * 64, seed=1)
        assert_like(drawn, trace)
        likeness = compare(drawn, trace)
        assert likeness.rank_correlation_difference == pytest.approx(0, abs=0.05)


def test_a_rate_that_rises_is_drawn_rising() -> None:
    rng = np.random.default_rng(0)
    trace = made_up(rng, 3600 * np.sqrt(rng.random(10_000)))
    drawn = synthesize(describe(trace), "0" * 64, seed=1)
    halves = [np.mean(one.arrival_s < 1800) for one in (trace, drawn)]
    assert halves == pytest.approx([0.25, 0.25], abs=0.02)


def test_small_traces_are_not_described() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="has 999 requests; statistics without rows need 1,000"):
        describe(made_up(rng, rng.uniform(0, 100, 999)))


def test_a_trace_without_pauses_has_no_on_off_statistics() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match=r"1 bursts with 0 pauses between; .* use --arrivals profile"):
        describe(made_up(rng, rng.uniform(0, 100, 5000)), arrivals="on-off")


@pytest.mark.parametrize("duration_s", [0.0, -1.0, float("nan"), float("inf")])
def test_a_duration_that_makes_no_sense_is_refused(duration_s: float) -> None:
    shape, sha256 = read_shape("chat")
    with pytest.raises(ValueError, match="duration must be > 0 seconds, got"):
        synthesize(shape, sha256, duration_s=duration_s)


def test_a_duration_too_short_for_a_request_or_a_burst_is_refused() -> None:
    chat, sha256 = read_shape("chat")
    with pytest.raises(ValueError, match="makes no request; give at least"):
        synthesize(chat, sha256, duration_s=0.01)
    code, sha256 = read_shape("code")
    with pytest.raises(ValueError, match="holds 0 bursts; give at least 57 seconds"):
        synthesize(code, sha256, duration_s=5)


@given(st.lists(st.integers(0, 10_000), min_size=10, max_size=2_000))
def test_a_quantile_table_is_close_and_coarser_than_its_values(values: list[int]) -> None:
    table = tabulate(np.array(values))
    assert len(table.value) <= min(200, len(values) // 5 + 2)
    assert table.value[0] == min(values)
    assert table.value[-1] == max(values)
    drawn = table.at((np.arange(20_000) + 0.5) / 20_000)
    steps = np.diff(table.probability).max()
    below = np.searchsorted(np.sort(values), drawn, side="left") / len(values)
    upto = np.searchsorted(np.sort(values), drawn, side="right") / len(values)
    at = (np.arange(20_000) + 0.5) / 20_000
    assert (below <= at + steps + 1 / len(values)).all()
    assert (upto >= at - steps - 1 / len(values)).all()


@given(st.integers(0, 500), st.integers(0, 2**32))
def test_spaced_probabilities_fall_one_in_each_step(count: int, seed: int) -> None:
    drawn = np.sort(spaced(np.random.default_rng(seed), count))
    assert np.array_equal(np.floor(drawn * count), np.arange(count))


def test_a_table_that_falls_is_refused() -> None:
    with pytest.raises(ValueError, match="never fall"):
        QuantileTable((0.0, 0.5, 1.0), (1.0, 3.0, 2.0))
    with pytest.raises(ValueError, match="from 0 to 1"):
        QuantileTable((0.1, 1.0), (1.0, 3.0))
    with pytest.raises(ValueError, match="as many values"):
        QuantileTable((0.0, 1.0), (1.0,))


@pytest.mark.parametrize("name", ["chat", "code"])
def test_statistics_survive_their_file(name: str, tmp_path: Path) -> None:
    shape, _ = read_shape(name)
    write_shape(shape, tmp_path / "again.json")
    assert read_shape(str(tmp_path / "again.json"))[0] == shape
    assert (tmp_path / "again.json").read_bytes() == shipped_shapes()[name].read_bytes()


def test_bad_statistics_are_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "s.json"
    whole = json.loads(shipped_shapes()["chat"].read_text())
    for change in ({"format": 9}, {"rate_per_s": 0}, {"arrivals": {"model": "magic"}}, {"surprise": 1}):
        path.write_text(json.dumps({**whole, **change}))
        with pytest.raises(ValueError, match="no trace statistics, make them with") as caught:
            read_shape(str(path))
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="neither a file nor one of chat, code"):
        read_shape("chatt")


def test_equal_traces_have_no_distance() -> None:
    rng = np.random.default_rng(0)
    trace = made_up(rng, rng.uniform(0, 100, 500))
    values = asdict(compare(trace, trace))
    assert {value for name, value in values.items() if name.endswith("ratio")} == {1.0}
    assert {value for name, value in values.items() if not name.endswith("ratio")} == {0.0}
    twice = compare(
        replace(trace, arrival_s=trace.arrival_s * 2, prompt_tokens=trace.prompt_tokens * 2), trace
    )
    assert twice.rate_ratio == pytest.approx(0.5)
    assert twice.input_mean_ratio == pytest.approx(2.0)
    assert twice.gap_cv_ratio == pytest.approx(1.0)


def test_the_ks_distance_is_the_largest_gap_between_distributions() -> None:
    assert ks_distance(np.array([1, 2, 3, 4]), np.array([1, 2, 3, 4])) == 0.0
    assert ks_distance(np.array([1, 2]), np.array([3, 4])) == 1.0
    assert ks_distance(np.array([1, 2, 3, 4]), np.array([3, 4, 5, 6])) == 0.5


@given(st.lists(st.floats(0, 50), min_size=1, max_size=100))
def test_requests_a_second_count_empty_seconds(arrivals: list[float]) -> None:
    arrival_s = np.sort(arrivals)
    counts = np.bincount((np.floor(arrival_s) - np.floor(arrival_s[0])).astype(int))
    expected = np.quantile(counts, [0, 0.1, 0.5, 0.99, 1])
    np.testing.assert_allclose(per_second(arrival_s, (0, 0.1, 0.5, 0.99, 1)), expected, atol=1e-12)


def test_the_gap_cv_of_a_clock_is_0_and_of_one_request_none() -> None:
    assert gap_cv(np.arange(5.0)) == 0.0
    assert gap_cv(np.array([1.0])) is None


def test_a_shape_without_a_rate_is_refused() -> None:
    shape: Shape = read_shape("chat")[0]
    with pytest.raises(ValueError, match="must be > 0"):
        replace(shape, rate_per_s=0.0)
