"""A report in a real browser: it draws, complains of nothing, and answers the mouse."""

import re
from pathlib import Path

import pytest
from chromium import Browser
from click.testing import CliRunner
from large_run import large_run
from toy_run import toy_run

from replay.main import main
from traces.record import Run
from traces.record_files import write_run

ALL = ["split", "time", "phases", "latency", "tokens"]
NASTY = '<script>alert("x")</script><img src=x onerror=alert(1)>'
DRAWN = (
    "return [...document.querySelectorAll('.figure')].map((e) => [e.id, e.querySelectorAll('.trace').length])"
)
SHOWN = "return document.getElementById('time')._fullData.filter((line) => line.visible === true).length"
X_TITLE = "return document.querySelector('#time .xtitle').textContent"
X_RANGE = "return document.getElementById('time').layout.xaxis.range.map(Math.round)"
TEXT_RED = "return parseInt(document.getElementById('time')._fullLayout.font.color.slice(1, 3), 16)"
PAPER = "return getComputedStyle(document.body).backgroundColor"
HOVERED = "return document.querySelector('#%s .hoverlayer').textContent"


def page_of(folder: Path, *runs: Run) -> Path:
    """Return the report of runs."""
    for number, run in enumerate(runs):
        write_run(run, folder / f"run{number}")
    folders = [str(folder / f"run{number}") for number in range(len(runs))]
    arguments = ["report", *folders, "--out", str(folder / "r.html"), "--slo", "ttft=1"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    return folder / "r.html"


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a run of 19,000 requests beside a small one."""
    return page_of(tmp_path_factory.mktemp("large"), large_run(19_000), toy_run(policy="other"))


def test_every_figure_is_drawn_and_nothing_is_complained_of(browser: Browser, large: Path) -> None:
    browser.open(large)
    drawn = dict(browser.run(DRAWN))
    assert list(drawn) == ALL
    assert all(drawn.values())
    assert browser.log() == []
    assert browser.run("return performance.getEntriesByType('resource').length") == 0


@pytest.mark.parametrize(("figure", "words"), [("time", "W"), ("tokens", "prompt and")])
def test_what_is_under_the_mouse_is_told(browser: Browser, large: Path, figure: str, words: str) -> None:
    browser.open(large)
    point = f"#{figure} .nsewdrag" if figure == "time" else "#tokens .point:nth-of-type(1200)"
    browser.point(point)
    browser.wait(HOVERED % figure)
    assert words in browser.run(HOVERED % figure)


def test_a_click_on_a_name_hides_the_run_in_every_row(browser: Browser, large: Path) -> None:
    browser.open(large)
    before = browser.run(SHOWN)
    browser.point("#time .legendtoggle", click=True)
    browser.wait(f"{SHOWN} < {before}")
    assert browser.run(SHOWN) == before / 2


def test_zooming_in_shows_means_over_shorter_times_and_keeps_what_is_hidden(
    browser: Browser, large: Path
) -> None:
    browser.open(large)
    before = browser.run(SHOWN)
    browser.point("#time .legendtoggle", click=True)
    browser.wait(f"{SHOWN} < {before}")
    assert "means over 10 s" in browser.run(X_TITLE)
    browser.run("Plotly.relayout('time', {'xaxis.range': [100, 130]})")
    browser.wait(f"{X_TITLE}.includes('means over 0.2 s')")
    assert browser.run(SHOWN) == before / 2
    assert browser.run(X_RANGE) == [
        100,
        130,
    ]


def test_means_over_longer_times_are_the_means_of_the_shorter_ones(browser: Browser, large: Path) -> None:
    browser.open(large)
    script = "return coarser({...figures.time.data[0], meta: 'means'}, arguments[0]).y"
    fine, coarse = browser.run(script, 1), browser.run(script, 10)
    assert coarse[3] == pytest.approx(sum(fine[30:40]) / 10, rel=1e-5)


def test_light_and_dark_are_the_readers_choice_also_while_the_page_is_open(
    browser: Browser, large: Path
) -> None:
    browser.open(large)
    for scheme, is_right in (("light", "< 60"), ("dark", "> 200")):
        browser.prefer(scheme)
        browser.wait(f"{TEXT_RED} {is_right}")
        paper = sum(map(int, re.findall(r"\d+", browser.run(PAPER))[:3]))
        assert paper > 700 if scheme == "light" else paper < 150


def test_text_of_a_record_is_read_and_not_run(browser: Browser, tmp_path: Path) -> None:
    page = page_of(tmp_path, toy_run(policy=NASTY, trace_name=NASTY, notes=(NASTY,)), toy_run(policy="other"))
    browser.open(page)
    assert browser.log() == []
    assert browser.run("return document.images.length + document.querySelectorAll('svg script').length") == 0
    assert NASTY[:40] in browser.run("return document.querySelector('#time .legendtext').textContent")
    assert NASTY in browser.run("return document.body.innerText")
