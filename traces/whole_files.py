"""Files and folders that appear whole or not at all."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def ensure_free(path: Path, *, overwrite: bool = False) -> None:
    """Refuse an output that exists, unless told to overwrite it, and a folder for it that does not.

    Raises:
        ValueError: Something lies at `path` already, or its folder is missing.
    """
    if path.exists() and not overwrite:
        raise ValueError(f"{path}: exists already; choose another name or give --overwrite")
    if not path.parent.is_dir():
        raise ValueError(f"{path.parent}: no such folder to write {path.name} into; make it first")


@contextmanager
def whole_file(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Give a temporary path beside `path`; what is written there becomes `path` unless the block fails.

    Raises:
        ValueError: `path` exists and is not to be overwritten, or its folder is missing.
    """
    ensure_free(path, overwrite=overwrite)
    if path.is_dir():
        raise ValueError(f"{path}: is a folder; give the name of a file")
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        _flush(part)
        part.replace(path)
        _flush(path.parent)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Give a temporary folder beside `path`; it becomes `path` when the block ends without error.

    Raises:
        ValueError: `path` exists and is not to be overwritten, or its folder is missing.
    """
    ensure_free(path, overwrite=overwrite)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    old = path.with_name(f".{path.name}.{os.getpid()}.old")
    try:
        part.mkdir()
        yield part
        for written in [*part.iterdir(), part]:
            _flush(written)
        _put_in_place(part, path, old)
        _flush(path.parent)
    finally:
        shutil.rmtree(part, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _put_in_place(part: Path, path: Path, old: Path) -> None:
    """Rename `part` to `path`; what lies there goes to `old`, and comes back if that fails."""
    if not path.exists():
        part.rename(path)
        return
    path.rename(old)
    try:
        part.rename(path)
    except BaseException:
        old.rename(path)
        raise


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
