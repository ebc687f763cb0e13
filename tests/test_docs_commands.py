"""Every command in the documentation is run, or at least parsed where it needs what a test has not."""

import re
from pathlib import Path

import pytest
from doc_commands import PAGES, DocCommand, spans
from doc_runs import ALL, SHOW_REAL_OUTPUT, fill, filled, is_pattern, is_run, need_of, resolved, run_page

PYTHON = r"<!-- tested: tests/test_docs_commands.py -->\n```python\n(.*?)```"
"""Python that is run after the commands of its page."""

HERE = [page for page in PAGES if any(command.page == page.name for command in ALL)]


@pytest.mark.parametrize("page", HERE, ids=lambda page: page.name)
def test_the_commands_of_a_page_run_one_after_the_other(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_COLOR", "1")
    fill(tmp_path)
    for command, printed in run_page(page):
        if command.shown and page.name in SHOW_REAL_OUTPUT:
            assert command.shown.splitlines() == printed, f"{command}\ntests/refresh_docs.py writes it anew"
    for code in re.findall(PYTHON, page.read_text(encoding="utf-8"), re.DOTALL):
        exec(code, {})


@pytest.mark.parametrize("command", [each for each in ALL if need_of(each) and not is_pattern(each)], ids=str)
def test_a_command_that_needs_more_than_a_test_has_is_understood(command: DocCommand) -> None:
    found, name, words = resolved(filled(command))
    found.make_context(name, words)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_patterns_and_commands_in_prose_name_options_that_exist(page: Path) -> None:
    patterns = [command for command in ALL if command.page == page.name and is_pattern(command)]
    for command in (*patterns, *spans(page)):
        found, _, words = resolved(command.text.split()[1:])
        known = {"--help", "--version"} | {option for each in found.params for option in each.opts}
        named = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", " ".join(words)))
        assert named <= known, f"{command} has no {named - known}"


def test_few_commands_are_not_run() -> None:
    run = [command for command in ALL if is_run(command)]
    assert len(run) > 40
    assert len(run) > len(ALL) / 2
