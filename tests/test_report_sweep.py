"""A sweep in a report: its front, who violates a limit, and what broke a guard."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from chromium import Browser
from click.testing import CliRunner
from toy_run import toy_run

from replay.main import main
from sim.report_sweep import read_sweep, sweep_figure
from sim.slo import parse_slos
from sim.summary import summarize
from sim.sweep_result import Result, write_table

NASTY = "<img src=x onerror=alert(1)>"
POINTS = {
    "quick": (100.0, 1.0),
    "thrifty": (50.0, 4.0),
    "neither": (120.0, 2.0),
    "broken": (10.0, 0.1),
    NASTY: (90.0, 9.0),
}
WORKLOAD = {"trace": "toy", "trace_sha256": "0", "from_s": 0.0, "to_s": None, "limit": None, "stretch": 1.0}
SHOWN = "return document.querySelector('#sweep0 .xtitle').textContent"
HOVERED = "return document.querySelector('#sweep0 .hoverlayer').textContent"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sweep of five policies, the energy per request and E2E p99 of each as POINTS says."""
    results, marks = [], []
    for policy, (energy_j, e2e_s) in POINTS.items():
        summary = replace(
            summarize(toy_run()),
            energy_j_per_request=energy_j,
            e2e_p99_s=e2e_s,
            energy_valid=policy != "broken",
            invalid_reasons=("guard 1: lost",) if policy == "broken" else (),
        )
        results.append(Result({**WORKLOAD, "policy": policy, "policy.window_s": 2.0}, summary))
        marks.append({"on_front": False, "violates": ["e2e_p99"] if e2e_s > 3 else []})
    write_table(results, marks, tmp_path / "sweep.parquet")
    return tmp_path


def page_of(folder: Path, *options: str) -> str:
    path = folder / "r.html"
    result = CliRunner().invoke(main, ["report", str(folder), "--out", str(path), *options])
    assert result.exit_code == 0, result.output
    return path.read_text(encoding="utf-8")


def lines_of(folder: Path, *slos: str) -> dict[str, Any]:
    (workload,) = read_sweep(folder, parse_slos(slos))
    return {line["name"]: line for line in sweep_figure(workload, "sweep0").data}


def test_the_front_holds_what_nothing_beats_and_never_a_broken_run(folder: Path) -> None:
    front = lines_of(folder)["front"]
    assert (list(front["x"]), list(front["y"])) == ([1.0, 4.0], [100.0, 50.0])


def test_the_limits_of_the_sweep_count_unless_the_report_has_others(folder: Path) -> None:
    assert {"quick", "neither", "thrifty, violates", "broken, NOT VALID"} < lines_of(folder).keys()
    assert {"quick", "neither, violates", "thrifty, violates"} < lines_of(folder, "e2e_p99=1.5").keys()
    assert {"quick", "thrifty, violates"} < lines_of(folder, "e2e=1.5").keys()


def test_a_sweep_has_a_table_with_its_best_and_its_text_is_escaped(folder: Path) -> None:
    page = page_of(folder)
    rows = {cells[0]: cells for cells in re.findall(r'<tr><th scope="row">(.*?)</th>(.*)</tr>', page)}
    assert "least energy within the limits" in rows["quick"][1]
    assert "NOT VALID" in rows["broken"][1]
    assert "guard 1: lost" in rows["broken"][1]
    assert NASTY not in page
    assert "Sweep of toy" in page


def test_a_file_that_is_no_sweep_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "sweep.parquet").write_bytes(b"no Parquet")
    result = CliRunner().invoke(main, ["report", str(tmp_path), "--out", str(tmp_path / "r.html")])
    assert result.exit_code == 2
    assert len(result.output.splitlines()) == 1
    assert "not a sweep" in result.output


def test_the_menu_changes_the_latency_and_a_point_tells_what_it_is(browser: Browser, folder: Path) -> None:
    page_of(folder)
    browser.open(folder / "r.html")
    assert browser.run(SHOWN) == "E2E p99, s"
    browser.point("#sweep0 .scatterlayer .trace:nth-of-type(2) .point")
    browser.wait(HOVERED)
    assert "J a request" in browser.run(HOVERED)
    browser.point("#sweep0 .updatemenu-header", click=True)
    browser.wait("return document.querySelector('#sweep0 .updatemenu-dropdown-button')")
    browser.point("#sweep0 .updatemenu-dropdown-button", click=True)
    browser.wait(f"{SHOWN}.startsWith('TTFT p50')")
    assert browser.log() == []
