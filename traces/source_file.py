"""A trace file as it lies on disk: its bytes, their hash, and whether they are compressed."""

import gzip
import hashlib
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

GZIP_MAGIC = b"\x1f\x8b"
HEAD_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file to read a trace from.

    Attributes:
        path: Where it lies.
        is_gzip: Whether its bytes are gzip, whatever its name says.
        head: Its first 64 KiB, uncompressed.
    """

    path: Path
    is_gzip: bool
    head: bytes

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """Open the uncompressed bytes.

        Raises:
            ValueError: The compressed data breaks off or is damaged.
        """
        with _whole_gzip(self.path), _open(self.path, self.is_gzip) as stream:
            yield stream

    @property
    def stem(self) -> str:
        """The file's name without `.gz` and the ending before it."""
        name = self.path.name
        return Path(name.removesuffix(".gz")).stem or name

    def sha256(self) -> str:
        """Return the hash of the bytes on disk, compressed or not, as a publisher would give it."""
        with self.path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()


def open_source(path: Path) -> SourceFile:
    """Return the file at `path`, looked into.

    Raises:
        OSError: It cannot be read.
        ValueError: It is empty, or its compressed data breaks off.
    """
    with path.open("rb") as stream:
        is_gzip = stream.read(2) == GZIP_MAGIC
    with _whole_gzip(path), _open(path, is_gzip) as stream:
        head = stream.read(HEAD_BYTES)
    if not head.strip():
        raise ValueError(f"{path}: the file is empty; a trace needs at least 1 request")
    return SourceFile(path, is_gzip, head)


def _open(path: Path, is_gzip: bool) -> BinaryIO:
    return cast(BinaryIO, gzip.open(path)) if is_gzip else path.open("rb")


@contextmanager
def _whole_gzip(path: Path) -> Iterator[None]:
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(
            f"{path}: the compressed data breaks off or is damaged ({error}); get it again"
        ) from error
