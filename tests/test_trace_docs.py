"""docs/traces.md shows what the commands print, and names each of them and of their options."""

import re
import shlex
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import traces
from replay.trace import cli
from traces.reading import FORMATS

PACKAGE = Path(str(traces.__file__)).parent
SHARED = Path(__file__).parents[2] / "shared" / "traces"
PAGE = (PACKAGE.parent / "docs" / "traces.md").read_text()
BLOCKS = re.findall(r"```console\n(.*?)```", PAGE, flags=re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.split("\n")[0])
def test_a_command_on_the_page_prints_what_the_page_shows(
    block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "traces").symlink_to(PACKAGE)
    lines = "\n".join(line for line in block.splitlines() if line.startswith("$ "))
    for name in set(re.findall(r"\S+\.(?:csv|jsonl)\b", lines)):
        if not (SHARED / name).exists():
            pytest.skip(f"{name} is not beside the checkout")
        (tmp_path / name).symlink_to(SHARED / name)
    for part in block.removeprefix("$ ").split("\n$ "):
        line, _, shown = part.partition("\n")
        result = CliRunner().invoke(cli, shlex.split(line)[2:])
        assert result.exit_code == 0, result.output
        assert result.stdout.strip() == shown.strip()


def test_the_page_names_every_command_option_and_format() -> None:
    missing = [name for name in cli.commands if f"`replay trace {name}" not in PAGE]
    for command in cli.commands.values():
        options = (option for option in command.params if isinstance(option, click.Option))
        missing += [option.opts[0] for option in options if option.opts[0] not in PAGE]
    missing += [form for form in FORMATS if f"| `{form}` |" not in PAGE]
    assert missing == []


def test_the_pictures_on_the_page_are_there() -> None:
    for name in re.findall(r"!\[.*?\]\((.*?)\)", PAGE):
        assert (PACKAGE.parent / "docs" / name).is_file()
