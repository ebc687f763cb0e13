"""Fetch a public trace: from its pinned address, resumed where it broke off, kept if its hash is right."""

import hashlib
import http.client
import os
import shutil
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from traces.public import PUBLIC_TRACES, PublicTrace
from traces.whole_files import whole_file

Progress = Callable[[int, int | None], None]

CHUNK_BYTES = 1 << 18
TIMEOUT_S = 60.0
ATTEMPTS = 4


def cache_folder() -> Path:
    """Return the folder where fetched traces are kept, by the habit of the platform; it may not exist yet."""
    if given := os.environ.get("XDG_CACHE_HOME"):
        base = Path(given)
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    else:
        base = Path.home() / ".cache"
    return base / "replay" / "traces"


def located(trace: str | Path) -> Path:
    """Return the file that `trace` names: itself, which need not exist, or a public trace that was fetched.

    A file goes before a public trace of its name.

    Raises:
        ValueError: It is the name of a public trace that was not fetched.
    """
    path = Path(trace)
    public = next((each for each in PUBLIC_TRACES if each.name == str(trace)), None)
    if path.exists() or public is None:
        return path
    path = _place(public, cache_folder())
    if not path.exists():
        raise ValueError(f"the public trace {trace} was not fetched yet; `replay trace fetch {trace}` does")
    return path


def _place(trace: PublicTrace, folder: Path) -> Path:
    return folder / trace.name / trace.file_name


def fetch(
    trace: PublicTrace,
    folder: Path,
    *,
    sha256: str | None = None,
    from_file: Path | None = None,
    progress: Progress | None = None,
) -> Path:
    """Return the path of `trace` in `folder`, fetched if it is not there yet.

    A transfer that breaks off is resumed, in this call and in the next.

    Args:
        trace: What to fetch.
        folder: Where to keep it; made if missing.
        sha256: Hash that the file must have, needed where no published one is known.
        from_file: Take this file instead of the address, for machines without a network.
        progress: Called with bytes received and bytes in all, None if the server does not say.

    Raises:
        OSError: The address cannot be reached, or breaks off again and again.
        ValueError: No hash is known, or the file has another one.
    """
    expected = _expected(trace, sha256)
    path = _place(trace, folder)
    if path.exists() and _sha256(path) == expected:
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    if from_file is not None:
        found = _sha256(from_file)
        if found != expected:
            raise ValueError(
                f"{from_file}: its sha256 is {found}, that of {trace.name} is {expected}; not taken"
            )
        with whole_file(path, overwrite=True) as copy:
            shutil.copyfile(from_file, copy)
        return path
    part = path.with_name(path.name + ".part")
    _download(trace.address, part, progress)
    found = _sha256(part)
    if found != expected:
        part.unlink()
        raise ValueError(
            f"{trace.address}: the sha256 of what came is {found}, expected {expected}; not kept, "
            "fetch again or get the file elsewhere and give --from FILE"
        )
    part.replace(path)
    return path


def _expected(trace: PublicTrace, given: str | None) -> str:
    if given is not None and (len(given) != 64 or set(given.lower()) - set("0123456789abcdef")):
        raise ValueError(f"a sha256 has 64 hexadecimal digits, got {given!r}")
    if trace.sha256 is None and given is None:
        raise ValueError(
            f"no published sha256 of {trace.name} is known; download {trace.address}, "
            "make sure of its hash and give it with --sha256 HEX"
        )
    if trace.sha256 and given and given.lower() != trace.sha256:
        raise ValueError(f"the sha256 of {trace.name} is {trace.sha256}, got {given}; leave --sha256 out")
    return (trace.sha256 or given or "").lower()


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _download(address: str, part: Path, progress: Progress | None) -> None:
    """Bring `part` to its full length, going on where it ends."""
    for attempt in range(ATTEMPTS):
        before = part.stat().st_size if part.exists() else 0
        try:
            if _receive(address, part, before, progress):
                return
        except urllib.error.HTTPError as error:
            raise OSError(f"{address}: {error}; get the file elsewhere and give --from FILE") from error
        except (OSError, http.client.HTTPException) as error:
            if attempt == ATTEMPTS - 1 or not part.exists():
                raise OSError(f"{address}: {error}; without a network, give --from FILE") from error
    size = part.stat().st_size
    raise OSError(
        f"{address}: broke off {ATTEMPTS} times, {size:,} bytes are kept; fetch again to go on from there"
    )


def _receive(address: str, part: Path, before: int, progress: Progress | None) -> bool:
    """Append what the server sends from byte `before` on; return whether that was all."""
    request = urllib.request.Request(address, headers={"Range": f"bytes={before}-"} if before else {})
    try:
        response: Any = urllib.request.urlopen(request, timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        with error:
            if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and before:
                return True  # nothing follows: the hash tells whether the part is right
        raise
    with response:
        resumed = response.status == http.HTTPStatus.PARTIAL_CONTENT
        done = before if resumed else 0
        length = response.headers.get("Content-Length")
        total = None if length is None else done + int(length)
        with part.open("ab" if resumed else "wb") as stream:
            while chunk := response.read(CHUNK_BYTES):
                stream.write(chunk)
                done += len(chunk)
                if progress is not None:
                    progress(done, total)
    return total is None or done >= total
