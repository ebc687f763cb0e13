"""Where compiled functions are kept."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sim import compiled


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(compiled.config, "CACHE_DIR", "")
    compiled.cache_folder.cache_clear()
    yield tmp_path
    compiled.cache_folder.cache_clear()


def test_the_folder_is_named_by_the_sources_and_outdated_ones_go(home: Path) -> None:
    outdated, recent = home / "replay" / "compiled-0", home / "replay" / "compiled-1"
    for folder in (outdated, recent):
        folder.mkdir(parents=True)
        (folder / "function.nbi").touch()
    os.utime(outdated, (0, 0))
    folder = Path(compiled.cache_folder())
    assert folder.parent == home / "replay"
    assert folder.is_dir()
    assert sorted(home.glob("replay/*")) == sorted([folder, recent])


def test_where_the_users_cache_is_a_file_the_folder_is_a_temporary_one(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "file"))
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(home / "temporary"))
    assert Path(compiled.cache_folder()).parent == home / "temporary" / "replay"


def test_a_folder_chosen_for_numba_is_used(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled.config, "CACHE_DIR", str(home / "chosen"))
    assert Path(compiled.cache_folder()).parent == home / "chosen" / "replay"
