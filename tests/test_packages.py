"""The packages have plain names: each must be this repository's, and empty but for a docstring."""

import ast
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("replay", "traces", "sim", "backends", "calibrate")


@pytest.mark.parametrize("name", PACKAGES)
def test_a_package_is_imported_from_this_repository(name: str) -> None:
    found = importlib.import_module(name).__file__
    assert found is not None
    assert Path(found).resolve() == ROOT / name / "__init__.py", (
        f"another package called {name} hides ours; install this project with `pip install -e .`"
    )


@pytest.mark.parametrize("name", PACKAGES)
def test_an_init_holds_a_docstring_and_nothing_else(name: str) -> None:
    tree = ast.parse((ROOT / name / "__init__.py").read_text())
    assert ast.get_docstring(tree)
    assert len(tree.body) == 1
