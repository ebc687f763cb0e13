"""A record over a small trace of invented requests, and the page about it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

from click.testing import CliRunner
from toy_table import toy_table

from replay.explore_app import make_app, page_script, show
from replay.explore_offer import offer
from replay.explore_places import Places
from replay.explore_runs import Runs
from replay.explore_server import guard, server_of
from replay.explore_subject import Subject, open_subject
from replay.main import main
from sim.table_files import save_table
from traces.parquet import write_trace
from traces.trace import Trace

ENGINE = {"max_num_seqs": 8, "num_gpu_blocks": 2048, "max_model_len": 4096}


def make_table(folder: Path) -> Path:
    """Return a cost table of invented numbers, whose name is that of its folder."""
    folder.mkdir()
    save_table(toy_table(name=folder.name, engine=ENGINE), folder)
    return folder


def make_run(trace: Trace, folder: Path, *arguments: str) -> Path:
    """Return the record of a replay of `trace`, whose file `toy.parquet` lies beside it; the table, too."""
    write_trace(trace, folder / "toy.parquet")
    table = make_table(folder / "toy-table")
    run = folder / "run"
    line = [
        "run",
        str(folder / "toy.parquet"),
        "--table",
        str(table),
        "--out",
        str(run),
        *arguments,
    ]
    result = CliRunner().invoke(main, line)
    assert result.exit_code == 0, result.output
    return run


def subject_of(what: Path, *policies: str, trace: Path | None = None, policy: str = "immediate") -> Subject:
    """Return what a page is about, with the table that `make_run` made."""
    tables = (str(what.parent / "toy-table"),)
    return open_subject(what, Places(trace, (what, what.parent), tables), offer(policies, tables), (), policy)


def shown(subject: Subject, search: str = "", *, is_asked: bool = False) -> dict[str, Any]:
    """Return all that the page shows of an address."""
    return show(subject, Runs(subject.offered), search, is_asked=is_asked)


@contextmanager
def serving(subject: Subject) -> Iterator[int]:
    """Serve the page and give its port."""
    app = make_app(subject)
    guard(app, "127.0.0.1", page_script())
    with server_of(app, "127.0.0.1", 0) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server.port
        finally:
            server.shutdown()
            thread.join()


def text_of(component: Any) -> str:
    """Return the text in Dash components, a space between two."""
    if component is None or isinstance(component, bool):
        return ""
    if isinstance(component, str | int | float):
        return str(component)
    if isinstance(component, list | tuple):
        return " ".join(map(text_of, component))
    return text_of(getattr(component, "children", None))
