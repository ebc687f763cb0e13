"""Serving the page: to whom, under which policy of content, and until Ctrl-C."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from errno import EADDRINUSE
from ipaddress import ip_address
from socket import AF_INET, AF_INET6, create_server
from urllib.parse import urlsplit

from dash import Dash
from flask import Response, abort, request
from werkzeug.serving import BaseWSGIServer, make_server

from replay.report_page import script_hash


def guard(app: Dash, host: str, script: str) -> None:
    """Let the app answer only who asks for this host, and let the page run its own scripts only.

    A page of somewhere else can make a browser send requests here. It cannot make them look as sent by this
    page: their origin tells, and the name of their host, should that name have been pointed at this machine.

    Args:
        app: The app, all its callbacks made.
        host: Name or address that it listens on.
        script: The page's own.
    """
    hashes = " ".join([*app.csp_hashes(), script_hash(script)])
    policy = (
        f"default-src 'self'; script-src 'self' {hashes}; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data: blob:; frame-ancestors 'none'; form-action 'none'; base-uri 'none'"
    )

    def check() -> None:
        origin = request.headers.get("Origin")
        if not is_own(request.host, host):
            abort(400, f"host {request.host!r} is not served; use the address printed, or give --host")
        if origin is not None and urlsplit(origin).netloc != request.host:
            abort(403, "another page asks; open this one at the address printed")

    def tell(response: Response) -> Response:
        response.headers["Content-Security-Policy"] = policy
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Referrer-Policy"] = "no-referrer"
        return response

    app.server.before_request(check)
    app.server.after_request(tell)


def is_own(asked: str, host: str) -> bool:
    """Say whether the host that a request asks for is this one: an address, localhost, or the name given.

    Args:
        asked: As the header `Host` tells it, perhaps with a port.
        host: What the server listens on.
    """
    name = (urlsplit(f"//{asked}").hostname or "").removesuffix(".")
    return name in ("localhost", host.lower()) or is_address(name)


def is_address(name: str) -> bool:
    """Say whether a name is an IP address, which no other site can point here."""
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Say whether only this machine reaches a host."""
    return host == "localhost" or (is_address(host) and ip_address(host).is_loopback)


@contextmanager
def server_of(app: Dash, host: str, port: int) -> Iterator[BaseWSGIServer]:
    """Give a server that listens; its `serve_forever` ends quietly at Ctrl-C.

    Args:
        app: Guarded.
        host: Name or address to listen on.
        port: 0 for any that is free.

    Raises:
        ValueError: The port is in use or may not be used, or there is no such host here.
    """
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # no line a request
    try:
        listening = create_server((host, port), family=AF_INET6 if ":" in host else AF_INET)
    except OSError as error:
        if error.errno == EADDRINUSE:
            raise ValueError(
                f"port {port} is in use; give another --port, or 0 for any that is free"
            ) from error
        reason = (error.strerror or str(error)).partition(" (")[0]
        raise ValueError(
            f"cannot listen at {host}, port {port}: {reason}; give another --host or --port"
        ) from error
    with listening:
        server = make_server(host, port, app.server, threaded=True, fd=listening.fileno())
        yield server
