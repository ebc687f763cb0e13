"""A table adapted to a card: the factors behind invented points are found, and other engines refused."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from invented_calibration import COEFFICIENTS, FACTS, HOST, IDLE_W, calibration
from toy_table import TOY_TABLE

from calibrate.adapt import adapt
from calibrate.card import Factors, on_card
from calibrate.fit import Residual, spread_of
from calibrate.raw import append
from replay.main import main
from sim.step_cost import gap_energy, new_state, step_cost
from sim.table import CostTable, PowerState
from sim.table_files import load_table, save_table

MEAN = replace(
    TOY_TABLE,
    name="mean",
    source="measured",
    gpu="Invented",
    power_limit_w=670.0,
    coefficients=COEFFICIENTS._replace(idle_w=IDLE_W + 4.0),
    host=HOST,
    engine={**FACTS["engine"]},
)
CARD = Factors(fixed=1.07, scaled=0.96, pace=1.02, host=1.12, piecewise=1.2, eager=1.3)


def test_the_factors_of_a_card_are_found() -> None:
    said: list[str] = []
    fitted = adapt(calibration(*on_card(COEFFICIENTS, HOST, CARD)), FACTS, MEAN, said.append)
    found = Factors(**fitted.parameters)
    assert found == pytest.approx(CARD, rel=0.01)
    assert fitted.coefficients.idle_w == pytest.approx(IDLE_W)
    assert max(fitted.spread.values()) < 0.005
    assert [line.split() for line in said] == [
        [name, f"{100 * (factor - 1):+.1f}", "%", "on", "the", "table's"]
        for name, factor in found._asdict().items()
    ]


def test_a_card_like_the_mean_card_changes_nothing() -> None:
    fitted = adapt(calibration(), FACTS, MEAN, lambda _: None)
    assert Factors(**fitted.parameters) == pytest.approx(Factors(), abs=1e-3)


def test_the_factors_are_those_of_fixed_and_of_scaled_joules() -> None:
    free = COEFFICIENTS._replace(cap_w=np.inf, busy_w=0.0)
    decode, prefill = (0, 0, 0.0, 1, 4000, 4000), (1, 2048, 2e6, 0, 0, 0)
    dear, _ = on_card(free, HOST, Factors(fixed=1.5))
    assert joules(dear, *decode) == pytest.approx(1.5 * joules(free, *decode))
    dear, _ = on_card(free, HOST, Factors(scaled=1.5))
    assert joules(dear, *decode) == pytest.approx(joules(free, *decode))
    fixed_j = free.linear_j[0] + free.per_chunk[1]
    scaled_j = joules(free, *prefill) - fixed_j
    assert joules(dear, *prefill) == pytest.approx(fixed_j + 1.5 * scaled_j)
    assert gap_energy(dear, new_state(), 1.0) == gap_energy(free, new_state(), 1.0)


def joules(c: Any, *load: Any) -> float:
    _, prefill_j, decode_j, _, _ = step_cost(c, new_state(), *load)
    return prefill_j + decode_j


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"gpu": {**FACTS["gpu"], "name": "Another"}}, "gpu is Another here, Invented in table mean"),
        ({"engine": {**FACTS["engine"], "quantization": "fp8"}}, "quantization is fp8 here, None in table"),
        ({"gpu": {**FACTS["gpu"], "gpus": 2}}, "gpus is 2 here, 1 in table mean; adapt a table of the same"),
    ],
)
def test_a_table_of_another_engine_is_refused(facts: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        adapt(calibration(), {**FACTS, **facts}, MEAN, lambda _: None)


def test_points_without_work_are_refused() -> None:
    idle, *_ = calibration()
    with pytest.raises(ValueError, match="no point with work is there"):
        adapt([idle], FACTS, MEAN, lambda _: None)


def test_the_command_adapts_a_table(tmp_path: Path) -> None:
    for folder in ("mean", "mine"):
        (tmp_path / folder).mkdir()
    asleep = PowerState(power_w=IDLE_W + 3.0, enter_s=12.0, enter_j=1500.0, leave_s=10.0, leave_j=1200.0)
    save_table(replace(MEAN, states={"sleep-1": asleep}), tmp_path / "mean")
    for raw in calibration(*on_card(COEFFICIENTS, HOST, CARD)):
        append(tmp_path / "mine" / "points.jsonl", raw)
    (tmp_path / "mine" / "facts.json").write_text(json.dumps(FACTS))
    options = ["--out", str(tmp_path / "mine"), "--fit-only", "--adapt", str(tmp_path / "mean")]
    done = CliRunner().invoke(main, ["calibrate", *options])
    assert done.exit_code == 0, done.stderr
    table: CostTable = load_table(str(tmp_path / "mine"))
    assert (table.name, table.meta["adapted_from"]) == ("mine", "mean")
    assert table.meta["parameters"]["host"] == pytest.approx(CARD.host, rel=0.01)
    assert set(table.meta["spread"]) == {"prefill", "decode", "idle", "repeat"}
    (state,) = table.states.values()
    scale = IDLE_W / (IDLE_W + 4.0)  # the card idles at less than the mean one, and sleeps at less, too
    assert (state.enter_s, state.leave_s) == (12.0, 10.0)
    assert state.power_w < table.coefficients.idle_w
    assert (state.power_w, state.enter_j, state.leave_j) == pytest.approx(
        (scale * (IDLE_W + 3.0), scale * 1500.0, scale * 1200.0)
    )


def test_the_spread_is_the_root_mean_square_by_kind() -> None:
    def off(kind: str, fraction: float) -> Residual:
        return Residual("key", kind, 1.0, 100.0, 1.0, 100.0 * (1 + fraction), None, None)

    residuals = (
        off("prefill", 0.03),
        off("burst", -0.04),
        off("ragged", 0.02),
        off("trickle", 0.03),
        off("mixed", 9.0),
    )
    spread = spread_of(residuals, idle_fraction=0.04)
    assert spread == pytest.approx({"prefill": 0.0025**0.5 / 2**0.5, "decode": 0.02, "idle": 0.05})
