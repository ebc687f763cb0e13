"""The fit, closed loop: windows that follow the model exactly, what the fit makes of them, and of others."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from invented_calibration import COEFFICIENTS, FACTS, HOST, IDLE_W, KNOT_SETS, KNOTS, calibration, held_out

from calibrate import fit as fitting
from calibrate import model
from calibrate.alike import FROM_NEXT_DECISION, SIZES, Alike
from calibrate.fit import Fit, errors_of, fit, padding
from calibrate.raw import RawPoint
from calibrate.table import errors_by_kind, make_table, read_residuals, write_residuals
from calibrate.timeline import energy_at, replay_steps
from calibrate.windows import Window, read_host, windows
from sim.host_time import HostTime
from sim.step_cost import Coefficients

FOUND_WITHIN = 0.003
HELD_OUT_WITHIN = 0.01


@pytest.fixture(scope="module")
def fitted() -> Iterator[Fit]:
    """Return the fit of the invented calibration, from the guess alone."""
    with pytest.MonkeyPatch.context() as patch:
        for name in KNOT_SETS:
            patch.setattr(model, name, KNOTS)
        patch.setattr(fitting, "RESTARTS", 0)
        yield fit(calibration(), FACTS, lambda _: None)


def modelled(c: Coefficients, h: HostTime, window: Window) -> tuple[float, float]:
    """Return seconds and joules of a window by the model."""
    replayed = replay_steps(c, h, window.steps)
    seconds = replayed.done_s[window.last] - replayed.done_s[window.first]
    ends_j = [energy_at(replayed, c.idle_w, step) for step in (window.first, window.last)]
    return float(seconds), ends_j[1] - ends_j[0]


def test_windows_of_invented_points_are_replayed_exactly_by_the_numbers_behind_them() -> None:
    for window in windows(calibration()):
        seconds, joules = modelled(COEFFICIENTS, HOST, window)
        assert seconds == pytest.approx(window.seconds, rel=1e-9), window.point.key
        assert joules == pytest.approx(window.joules, rel=1e-9), window.point.key


def test_steps_of_a_window_that_hold_alike_are_counted_once_and_from_what_came_before() -> None:
    (scan,) = (w for w in windows(calibration()) if w.point.kind == "scan" and w.point.batch)
    steps, done_s = scan.steps, scan.steps.done_s
    of_decode, *of_prompts = scan.alike
    decode = steps.chunks == 0
    quiet = [k for k in range(scan.first + 2, scan.last) if decode[k - 1 : k + 2].all()]
    assert of_decode.steps.tolist()[: len(quiet)] == quiet
    assert of_decode.seconds == pytest.approx(np.diff(done_s)[of_decode.steps - 1].sum())
    sizes = [group for group in of_prompts if not decode[group.steps].any()]
    counted = np.concatenate([group.steps for group in sizes])
    assert sorted(counted) == [k for k in range(scan.first + 2, scan.last + 1) if steps.chunks[k]]
    for group in sizes:
        assert group.seconds == pytest.approx((done_s[group.steps] - done_s[group.steps - 2]).sum())
        assert np.ptp(np.searchsorted(SIZES, steps.prefill_tokens[group.steps] + 8)) == 0
    launches = [group for group in of_prompts if decode[group.steps].all()]
    for size, launch in zip(sizes, launches, strict=True):
        assert launch.steps.tolist() == (size.steps - 1).tolist()
        waited_s = done_s[launch.steps] - steps.scheduled_s[launch.steps + 1]
        assert launch.seconds == pytest.approx(waited_s.sum())


def test_the_fit_replays_what_it_was_fitted_to(fitted: Fit) -> None:
    assert len(fitted.residuals) == len(calibration()) - 1  # the idle point has no steps
    for residual in fitted.residuals:
        assert residual.model_seconds == pytest.approx(residual.seconds, rel=FOUND_WITHIN), residual.key
        assert residual.model_joules == pytest.approx(residual.joules, rel=FOUND_WITHIN), residual.key
        if residual.kind == "trickle":
            assert residual.model_latency_s == pytest.approx(residual.latency_s, rel=FOUND_WITHIN)
        else:
            assert (residual.latency_s, residual.model_latency_s) == (None, None)


@pytest.mark.parametrize("raw", held_out(), ids=lambda raw: raw.point.key)
def test_the_fit_finds_loads_that_it_has_not_seen(fitted: Fit, raw: RawPoint) -> None:
    (window,) = windows([raw])
    seconds, joules = modelled(fitted.coefficients, fitted.host, window)
    assert seconds == pytest.approx(window.seconds, rel=HELD_OUT_WITHIN)
    assert joules == pytest.approx(window.joules, rel=HELD_OUT_WITHIN)


def test_the_fit_finds_the_numbers_that_the_windows_determine(fitted: Fit) -> None:
    found, true = fitted.coefficients, COEFFICIENTS
    assert found.idle_w == pytest.approx(IDLE_W)
    assert found.cap_w == pytest.approx(true.cap_w, rel=0.01)
    assert found.per_kv[0] == pytest.approx(true.per_kv[0], rel=0.01)
    assert found.per_kv[1] == pytest.approx(true.per_kv[1], rel=0.1)
    assert found.per_longest == pytest.approx(true.per_longest, rel=0.07)  # the prior is 12 % off
    assert found.most_alone == pytest.approx(true.most_alone, rel=0.03)
    assert found.beyond_mean == true.beyond_mean
    assert true.resting < found.resting < model.RESTING  # few batches are unequal: from the prior towards it
    for batch in (1, 32, 64, 96):  # a sequence's own work and its tokens' show together only
        of_found, of_true = (
            np.interp(batch, c.knots, c.linear_s) + batch * c.per_seq[0] for c in (found, true)
        )
        assert of_found == pytest.approx(of_true, rel=0.02)
    assert found.prompt_s == pytest.approx(true.prompt_s, rel=0.05)
    assert fitted.host.piecewise_s == pytest.approx(HOST.piecewise_s, rel=0.02)
    assert fitted.host.eager_s == pytest.approx(HOST.eager_s, rel=0.02)
    assert fitted.host.submit_s == pytest.approx(HOST.submit_s, rel=1e-6)
    assert fitted.host.submit_token_s == pytest.approx(HOST.submit_token_s, rel=1e-6)
    assert fitted.host.wake_s == pytest.approx(HOST.wake_s, rel=0.1)
    assert fitted.host.deliver_s == pytest.approx(HOST.deliver_s, rel=0.05)
    assert fitted.host.graph_tokens == HOST.graph_tokens
    assert found.padded.tolist() == true.padded.tolist()


def test_a_fit_goes_on_from_the_numbers_of_one_before(fitted: Fit, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in KNOT_SETS:
        monkeypatch.setattr(model, name, KNOTS)
    monkeypatch.setattr(fitting, "RESTARTS", 0)
    monkeypatch.setattr(fitting, "MOST_STEPS", 1)
    some = {name: value for name, value in fitted.parameters.items() if name != "busy_w"}
    stopped = fit(calibration(), FACTS, lambda _: None, {**some, "of_another_model": 1.0})
    for name, value in some.items():
        assert stopped.parameters[name] == pytest.approx(value, rel=1e-9), name
    guessed = fit(calibration(), FACTS, lambda _: None)
    assert stopped.parameters["busy_w"] == pytest.approx(guessed.parameters["busy_w"])
    assert stopped.parameters["busy_w"] != pytest.approx(fitted.parameters["busy_w"], rel=1e-3)


def test_steps_larger_than_any_graph_are_held_near_those_with_prompts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(model, "DECODE_SECOND_KNOTS", (1, 32, 96))
    monkeypatch.setattr(model, "DECODE_JOULE_KNOTS", (1, 32, 96))
    known = model.Known(IDLE_W, COEFFICIENTS.limits, padding([64]), read_host(calibration(), 64))
    guessed = model.guess_model(windows(calibration()), known, 670.0, 1, (), has_ascending=False)
    guess = guessed.build(np.log(guessed.guess))[0]
    for name, prompts in (("decode_s_96", guess.prompt_s), ("decode_j_96", guess.prompt_j)):
        like_prompts = float(np.interp(96, guess.prompt_knots, prompts))
        pulls = []
        for width in (0.1, np.inf):
            monkeypatch.setattr(model, "LIKE_PROMPTS", width)
            log_values = np.log(guessed.guess)
            near, far = log_values.copy(), log_values.copy()
            near[guessed.names.index(name)] = np.log(like_prompts)
            far[guessed.names.index(name)] = np.log(3.0 * like_prompts)
            pulls.append([np.square(guessed.prior_residuals(values)).sum() for values in (near, far)])
        (near_pull, far_pull), (near_free, far_free) = pulls
        assert far_pull - near_pull - (far_free - near_free) == pytest.approx((np.log(3.0) / 0.1) ** 2)


def test_steps_that_take_no_time_by_the_model_are_far_off_but_not_infinitely() -> None:
    trickle = next(w for w in windows(calibration()) if w.point.kind == "trickle")
    waited = np.flatnonzero(trickle.steps.scheduled_s[1:] > trickle.steps.done_s[:-1])[:1]
    before_idle = Alike(waited, np.array([FROM_NEXT_DECISION]), 1e-3)  # its output waits for no launch
    *_, error = errors_of(COEFFICIENTS, HOST, replace(trickle, alike=(before_idle,)))
    assert -np.inf < error < -50


def test_unequal_batches_of_an_ascending_session_pay_more_for_the_longest_context() -> None:
    points = calibration()
    measured = windows(points)
    known = model.Known(IDLE_W, COEFFICIENTS.limits, padding([]), read_host(points, 0))
    guessed = model.guess_model(measured, known, 670.0, 1, (), has_ascending=True)
    log_values = np.log(guessed.guess)
    usual = guessed.build(log_values)[0]
    numbers_of = fitting.Sessions({}, (0,)).numbers(guessed, log_values)
    dearer = {w.point.key for w in measured if numbers_of(w)[0].per_longest > usual.per_longest}
    assert dearer == {w.point.key for w in measured if w.point.is_unequal} != set()
    (scan,) = (w for w in measured if w.point.kind == "scan" and w.point.batch)
    assert numbers_of(scan)[0].per_longest == pytest.approx(model.ASCENDING * usual.per_longest)
    shuffled = fitting.Sessions({}, (1,)).numbers(guessed, log_values)
    assert all(shuffled(window)[0].per_longest == usual.per_longest for window in measured)


def test_the_limits_are_the_largest_of_what_was_measured_and_somewhat_more_kv(fitted: Fit) -> None:
    raws = [raw for raw in calibration() if len(raw.steps["done_s"])]
    tokens, seqs, kv_tokens, pairs = fitted.coefficients.limits
    for limit, column in ((tokens, "prefill_tokens"), (seqs, "decode_seqs"), (pairs, "prefill_pairs")):
        assert limit == max(raw.steps[column].max() for raw in raws)
    assert 1 <= kv_tokens / max(raw.steps["kv_tokens"].max() for raw in raws) < 1.5


def test_residuals_survive_the_disk_and_are_summed_up_by_kind(fitted: Fit, tmp_path: Path) -> None:
    write_residuals(fitted.residuals, tmp_path / "residuals.parquet")
    read = read_residuals(tmp_path / "residuals.parquet")
    assert tuple(read) == fitted.residuals
    errors = errors_by_kind(fitted.residuals)
    assert {kind: summed["windows"] for kind, summed in errors.items()} == {
        "burst": 2, "decode": 8, "mixed": 10, "prefill": 9, "scan": 2, "trickle": 4,
    }  # fmt: skip
    doubled = tuple(replace(residual, model_joules=1.02 * residual.joules) for residual in fitted.residuals)
    assert errors_by_kind(doubled)["decode"]["joules_rms"] == pytest.approx(0.02)
    assert errors_by_kind(doubled)["decode"]["joules_mean"] == pytest.approx(0.02)


def test_a_table_says_where_it_comes_from(fitted: Fit, tmp_path: Path) -> None:
    points = tmp_path / "points.parquet"
    points.write_bytes(b"points")
    table = make_table("invented", fitted, FACTS, points)
    assert table.source == "measured"
    assert table.measured_on == (
        "1 x Invented, driver 1.0, vLLM 0.0, invented bfloat16, random weights, 2026-01-01"
    )
    assert (table.power_limit_w, table.bare_idle_w) == (670.0, 70.0)
    assert table.meta["points_sha256"] == "c54a061dfcc125cb160421b2680feaf6d65d938d756d887fe4d8d1d046eb626e"
    assert set(table.meta["errors"]) == {residual.kind for residual in fitted.residuals}


@pytest.mark.parametrize("kind", ["idle", "decode", "prefill", "trickle"])
def test_a_kind_of_point_that_is_missing_is_named(kind: str) -> None:
    points = [raw for raw in calibration() if raw.point.kind != kind]
    with pytest.raises(ValueError, match=f"no {kind} point is there; a fit needs one: let calibrate finish"):
        fit(points, FACTS, lambda _: None)


def test_an_engine_without_async_scheduling_is_refused() -> None:
    def wait_for_each(raw: RawPoint) -> RawPoint:
        done_s = raw.steps["done_s"]
        before_s = np.concatenate([[-1.0], done_s[:-1]])[: len(done_s)]
        scheduled_s = np.maximum(raw.steps["scheduled_s"], before_s + 1e-5)
        return replace(raw, steps={**raw.steps, "scheduled_s": scheduled_s})

    with pytest.raises(ValueError, match="a fit needs async scheduling"):
        fit([wait_for_each(raw) for raw in calibration()], FACTS, lambda _: None)


def test_a_counter_that_power_contradicts_is_refused() -> None:
    points = [replace(raw, power=raw.power * [1.0, 1.05]) for raw in calibration()]
    with pytest.raises(ValueError, match=r"over all points the counter says .* must agree within 3 %"):
        fit(points, FACTS, lambda _: None)


def test_points_at_which_the_gpu_throttled_are_left_out_and_that_is_said() -> None:
    said: list[str] = []
    idle, *others = calibration()
    hot = [replace(raw, throttle_reasons=0x20 | 0x4) for raw in others]
    with pytest.raises(ValueError, match="no decode point is there"):
        fit([idle, *hot], FACTS, said.append)
    assert said == [f"{len(hot)} of {len(hot) + 1} points are left out: the GPU throttled"]


def test_a_step_is_padded_to_the_next_graph() -> None:
    assert padding([4, 1, 2]).tolist() == [1, 1, 2, 4, 4]
    assert padding([]).tolist() == [0]
