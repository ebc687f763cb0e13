"""The policy that docs/policies.md shows runs as it says, and the page names every policy and option."""

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from toy_engine import ToyEngine
from toy_policies import NEEDED
from toy_table import toy_table
from toy_trace import toy_trace

from sim.driver import Driver
from sim.options import EngineOptions
from sim.registry import SHIPPED, make_policy
from sim.simulate import simulate
from traces.reading import read_trace

PAGE = (Path(__file__).parents[1] / "docs" / "policies.md").read_text()


@pytest.fixture
def shown(tmp_path: Path) -> str:
    """The first policy that the page shows, in a file."""
    return f"{write_shown(tmp_path, 1)}:ShortestFirst"


def write_shown(folder: Path, place: int) -> Path:
    code = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)[place]
    path = folder / "shown.py"
    path.write_text(code)
    return path


def test_the_classes_shown_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "traces").symlink_to(Path(__file__).parents[1] / "traces")
    monkeypatch.chdir(tmp_path)
    exec(write_shown(tmp_path, 0).read_text(), {})
    trace = read_trace(tmp_path / "mixed.parquet")
    assert trace.is_offline is not None
    assert 0.45 < trace.is_offline.mean() < 0.55


def test_the_policy_shown_does_what_it_says(shown: str) -> None:
    trace = toy_trace([0.0, 0.01, 0.02, 0.03], prompt_tokens=[64, 192, 64, 128])
    engine = ToyEngine(trace)
    Driver(trace, make_policy(shown, {"most": "1"}), engine).run()
    assert [row for _, row in engine.submitted] == [0, 2, 3, 1]


def test_the_option_shown_is_checked(shown: str) -> None:
    with pytest.raises(ValueError, match="most must be >= 1, got 0"):
        make_policy(shown, {"most": "0"})


def test_the_policy_shown_that_asks_for_costs_keeps_its_step(tmp_path: Path) -> None:
    """Of the toy table, a step of n > 3 sequences of 1000 tokens takes 5.025 ms + n * 29 us at least."""
    policy = make_policy(f"{write_shown(tmp_path, 2)}:WhileFast", {"step_s": "0.0052"})
    run = simulate(toy_trace([0.0] * 20, 100, 50), policy, EngineOptions(), toy_table())
    released_s, finished_s = run.outcomes.released_s, run.outcomes.finished_s
    running = [int(((released_s <= at_s) & (finished_s > at_s)).sum()) for at_s in released_s]
    assert max(running) == 6


@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_every_shipped_policy_and_its_options_with_their_defaults_are_on_the_page(name: str) -> None:
    overview = PAGE.partition("## What they cost")[0]
    (row,) = re.findall(rf"^\| `{name}` \| (.*?) \|", overview, re.MULTILINE)
    policy: Any = make_policy(name, NEEDED.get(name, {}))
    for field in (field for field in fields(policy) if field.init):
        value = field.default
        shown = "none" if value is None else value if isinstance(value, str) else f"{value:g}"
        assert f"`{field.name}={shown}`" in row
