"""How hot functions are compiled; with NUMBA_DISABLE_JIT=1 they run as the plain Python that they are."""

import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
import numba.core.config

config: Any = numba.core.config
njit: Any = numba.njit
OUTDATED_S = 30 * 86400.0
Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """Return `function` compiled on its first call and kept on disk, its float operations unchanged.

    Only compiled functions can call it. They contain it: handing over a dozen arrays costs more than most
    functions do. It makes no arrays, so Numba need not count references, which took longer than the rest.
    """
    return _compiled(function, forceinline=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)


def compiled_entry(function: Function) -> Function:
    """Return `function` compiled like the others, for Python to call."""
    return _compiled(function)


def entry_for(function: Function, *arguments: Any) -> Function:
    """Return a compiled entry to call with arguments of just the types of these.

    Numba looks at the type of every array at each call, which takes ten times as long as to hand them over;
    this skips it.
    """
    if config.DISABLE_JIT:
        return function
    dispatcher: Any = function
    types = tuple(map(numba.typeof, arguments))
    dispatcher.compile(types)
    return cast(Function, dispatcher.overloads[types].entry_point)


def _compiled(function: Function, **flags: Any) -> Function:
    elsewhere = config.CACHE_DIR
    config.CACHE_DIR = cache_folder()
    try:
        faster = njit(cache=True, _nrt=False, **flags)(function)
    finally:
        config.CACHE_DIR = elsewhere
    return cast(Function, faster)


@cache
def cache_folder() -> str:
    """Return where compiled functions are kept: a folder for just these sources.

    A compiled function contains those that it calls, yet Numba looks for changes in its own file only.
    """
    sources = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        sources.update(path.read_bytes())
    home = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    for parent in (config.CACHE_DIR, home, tempfile.gettempdir()):
        folder = Path(parent or home) / "replay" / f"compiled-{sources.hexdigest()[:16]}"
        if _can_be_used(folder):
            return str(folder)
    return str(config.CACHE_DIR)


def _can_be_used(folder: Path) -> bool:
    if not folder.exists():
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            return False
        _remove_outdated(folder.parent)
    return os.access(folder, os.W_OK)


def _remove_outdated(parent: Path) -> None:
    """Remove the folders of other sources that nothing was added to for a month."""
    for folder in parent.glob("compiled-*"):
        if time.time() - folder.stat().st_mtime > OUTDATED_S:
            shutil.rmtree(folder, ignore_errors=True)
