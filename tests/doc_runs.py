"""The commands of a page of the documentation, run one after the other in a folder of small files."""

import json
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
from click.testing import CliRunner
from doc_commands import PAGES, ROOT, DocCommand, commands, saved

from replay.main import COMMANDS, main
from traces.parquet import write_trace
from traces.reading import read_trace
from traces.selection import select

SHOW_REAL_OUTPUT = ("README.md", "estimate.md", "howto-fleet.md", "howto-policy.md", "tutorial.md")
"""Pages whose blocks behind a command are just what it prints."""
NEEDS = {
    r"^replay trace fetch \S": "a network",
    r"^replay calibrate": "a GPU",
    r"^replay validate": "vLLM",
    r"^replay explore": "a browser",
    r"--backend (vllm|openai)": "an engine",
    r"--on ray": "a Ray cluster",
    r"^replay compare sim twin$": "a run of the twin",
}
"""What a command needs that these tests have not: it is parsed with all its options and not run."""
PLACEHOLDER = re.compile(r"[\[\]|]|\.\.\.|\b(?!SLO\b)[A-Z]{3,}\b")
"""What makes a line a pattern to fill in rather than a command; its command and options have to exist."""
STAND_INS = {"FOLDER": "h200-llama-3.1-8b-bf16"}
"""What stands for a placeholder where a command can be run so."""
IN_PROCESS = {"sweep": ("--jobs", "1")}
"""Further arguments that change no result."""
BEFORE = {
    "export.md": (
        "traces/chat.parquet --out runs/mine",
        "export runs/mine --format vllm-bench --out bench.json",
    )
}
"""Commands that make what a page takes as given."""
MINE = """
from dataclasses import dataclass

from sim.policy import Decision, Held


@dataclass
class MyPolicy:
    max_wait_s: float = 1.0

    def decide(self, now_s: float, held: Held, running: int) -> Decision:
        return Decision(release=tuple(held))
"""

ALL = [command for page in PAGES for command in commands(page)]


def need_of(command: DocCommand) -> str | None:
    return next((need for sign, need in NEEDS.items() if re.search(sign, command.text)), None)


def filled(command: DocCommand) -> list[str]:
    return [STAND_INS.get(word, word) for word in command.arguments]


def is_pattern(command: DocCommand) -> bool:
    return bool(PLACEHOLDER.search(" ".join(filled(command))))


def is_run(command: DocCommand) -> bool:
    return not need_of(command) and not is_pattern(command)


def resolved(arguments: Sequence[str]) -> tuple[click.Command, str, list[str]]:
    """Return the command that the first words name, and what is left of the words."""
    words = list(arguments)
    name = words.pop(0) if words[0] in COMMANDS else "run"
    command = main.get_command(click.Context(main), name)
    assert command is not None
    while isinstance(command, click.Group) and words and words[0] in command.commands:
        name = words.pop(0)
        command = command.commands[name]
    return command, name, words


def run_page(page: Path, whole: Sequence[str] = SHOW_REAL_OUTPUT) -> Iterator[tuple[DocCommand, list[str]]]:
    """Run a page's commands in the current folder, which `fill` made; yield each, and what it printed.

    Args:
        page: The page.
        whole: Pages where a command whose output is shown gets the traces that ship, others their beginning.
    """
    for name, text in saved(page).items():
        if not Path(name).exists():
            Path(name).write_text(text)
    for line in BEFORE.get(page.name, ()):
        assert CliRunner().invoke(main, line.split()).exit_code == 0
    for command in (command for command in ALL if command.page == page.name and is_run(command)):
        arguments = filled(command)
        if command.shown and page.name in whole:
            arguments = [word.replace("traces/", f"{ROOT}/traces/") for word in arguments]
        _, name, _ = resolved(arguments)
        _make_room(arguments)
        result = CliRunner().invoke(main, [*arguments, *IN_PROCESS.get(name, ())], prog_name="replay")
        assert result.exit_code == 0, f"{command}\n{result.output}"
        yield command, [line for line in result.stdout.splitlines() if not line.startswith("record ")]


def fill(folder: Path) -> None:
    """Put small files of the names that pages use into a folder."""
    (folder / "traces").mkdir()
    for name in ("chat", "code"):
        trace = select(read_trace(ROOT / "traces" / f"{name}.parquet"), limit=40)
        write_trace(trace, folder / "traces" / f"{name}.parquet")
    rows = [f"{0.25 * row},{100 + row % 400},{10 + row % 7}" for row in range(1000)]
    (folder / "mine.csv").write_text("\n".join(["arrival_s,prompt_tokens,output_tokens", *rows]))
    (folder / "mine.py").write_text(MINE)
    azure = [f"2023-11-16 18:15:{row:02}.0000000,{200 + row},{20 + row}" for row in range(30)]
    for name in ("conv", "code"):
        text = "\r\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens", *azure])
        (folder / f"AzureLLMInferenceTrace_{name}.csv").write_text(text)
    mooncake = [
        {
            "timestamp": 3000 * (row // 4),
            "input_length": 1500,
            "output_length": 5 + row,
            "hash_ids": [0, 1, 2],
        }
        for row in range(20)
    ]
    text = "\n".join(json.dumps(row) for row in mooncake)
    (folder / "mooncake_conversation_trace.jsonl").write_text(text)


def _make_room(arguments: Sequence[str]) -> None:
    """Remove what the command is about to write, as two commands of a page may write the same."""
    if "--out" in arguments:
        out = Path(arguments[arguments.index("--out") + 1])
        if out.is_dir():
            shutil.rmtree(out)
        out.unlink(missing_ok=True)
