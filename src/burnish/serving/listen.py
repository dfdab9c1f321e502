"""The socket: where the server listens, who may, and how it comes to an end.

An address that other machines reach is bound with a token only. The token lies in a file that nobody else can read
(made on first use) or in BURNISH_SERVE_TOKEN; it is in no argument, for arguments can be read by every user.
On SIGTERM or Ctrl-C no request is taken any more, those accepted are answered, and the process ends.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import re
import secrets
import socket
import stat
from pathlib import Path
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from burnish.errors import UsageError
from burnish.serving.gate import Gate

TOKEN_VARIABLE = "BURNISH_SERVE_TOKEN"
SHORTEST_TOKEN = 16
HEADER_SECONDS = 10.0
MAX_CONNECTIONS = 1_024
BACKLOG = 512
_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]+")


class BoundedProtocol(H11Protocol):
    """uvicorn's HTTP, with a limit on how long a request's headers may take and on how many connect."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the clock; one connection too many is closed."""
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            transport.close()
            return
        self._wait_for_headers()

    def data_received(self, data: bytes) -> None:
        """Stop the clock when headers are whole, start it when a next request begins."""
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._stop_waiting()
        elif self._deadline is None:
            self._wait_for_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """No clock is left running."""
        self._stop_waiting()
        super().connection_lost(exc)

    def _wait_for_headers(self) -> None:
        self._deadline = self.loop.call_later(HEADER_SECONDS, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def find_token(host: str, file: Path | None) -> str | None:
    """The token that requests must bring; None where none is wanted. UsageError where one must be and is not."""
    token = os.environ.get(TOKEN_VARIABLE) or (None if file is None else _token_in(file))
    if token is None and not is_loopback(host):
        raise UsageError(
            f"--host {host} without a token",
            rule="an address that other machines reach is served with a token only",
            remedy="--token-file FILE (made on first use), or keep the default, 127.0.0.1",
        )
    if token is not None and (len(token) < SHORTEST_TOKEN or not _TOKEN.fullmatch(token)):
        raise UsageError(
            f"a token of {len(token)} characters",
            rule=f"a token has {SHORTEST_TOKEN} characters or more, letters, digits and ._~+/=- only",
            remedy="--token-file FILE with a FILE that is not there yet: burnish writes a random one",
        )
    return token


def _token_in(file: Path) -> str:
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except FileExistsError:
        pass
    except OSError as error:
        raise _unusable(file, str(error)) from error
    else:
        with os.fdopen(descriptor, "w") as made:
            made.write(secrets.token_urlsafe(32) + "\n")
    try:
        mode = stat.S_IMODE(file.stat().st_mode)
        token = file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise _unusable(file, str(error)) from error
    if mode & 0o077:
        raise _unusable(file, f"others may read it (mode {mode:o})")
    return token


def _unusable(file: Path, why: str) -> UsageError:
    return UsageError(
        f"--token-file {file}: {why}",
        rule="the token's file is readable by its owner alone",
        remedy=f"chmod 600 {file}, or name a file that is not there yet",
    )


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens at an address; UsageError where it cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host.strip("[]"), port))
        bound.listen(BACKLOG)
    except OSError as error:
        bound.close()
        raise UsageError(
            f"{host}:{port}: {error.strerror or error}",
            rule="a server listens on an address of this machine and a port that is free",
            remedy="--port 0 takes a free port",
        ) from error
    return bound


def make_server(app: Gate, *, drain_seconds: int = 60) -> uvicorn.Server:
    """A server that logs no requests and no prompts, and drains when it is told to stop."""
    settings: dict[str, Any] = {
        "http": BoundedProtocol,
        "ws": "none",
        "lifespan": "off",
        "log_level": "warning",
        "access_log": False,
        "server_header": False,
        "date_header": False,
        "proxy_headers": False,
        "timeout_keep_alive": 30,
        "timeout_graceful_shutdown": drain_seconds,
        "backlog": BACKLOG,
    }
    return uvicorn.Server(uvicorn.Config(app, **settings))
