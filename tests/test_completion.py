"""Tab offers what the command takes at that place."""

from pathlib import Path

import pytest
from click.shell_completion import ShellComplete

from replay.main import COMMANDS, main
from sim.registry import policy_names
from sim.router_registry import ROUTERS
from sim.table_files import shipped


def offered(*words: str) -> list[tuple[str, str]]:
    """Type and text of what is offered for the last of the words."""
    *before, incomplete = words
    shell = ShellComplete(main, {}, "replay", "_REPLAY_COMPLETE")
    return [(item.type, item.value) for item in shell.get_completions(before, incomplete)]


def plain(names: list[str]) -> list[tuple[str, str]]:
    return [("plain", name) for name in names]


def test_the_first_word_is_a_command_or_a_file() -> None:
    assert offered("") == plain(list(COMMANDS))
    assert offered("traces/ch") == [("file", "traces/ch")]


@pytest.mark.parametrize(
    "words",
    [
        ("chat.parquet", "--policy"),
        ("run", "chat.parquet", "--policy"),
        ("--policy",),
        ("sweep", "chat.parquet", "--policy"),
        ("optimize", "chat.parquet", "--policy"),
        ("validate", "chat.parquet", "--policy"),
    ],
    ids=" ".join,
)
def test_policies_are_offered_by_name_wherever_one_is_given(words: tuple[str, ...]) -> None:
    assert offered(*words, "") == plain(policy_names())
    assert offered(*words, "imm") == plain(["immediate"])


def test_behind_a_plus_comes_another_policy() -> None:
    assert offered("chat.parquet", "--policy", "deadline+conc") == plain(["deadline+concurrency"])


def test_a_name_that_is_no_policy_or_table_may_be_a_file() -> None:
    assert offered("chat.parquet", "--policy", "mine.p") == [("file", "mine.p")]
    assert offered("chat.parquet", "--table", "./mi") == [("file", "./mi")]


@pytest.mark.parametrize(
    "words",
    [
        ("chat.parquet", "--table"),
        ("sweep", "chat.parquet", "--table"),
        ("validate", "chat.parquet", "--table"),
        ("compare", "one", "other", "--table"),
        ("tables",),
    ],
    ids=" ".join,
)
def test_tables_are_offered_by_name(words: tuple[str, ...]) -> None:
    assert offered(*words, "h200") == plain([name for name in shipped() if name.startswith("h200")])


def test_routers_choices_and_options_are_offered() -> None:
    for words in (("chat.parquet",), ("sweep", "chat.parquet"), ("validate", "chat.parquet")):
        assert offered(*words, "--router", "") == plain(list(ROUTERS))
    assert ("plain", "--length-prediction") in offered("chat.parquet", "--le")
    assert offered("export", "run", "--format", "prom") == plain(["prometheus"])


def test_the_page_says_how_it_is_turned_on_in_every_shell() -> None:
    page = (Path(__file__).parents[1] / "docs" / "command.md").read_text()
    for shell in ("bash", "zsh", "fish"):
        assert f"_REPLAY_COMPLETE={shell}_source replay" in page
