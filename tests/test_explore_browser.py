"""`replay explore` in a real browser: it draws, complains of nothing, and simulates what is chosen."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import pytest
from chromium import Browser
from click.testing import CliRunner
from explore_page import make_run, serving, subject_of
from toy_trace import toy_trace

import replay.api
from replay.main import main
from replay.printing import quantity
from sim.registry import policy_names
from traces.record_files import read_run

TRACE = toy_trace([0.5 * row for row in range(200)], 100, 20)
NASTY = '<script>alert("x")</script><img src=x onerror=alert(1)>'
PLACES = "document.querySelectorAll('section[id$=-place]:not([hidden]) .main-svg')"
NUMBERS = "document.getElementById('numbers').innerText"
OPTION = "[data-option-index='%d'].dash-dropdown-option"
PLOT = "document.querySelector('#%s .js-plotly-plot')"
TEXT_RED = f"return parseInt({PLOT % 'time'}._fullLayout.font.color.slice(1, 3), 16)"
X_TITLE = "return document.querySelector('#time .xtitle').textContent"
ROWS = f"return {PLOT % 'phases'}._fullLayout.annotations.length"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The record of 200 requests under `immediate`."""
    return make_run(TRACE, tmp_path_factory.mktemp("explored"))


@pytest.fixture(scope="module")
def page(run: Path) -> Iterator[str]:
    """The address of the page about it."""
    with serving(subject_of(run)) as port:
        yield f"http://127.0.0.1:{port}/"


def visit(browser: Browser, address: str, figures: int = 5) -> None:
    """Open a page and wait for so many figures; what was logged before is forgotten."""
    browser.log()
    browser.driver.get(address)
    browser.wait(f"return new Set([...{PLACES}].map((e) => e.closest('section').id)).size === {figures}")


def joules(run: Path, policy: str, **options: object) -> str:
    """Return the energy of a replay as the page writes it."""
    table = str(run.parent / "toy-table")
    result = replay.api.simulate(run.parent / "toy.parquet", policy, table=table, options=options)
    return quantity(result.run.total_energy_j, "J")


def choose(browser: Browser, policy: str) -> None:
    """Choose a policy from the menu."""
    browser.point("#choose-policy", click=True)
    place = policy_names().index(policy)
    browser.wait(f'return document.querySelector("{OPTION % place}") !== null')
    browser.point(OPTION % place, click=True)


def write(browser: Browser, selector: str, text: str) -> None:
    """Replace what stands in a field, and press Enter."""
    from selenium.webdriver import Keys

    field = browser.driver.find_element("css selector", selector)
    field.send_keys(Keys.CONTROL, "a")
    field.send_keys(text, Keys.ENTER)


def test_every_figure_is_drawn_and_nothing_is_complained_of(browser: Browser, run: Path, page: str) -> None:
    visit(browser, page)
    assert quantity(read_run(run).total_energy_j, "J") in browser.run(f"return {NUMBERS}")
    assert browser.log() == []
    loaded = browser.run("return performance.getEntriesByType('resource').map((one) => one.name)")
    assert loaded
    assert all(name.startswith(page) for name in loaded)


def test_what_is_chosen_is_simulated_and_drawn_beside_the_run(browser: Browser, run: Path, page: str) -> None:
    visit(browser, page)
    recorded = quantity(read_run(run).total_energy_j, "J")
    choose(browser, "batch-window")
    expected = joules(run, "batch-window")
    browser.wait(f"return {NUMBERS}.includes('{expected}')")
    browser.wait(f"{ROWS} === 2")
    write(browser, "#options input", "3")
    expected = joules(run, "batch-window", window_s=3)
    browser.wait(f"return {NUMBERS}.includes('{expected}')")
    assert recorded in browser.run(f"return {NUMBERS}")
    assert browser.run("return location.search") == "?policy=batch-window&set.window_s=3"
    write(browser, "#choose-replicas", "many")
    browser.wait("return document.getElementById('notice').innerText.includes('replicas must be')")
    browser.wait(f"return !{NUMBERS}.includes('{expected}')")
    browser.driver.back()
    browser.wait(f"return {NUMBERS}.includes('{expected}')")
    browser.wait("return document.getElementById('choose-replicas').value === '1'")
    assert browser.log() == []


def test_an_address_opens_what_it_was_copied_from(browser: Browser, run: Path, page: str) -> None:
    visit(browser, f"{page}?policy=pace&set.interval_s=0.7")
    browser.wait(f"return {NUMBERS}.includes('{joules(run, 'pace', interval_s=0.7)}')")
    assert browser.run("return document.querySelector('#options input').value") == "0.7"


def test_a_zoom_stays_when_something_else_is_simulated(browser: Browser, page: str) -> None:
    visit(browser, page)
    browser.run(f"Plotly.relayout({PLOT % 'time'}, {{'xaxis.range': [10, 30]}})")
    browser.wait(f"{X_TITLE}.includes('means over 0.1 s')")
    choose(browser, "batch-window")
    browser.wait(f"{ROWS} === 2")
    browser.wait(f"return {PLOT % 'time'}.data.length > 6")
    assert browser.run(f"return {PLOT % 'time'}.layout.xaxis.range.map(Math.round)") == [10, 30]


def test_light_and_dark_are_the_readers_choice(browser: Browser, page: str) -> None:
    visit(browser, page)
    for scheme, is_right in (("light", "< 60"), ("dark", "> 200"), ("light", "< 60")):
        browser.prefer(scheme)
        browser.wait(f"{TEXT_RED} {is_right}")


def test_text_of_a_record_is_read_and_not_run(browser: Browser, tmp_path: Path) -> None:
    run = make_run(replace(TRACE, name=NASTY, source=NASTY, notes=(NASTY,)), tmp_path)
    with serving(subject_of(run, trace=tmp_path / "toy.parquet")) as port:
        visit(browser, f"http://127.0.0.1:{port}/?policy=pace")
        browser.wait(f"{ROWS} === 2")
        assert NASTY in browser.run("return document.querySelector('h1').innerText")
        assert NASTY in browser.run("return document.getElementById('facts').innerText")
        assert browser.run("return document.images.length") == 0
        assert browser.log() == []
        browser.driver.get(f"http://127.0.0.1:{port}/?policy={quote(NASTY)}&{quote(NASTY)}=1")
        browser.wait("return document.getElementById('notice')?.innerText.includes('<script>')")
        assert browser.run("return document.images.length") == 0
        assert browser.log() == []


def test_a_click_on_a_point_of_a_sweep_shows_its_run(browser: Browser, run: Path) -> None:
    folder = run.parent
    line = ["sweep", str(folder / "toy.parquet"), "--table", str(folder / "toy-table"), "--jobs", "1"]
    result = CliRunner().invoke(main, [*line, "--policy", "batch-window", "--out", str(folder / "sweep")])
    assert result.exit_code == 0, result.output
    with serving(subject_of(folder / "sweep")) as port:
        visit(browser, f"http://127.0.0.1:{port}/", figures=1)
        browser.point("#sweep0 .point", click=True)
        browser.wait(f"return {NUMBERS}.includes('{joules(run, 'batch-window')}')")
        assert browser.run("return location.search") == "?cell=0"
        assert browser.run("return document.querySelector('#options input').value") == "10"
        assert browser.log() == []
