"""How Sphinx builds the site from these pages; CONTRIBUTING.md says how to run it."""

import re
from collections.abc import Iterator

import click
from sphinx.application import Sphinx

from replay.main import main

project = "replay"
author = "the authors of replay"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]

myst_heading_anchors = 3
default_role = "literal"
highlight_language = "none"

autodoc_class_signature = "separated"
autodoc_default_options = {"exclude-members": "__init__,__new__"}
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
maximum_signature_line_length = 90
napoleon_use_ivar = True

html_theme = "furo"
html_title = "replay"
html_show_copyright = False
html_copy_source = False
html_show_search_summary = False  # it would fetch pages, which a browser refuses from disk
html_static_path = ["site.css"]
html_css_files = ["site.css"]

FENCED = re.compile(r"(^ *```.*?^ *```$)", re.DOTALL | re.MULTILINE)
NAMED = re.compile(r"(?<!\]\()(?<![\w/\[`])docs/(\w[\w-]*\.md)(?![\w\]])")
ARRAY = re.compile(r"~?numpy\.ndarray\[tuple\[.*?\], ~?numpy\.dtype\[~?numpy\.(\w+?)_?\]\]")


def link_pages(text: str) -> str:
    """Make a link of each page that prose calls docs/NAME.md; it reads as that page's title."""
    parts = FENCED.split(text)
    parts[::2] = [NAMED.sub(r"[](\1)", part) for part in parts[::2]]
    return "".join(parts)


def helps(command: click.Command, context: click.Context) -> Iterator[str]:
    """Yield a section with the help of a command, and those of its subcommands."""
    yield f"## {context.command_path}\n\n```text\n{command.get_help(context)}\n```\n"
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            if found is not None and not found.hidden:
                yield from helps(found, click.Context(found, context, info_name=name, terminal_width=90))


def prepare(app: Sphinx, page: str, source: list[str]) -> None:  # noqa: ARG001
    """Link the pages, and put the helps of all commands where cli.md asks for them."""
    source[0] = link_pages(source[0])
    if page == "cli":
        sections = "\n".join(helps(main, click.Context(main, info_name="replay", terminal_width=90)))
        source[0] = source[0].replace("<!-- commands -->", sections)


def prepare_included(app: Sphinx, path: object, page: str, source: list[str]) -> None:  # noqa: ARG001
    """Link the pages that an included file names."""
    source[0] = link_pages(source[0])


def shorten_arrays(app: Sphinx, what: str, name: str, of: object, options: object, lines: list[str]) -> None:  # noqa: ARG001
    """Say `array of float64` for the type of a NumPy array."""
    lines[:] = [ARRAY.sub(r"array of \1", line) for line in lines]


def setup(app: Sphinx) -> None:
    """Register the above; arrays after napoleon."""
    app.connect("source-read", prepare)
    app.connect("include-read", prepare_included)
    app.connect("autodoc-process-docstring", shorten_arrays, priority=900)
