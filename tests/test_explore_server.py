"""`replay explore` over HTTP: who is answered, what the page may run, and how the command begins and ends."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from click.testing import CliRunner
from explore_page import make_run, serving, subject_of
from toy_trace import toy_trace

from replay.explore_choice import SHARED
from replay.explore_page import control_of
from replay.explore_server import is_loopback, is_own
from replay.main import main

TRACE = toy_trace([0.5 * row for row in range(12)], 100, 20)
MINE = """
from pathlib import Path

from sim.immediate import Immediate

Path(__file__).with_suffix(".ran").touch()


class Mine(Immediate):
    pass
"""
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The record of 12 requests."""
    return make_run(TRACE, tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="module")
def port(run: Path) -> Iterator[int]:
    """Where the page about it is served."""
    with serving(subject_of(run)) as port:
        yield port


def answer(
    port: int, path: str = "/", body: object = None, headers: dict[str, str] | None = None
) -> tuple[int, str, dict[str, str]]:
    """Return status, text and headers of an answer to a GET, or to a POST of `body`."""
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        text = None if body is None else json.dumps(body)
        connection.request("GET" if body is None else "POST", path, text, headers or {})
        response = connection.getresponse()
        return response.status, response.read().decode(), dict(response.getheaders())
    finally:
        connection.close()


def asked(search: str) -> dict[str, Any]:
    """Return what the page sends when its address has become `search`."""
    parts = ["pictures.data", "subtitle.children", "numbers.children", "facts.children", "notice.children"]
    parts += ["simulate.disabled", "command.children", "controls.hidden"]
    outputs = [dict(zip(("id", "property"), part.split("."), strict=True)) for part in parts]
    inputs = [
        {"id": "url", "property": "search", "value": search},
        {"id": "simulate", "property": "n_clicks", "value": None},
    ]
    output = f"..{'...'.join(parts)}.."
    return {"output": output, "outputs": outputs, "inputs": inputs, "changedPropIds": ["url.search"]}


def test_the_page_and_all_that_it_loads_come_from_here(port: int) -> None:
    status, page, _ = answer(port)
    assert status == 200
    assert "explore" in page
    assert "//cdn" not in page
    assert 'src="http' not in page
    assert 'href="http' not in page


def test_the_page_may_run_its_own_scripts_only(port: int) -> None:
    _, _, headers = answer(port)
    policy = headers["Content-Security-Policy"]
    scripts = policy.partition("script-src")[2].partition(";")[0]
    assert "'self'" in scripts
    assert "unsafe" not in scripts
    assert "frame-ancestors 'none'" in policy


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8050", "127.0.0.1.evil.example", ""])
def test_a_name_that_was_pointed_at_this_machine_is_not_answered(port: int, host: str) -> None:
    for path in ("/", "/_dash-layout", "/_dash-dependencies"):
        assert answer(port, path, headers={"Host": host})[0] == 400
    assert answer(port, "/_dash-update-component", asked(""), {**JSON, "Host": host})[0] == 400


@pytest.mark.parametrize("host", ["localhost", "localhost:9000", "127.0.0.1:1", "[::1]:8050"])
def test_this_machine_is_answered_under_its_own_names(port: int, host: str) -> None:
    assert answer(port, headers={"Host": host})[0] == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:1"])
def test_a_page_of_another_site_cannot_ask(port: int, origin: str) -> None:
    headers = {**JSON, "Origin": origin}
    assert answer(port, "/_dash-update-component", asked(""), headers)[0] == 403
    own = {**JSON, "Origin": f"http://127.0.0.1:{port}"}
    assert answer(port, "/_dash-update-component", asked(""), own)[0] == 200


def chosen(policy: str) -> dict[str, Any]:
    """Return what the page sends when another policy has been chosen."""
    values = [
        {"id": control_of(name), "property": "value", "value": policy if name == "policy" else ""}
        for name in SHARED
    ]
    menu = (control_of("policy"), "options")
    parts = [
        ("url", "search"),
        ("options", "children"),
        menu,
        *((control_of(name), "value") for name in SHARED),
    ]
    outputs = [{"id": one, "property": what} for one, what in parts]
    return {
        "output": f"..{'...'.join('.'.join(part) for part in parts)}..",
        "outputs": outputs,
        "inputs": [{"id": "url", "property": "search", "value": ""}, *values, []],
        "state": [[]],
        "changedPropIds": [f"{control_of('policy')}.value"],
    }


def test_a_request_that_names_a_file_as_policy_is_refused_and_the_file_not_run(
    port: int, tmp_path: Path
) -> None:
    path = tmp_path / "mine.py"
    path.write_text(MINE)
    status, text, _ = answer(port, "/_dash-update-component", asked(f"?policy={path}:Mine"), JSON)
    assert status == 200
    assert "is offered" in json.loads(text)["response"]["notice"]["children"]
    for policy in ("pace", f"{path}:Mine", f"pace+{path}:Mine"):
        status, text, _ = answer(port, "/_dash-update-component", chosen(policy), JSON)
        assert status == 200
        search = json.loads(text)["response"]["url"]["search"]
        assert parse_qs(search.removeprefix("?"))["policy"] == [policy]
    assert not path.with_suffix(".ran").exists()


@pytest.mark.parametrize("path", ["/assets/explore.py", "/assets/%2e%2e/explore.py", "/explore.py"])
def test_no_file_of_the_machine_is_served(port: int, path: str) -> None:
    assert "click" not in answer(port, path)[1]


def test_what_a_request_asks_in_vain_does_not_stop_the_server(port: int) -> None:
    bodies: list[object] = [{}, [], {"output": "nothing"}, asked("?replicas=1e9&stretch=nan")]
    for body in bodies:
        answer(port, "/_dash-update-component", body, JSON)
    assert answer(port)[0] == 200


def test_a_fault_is_told_in_the_page_and_on_the_terminal(
    run: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: object) -> None:
        raise ZeroDivisionError("nothing works")

    monkeypatch.setattr("replay.explore_runs.simulated", fail)
    with serving(subject_of(run)) as port:
        status, text, _ = answer(port, "/_dash-update-component", asked("?replicas=2"), JSON)
    assert status == 200
    told = json.loads(text)["sideUpdate"]["notice"]["children"]
    assert told == "a fault of replay: nothing works; the terminal tells more"
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize(
    ("host", "is_it"), [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False)]
)
def test_loopback_is_told_from_other_addresses(host: str, is_it: bool) -> None:
    assert is_loopback(host) == is_it


def test_a_name_given_by_host_is_answered() -> None:
    assert is_own("gpu7.lab:8050", "gpu7.lab")
    assert is_own("GPU7.lab.", "gpu7.lab")
    assert not is_own("gpu8.lab", "gpu7.lab")


def test_a_port_in_use_is_one_line(run: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = CliRunner().invoke(main, [*line(run), "--port", port])
    assert result.exit_code == 2
    assert result.stderr.splitlines() == [
        f"Error: port {port} is in use; give another --port, or 0 for any that is free"
    ]


def test_an_address_of_another_machine_is_one_line(run: Path) -> None:
    result = CliRunner().invoke(main, [*line(run), "--host", "192.0.2.1"])
    assert result.exit_code == 2
    (told,) = result.stderr.splitlines()
    assert told.startswith("Error: cannot listen at 192.0.2.1, port 8050: ")


def test_dash_that_is_missing_is_one_line(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dash", None)
    result = CliRunner().invoke(main, line(run))
    assert result.exit_code == 2
    assert "pip install 'replay[explore]'" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def line(run: Path) -> list[str]:
    return ["explore", str(run), "--table", str(run.parent / "toy-table")]


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_ctrl_c_ends_it_without_a_word_and_other_hosts_are_warned_of(run: Path, host: str) -> None:
    command = [sys.executable, "-m", "replay", *line(run), "--port", "0", "--host", host]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        address = process.stdout.readline()
        assert address.startswith(f"http://{host}:")
        assert answer(int(address.strip().rstrip("/").rpartition(":")[2]))[0] == 200
        os.kill(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode in (0, 130)
    assert "Traceback" not in errors
    assert ("warning: whoever reaches 0.0.0.0" in errors) == (host == "0.0.0.0")
