"""A fetched trace is the published one or none, and a transfer that broke off goes on."""

import hashlib
import http.server
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from traces.fetch import cache_folder, fetch
from traces.public import PUBLIC_TRACES, PublicTrace, public_trace, published

CONTENT = bytes(range(256)) * 4096
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@dataclass
class Server:
    """What a loopback server has been asked and how it is to behave."""

    address: str = ""
    content: bytes = CONTENT
    serves_ranges: bool = True
    is_missing: bool = False
    cuts: list[int] = field(default_factory=list)  # after how many bytes to break off, one answer each
    ranges: list[str | None] = field(default_factory=list)


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers.get("Range")
            state.ranges.append(asked)
            if state.is_missing:
                self.send_error(404)
                return
            start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and state.serves_ranges else 0
            if start >= len(state.content) and start:
                self.send_error(416)
                return
            body = state.content[start:]
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: state.cuts.pop(0)] if state.cuts else body)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        state.address = f"http://127.0.0.1:{running.server_port}/data/trace.csv"
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield state
        running.shutdown()
        thread.join()


def trace_at(server: Server, sha256: str | None = SHA256) -> PublicTrace:
    return PublicTrace("toy", "invented for a test", server.address, sha256, "none")


def test_a_trace_is_fetched_once(server: Server, tmp_path: Path) -> None:
    path = fetch(trace_at(server), tmp_path)
    assert path == tmp_path / "toy" / "trace.csv"
    assert path.read_bytes() == CONTENT
    assert fetch(trace_at(server), tmp_path) == path
    assert server.ranges == [None]


def test_a_transfer_that_breaks_off_goes_on_where_it_was(server: Server, tmp_path: Path) -> None:
    server.cuts = [300_000, 500_000]
    seen: list[tuple[int, int | None]] = []
    path = fetch(trace_at(server), tmp_path, progress=lambda done, total: seen.append((done, total)))
    assert path.read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=300000-", "bytes=800000-"]
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_a_transfer_that_breaks_off_for_good_is_kept_for_the_next_call(
    server: Server, tmp_path: Path
) -> None:
    server.cuts = [100_000] * 4
    with pytest.raises(OSError, match="broke off 4 times, 400,000 bytes are kept"):
        fetch(trace_at(server), tmp_path)
    assert not (tmp_path / "toy" / "trace.csv").exists()
    assert fetch(trace_at(server), tmp_path).read_bytes() == CONTENT
    assert server.ranges[-1] == "bytes=400000-"


def test_a_server_without_ranges_sends_all_again(server: Server, tmp_path: Path) -> None:
    server.serves_ranges = False
    server.cuts = [300_000]
    assert fetch(trace_at(server), tmp_path).read_bytes() == CONTENT


def test_a_part_that_is_already_whole_is_taken(server: Server, tmp_path: Path) -> None:
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "trace.csv.part").write_bytes(CONTENT)
    assert fetch(trace_at(server), tmp_path).read_bytes() == CONTENT
    assert server.ranges == [f"bytes={len(CONTENT)}-"]


def test_another_content_is_not_kept(server: Server, tmp_path: Path) -> None:
    server.content = b"something else"
    with pytest.raises(ValueError, match=f"expected {SHA256}; not kept"):
        fetch(trace_at(server), tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_damaged_file_in_the_cache_is_fetched_again(server: Server, tmp_path: Path) -> None:
    path = fetch(trace_at(server), tmp_path)
    path.write_bytes(b"damaged")
    assert fetch(trace_at(server), tmp_path).read_bytes() == CONTENT


def test_a_page_that_is_not_there_is_an_error_with_a_way_out(server: Server, tmp_path: Path) -> None:
    server.is_missing = True
    with pytest.raises(OSError, match=r"404.*--from FILE"):
        fetch(trace_at(server), tmp_path)
    assert len(server.ranges) == 1


def test_a_server_that_is_not_there_is_an_error_with_a_way_out(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{unused.getsockname()[1]}/trace.csv"
        with pytest.raises(OSError, match="without a network, give --from FILE"):
            fetch(PublicTrace("away", "invented for a test", address, SHA256, "none"), tmp_path)


def test_a_part_that_is_too_long_is_thrown_away(server: Server, tmp_path: Path) -> None:
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "trace.csv.part").write_bytes(CONTENT + b"more")
    with pytest.raises(ValueError, match="not kept"):
        fetch(trace_at(server), tmp_path)
    assert fetch(trace_at(server), tmp_path).read_bytes() == CONTENT


def test_a_local_file_is_checked_and_copied(server: Server, tmp_path: Path) -> None:
    local = tmp_path / "here.csv"
    local.write_bytes(CONTENT)
    path = fetch(trace_at(server), tmp_path / "cache", from_file=local)
    assert path.read_bytes() == CONTENT
    assert server.ranges == []
    local.write_bytes(b"other")
    with pytest.raises(ValueError, match="not taken"):
        fetch(trace_at(server), tmp_path / "cache2", from_file=local)


def test_without_a_published_hash_the_user_must_give_one(server: Server, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no published sha256 of toy is known; download .* --sha256 HEX"):
        fetch(trace_at(server, None), tmp_path)
    assert fetch(trace_at(server, None), tmp_path, sha256=SHA256.upper()).read_bytes() == CONTENT


def test_a_hash_that_is_none_or_contradicts_is_refused(server: Server, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="64 hexadecimal digits, got 'abc'"):
        fetch(trace_at(server), tmp_path, sha256="abc")
    with pytest.raises(ValueError, match="leave --sha256 out"):
        fetch(trace_at(server), tmp_path, sha256="0" * 64)
    assert server.ranges == []


def test_the_cache_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "replay" / "traces"


@pytest.mark.parametrize("trace", PUBLIC_TRACES, ids=lambda trace: trace.name)
def test_a_public_trace_is_pinned_as_far_as_its_hash_is_known(trace: PublicTrace) -> None:
    assert trace.address.startswith("https://")
    assert trace.licence in ("CC-BY-4.0", "Apache-2.0")
    assert public_trace(trace.name) is trace
    if trace.sha256 is not None:
        assert len(trace.sha256) == 64
        assert "/master/" not in trace.address
        assert "/main/" not in trace.address
        assert published(trace.sha256) is trace


def test_an_unknown_trace_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(ValueError, match="no public trace 'azur'; there are azure-2023-conv"):
        public_trace("azur")
