"""docs/sweep.md: its Python runs, and it names every option of the commands that search."""

import re
from pathlib import Path
from typing import Any

import click
import pytest

from replay.main import main

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "sweep.md").read_text()


def test_the_python_shown_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    assert [case.settings["window_s"] for case in names["cases"]] == ["0", "0", "5", "5"]
    assert [summary.requests for summary in names["summaries"]] == [200] * 4
    assert 0 < sum(names["on_front"]) < 4


@pytest.mark.parametrize("name", ["sweep", "optimize"])
def test_every_option_is_on_the_page(name: str) -> None:
    command = main.get_command(click.Context(main), name)
    assert command is not None
    options = [name for parameter in command.params for name in parameter.opts if name.startswith("--")]
    assert len(options) > 10
    for option in options:
        assert f"`{option}" in PAGE, option
