"""The site builds from docs/ without a warning, and a reader needs no network for it."""

import re
import subprocess
import sys
from html import unescape
from pathlib import Path

import click
import pytest
from chromium import Browser

from replay.main import main

DOCS = Path(__file__).parents[1] / "docs"
ASSET = re.compile(
    r"""<(?:script|img|iframe|source|video|audio|embed)\b[^>]*?\b(?:src|srcset)\s*=\s*["']?([^"'\s>]+)"""
    r"""|<link\b[^>]*?\bhref\s*=\s*["']?([^"'\s>]+)"""
    r"""|@import\s+(?:url\()?["']?([^"')\s;]+)"""
    r"""|\burl\(\s*["']?([^"')\s]+)"""
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site; any warning fails."""
    for module in ("sphinx", "myst_parser", "furo"):
        pytest.importorskip(module, reason="pip install '.[docs]' brings what builds the site")
    folder = tmp_path_factory.mktemp("site")
    options = ("-q", "-W", "--keep-going", "-b", "html", "-d", folder / "trees")
    command = (sys.executable, "-m", "sphinx", *options, DOCS, folder / "html")
    built = subprocess.run(command, capture_output=True, text=True)
    assert (built.returncode, built.stderr) == (0, "")
    return folder / "html"


def test_no_page_loads_anything_from_elsewhere(site: Path) -> None:
    assets = [
        (path.name, asset)
        for path in (*site.rglob("*.html"), *site.rglob("*.css"))
        for found in ASSET.findall(path.read_text(encoding="utf-8"))
        for asset in found
        if asset
    ]
    assert len(assets) > 200
    assert [each for each in assets if re.match(r"(https?:)?//", each[1])] == []


def test_a_page_named_in_prose_is_a_link(site: Path) -> None:
    for path in site.glob("*.html"):
        prose = re.sub(r"<(pre|code|title)\b.*?</\1>", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
        text = re.sub(r"<a\b.*?</a>", "", prose, flags=re.DOTALL)
        if path.name not in ("api.html", "genindex.html"):
            assert not re.search(r"(?<![\w/])docs/\w+\.md", text), path.name


def test_the_reference_has_the_help_of_every_command(site: Path) -> None:
    text = unescape(re.sub(r"<[^>]+>", "", (site / "cli.html").read_text(encoding="utf-8")))
    context = click.Context(main, info_name="replay")
    names = main.list_commands(context)
    assert "sweep" in names
    for name in names:
        command = main.get_command(context, name)
        assert command is not None
        for parameter in command.params:
            assert all(option in text for option in parameter.opts if option.startswith("--"))
        assert f"Usage: replay {name}" in text


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_browser_shows_pages_and_searches_them_offline(site: Path, browser: Browser, scheme: str) -> None:
    browser.prefer(scheme)
    for name in ("index", "tutorial", "cli", "api"):
        browser.open(site / f"{name}.html")
        assert browser.run("return document.querySelectorAll('h1').length") == 1
        assert browser.run("return [...document.images].every(image => image.naturalWidth > 0)")
        assert browser.log() == []
    browser.driver.get((site / "search.html").as_uri() + "?q=joule")
    browser.wait("return document.querySelectorAll('ul.search li').length > 3")
    assert browser.log() == []


def test_the_picture_of_joules_is_drawn_by_its_script(tmp_path: Path) -> None:
    picture = tmp_path / "joules.png"
    subprocess.run((sys.executable, DOCS / "draw_joules.py", picture), check=True, cwd=DOCS.parent)
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.stat().st_size < 200_000
