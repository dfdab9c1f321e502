"""Who is let in: each cell of the matrix of hosts, origins, sites, types, tokens; sizes and times at their limits."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from burnish.errors import UsageError
from burnish.serving import gate as gate_module
from burnish.serving import listen
from burnish.serving.gate import MAX_BODY, Gate
from burnish.serving.listen import find_token, is_loopback
from tests.serving.conftest import Running, running

PORT = 8123
TOKEN = "t0ken-t0ken-t0ken-t0ken"


async def inner(scope: Any, receive: Any, send: Any) -> None:
    body = (await receive())["body"]
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(len(body)).encode()})


def through(
    gate: Gate,
    headers: list[tuple[str, str]],
    *,
    method: str = "POST",
    path: str = "/v1/chat/completions",
    pieces: tuple[bytes, ...] = (b"{}",),
) -> tuple[int, dict[str, str], bytes]:
    """What the gate answers to one request."""
    sent: list[Any] = []
    waiting = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
    waiting[-1]["more_body"] = False

    async def receive() -> Any:
        if waiting:
            return waiting.pop(0)
        await asyncio.sleep(3600)
        return None

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "server": ("127.0.0.1", PORT),
        "headers": [(key.encode("latin-1"), value.encode("latin-1")) for key, value in headers],
    }
    asyncio.run(gate(scope, receive, send))
    found = {key.decode(): value.decode() for key, value in sent[0]["headers"]}
    return sent[0]["status"], found, sent[1]["body"]


HOSTS = {
    f"localhost:{PORT}": True, f"127.0.0.1:{PORT}": True, f"[::1]:{PORT}": True, f"LOCALHOST:{PORT}": True,
    "evil.example": False, f"evil.example:{PORT}": False, "localhost": False, f"localhost:{PORT + 1}": False,
    f"127.0.0.1.evil.example:{PORT}": False, "": False, f"localhost.:{PORT}": False, f"0.0.0.0:{PORT}": False,
}  # fmt: skip
ORIGINS = {
    None: True, f"http://localhost:{PORT}": True, "null": False, "http://evil.example": False,
    f"https://localhost:{PORT}": False, f"http://127.0.0.1:{PORT}": False, "http://localhost": False,
    f"http://localhost:{PORT}.evil.example": False, "": False,
}  # fmt: skip
SITES = {None: True, "same-origin": True, "none": True, "cross-site": False, "same-site": False, "x": False}
TYPES = {
    "application/json": True, "application/json; charset=utf-8": True, "text/plain": False, None: False,
    "application/x-www-form-urlencoded": False, "multipart/form-data": False, "application/jsonp": False,
}  # fmt: skip
CELLS = [
    *((host, None, None, "application/json") for host in HOSTS),
    *itertools.product([f"localhost:{PORT}"], ORIGINS, SITES, TYPES),
    *itertools.product(["evil.example"], ORIGINS, SITES, TYPES),
]


def headers_of(host: str, origin: str | None, site: str | None, kind: str | None) -> list[tuple[str, str]]:
    pairs = [("host", host), ("origin", origin), ("sec-fetch-site", site), ("content-type", kind)]
    return [(key, value) for key, value in pairs if value is not None]


def test_every_cell_of_the_matrix_has_its_status() -> None:
    gate = Gate(inner)
    wrong = []
    for host, origin, site, kind in CELLS:
        expected = (
            403 if not (HOSTS[host] and ORIGINS[origin] and SITES[site]) else 200 if TYPES[kind] else 415
        )
        status, headers, body = through(gate, headers_of(host, origin, site, kind))
        if status != expected or "access-control-allow-origin" in headers:
            wrong.append((host, origin, site, kind, status))
        if status != 200:
            assert json.loads(body)["error"]["message"]
        assert headers["content-security-policy"].startswith("default-src 'none'")
    assert len(CELLS) == 768 and not wrong


def test_no_host_two_hosts_two_types_and_compressed_bodies_are_refused() -> None:
    gate = Gate(inner)
    good = headers_of(f"localhost:{PORT}", None, None, "application/json")
    assert through(gate, good)[0] == 200
    assert through(gate, good[1:])[0] == 403
    assert through(gate, [("host", f"localhost:{PORT}"), *good])[0] == 403
    assert through(gate, [("content-type", "text/plain"), *good])[0] == 415
    assert through(gate, [("content-encoding", "gzip"), *good])[0] == 415
    assert through(gate, [*good, ("origin", f"http://localhost:{PORT}"), ("origin", "null")])[0] == 403


@pytest.mark.parametrize(
    ("given", "status"),
    [
        ([], 401),
        ([f"Bearer {TOKEN}"], 200),
        ([f"bearer {TOKEN}"], 200),
        ([f"Bearer {TOKEN}x"], 401),
        ([f"Bearer {TOKEN[:-1]}"], 401),
        (["Bearer "], 401),
        (["Bearer"], 401),
        ([f"Basic {TOKEN}"], 401),
        ([TOKEN], 401),
        (["Bearer \xff\xfe"], 401),
        ([f"Bearer {TOKEN}", f"Bearer {TOKEN}"], 401),
        (["Bearer x", f"Bearer {TOKEN}"], 401),
    ],
)
def test_the_token_is_asked_for_on_every_route_but_health(given: list[str], status: int) -> None:
    gate = Gate(inner, token=TOKEN, any_host=True)
    headers = headers_of("gpu-box:9", None, None, "application/json")
    headers += [("authorization", value) for value in given]
    for path in ("/v1/chat/completions", "/v1/models", "/", "/health/", "/docs", f"/v1/models?token={TOKEN}"):
        assert through(gate, headers, path=path)[0] == status
    assert through(gate, headers, path="/health", method="GET")[0] == 200


def test_without_a_token_no_other_host_can_be_let_in() -> None:
    with pytest.raises(ValueError, match="without a token"):
        Gate(inner, any_host=True)


def test_a_body_is_taken_up_to_its_limit_and_no_byte_more() -> None:
    gate = Gate(inner)
    good = headers_of(f"localhost:{PORT}", None, None, "application/json")
    for size, status in ((MAX_BODY, 200), (MAX_BODY + 1, 413)):
        halves = (b" " * (size // 2), b" " * (size - size // 2))
        assert through(gate, good, pieces=halves)[0] == status
        assert through(gate, [*good, ("content-length", str(size))])[0] == status
    assert through(gate, [*good, ("content-length", "-1")])[0] == 413


def test_a_body_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate_module, "BODY_SECONDS", 0.05)
    sent: list[Any] = []

    async def never() -> Any:
        await asyncio.sleep(3600)

    async def send(message: Any) -> None:
        sent.append(message)

    headers = headers_of(f"localhost:{PORT}", None, None, "application/json")
    raw = [(key.encode(), value.encode()) for key, value in headers]
    scope = {"type": "http", "method": "POST", "path": "/", "server": ("127.0.0.1", PORT), "headers": raw}
    asyncio.run(Gate(inner)(scope, never, send))
    assert sent[0]["status"] == 408


def test_only_this_machines_own_addresses_need_no_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(listen.TOKEN_VARIABLE, raising=False)
    own = ("127.0.0.1", "localhost", "::1", "127.1.2.3")
    others = ("0.0.0.0", "::", "192.168.1.5", "example.org", "")
    assert all(is_loopback(host) and find_token(host, None) is None for host in own)
    for host in others:
        with pytest.raises(UsageError, match="without a token"):
            find_token(host, None)
    file = tmp_path / "token"
    token = find_token("0.0.0.0", file)
    assert token is not None and len(token) >= 43 and find_token("0.0.0.0", file) == token
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    file.chmod(0o640)
    with pytest.raises(UsageError, match="others may read"):
        find_token("0.0.0.0", file)
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="token-file"):
        find_token("0.0.0.0", tmp_path / "link")
    monkeypatch.setenv(listen.TOKEN_VARIABLE, "short")
    with pytest.raises(UsageError, match="5 characters"):
        find_token("127.0.0.1", None)


Said = Callable[..., bytes]


def said(server: Running, data: bytes, seconds: float = 10.0) -> bytes:
    """All that comes back on one connection until it is closed."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=seconds) as connection:
        connection.sendall(data)
        found = b""
        while piece := connection.recv(65536):
            found += piece
        return found


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /v1/models HTTP/1.1\r\nConnection: close\r\n\r\n", b"400"),
        (b"GET /v1/models HTTP/1.0\r\n\r\n", b"403"),
        (b"GET /v1/models HTTP/1.1\r\nHost: evil\r\nConnection: close\r\n\r\n", b"403"),
        (b"GET http://evil/v1/models HTTP/1.1\r\nHost: localhost:%d\r\nConnection: close\r\n\r\n", b"404"),
        (b"POST /v1/models HTTP/1.1\r\nHost: localhost:%d\r\nContent-Type: application/json\r\n"
         b"Content-Length: 2\r\nConnection: close\r\n\r\n{}", b"405"),
        (b"OPTIONS /v1/models HTTP/1.1\r\nHost: localhost:%d\r\nConnection: close\r\n\r\n", b"405"),
        (b"GET /v1/chat/completions HTTP/1.1\r\nHost: localhost:%d\r\nConnection: close\r\n\r\n", b"405"),
        (b"GET /docs HTTP/1.1\r\nHost: localhost:%d\r\nConnection: close\r\n\r\n", b"404"),
        (b"GET /openapi.json HTTP/1.1\r\nHost: localhost:%d\r\nConnection: close\r\n\r\n", b"404"),
        (b"GET /v1/models/../../etc/passwd HTTP/1.1\r\nHost: localhost:%d\r\nConnection: close\r\n\r\n", b"404"),
        (b"GET /v1/models HTTP/1.1\r\nHost: localhost:%d\r\nConnection: upgrade, close\r\nUpgrade: websocket\r\n\r\n",
         b"200"),
        (b"GET /v1/models HTTP/1.1\r\nHost: localhost:%d\r\nConnection: close\r\n\r\n", b"200"),
        (b"nonsense\r\n\r\n", b"400"),
    ],
)  # fmt: skip
def test_raw_requests_on_the_socket_have_their_status(
    request_: bytes, status: bytes, marble: Running
) -> None:
    data = request_ % marble.port if b"%d" in request_ else request_
    answer = said(marble, data)
    assert answer.split()[1] == status, answer
    assert b"server:" not in answer.lower() and b"traceback" not in answer.lower()


def test_the_socket_is_this_machines_own(marble: Running) -> None:
    (bound,) = [server.sockets[0].getsockname() for server in marble.server.servers]
    assert bound == ("127.0.0.1", marble.port)


def test_connections_that_say_nothing_are_closed_and_hinder_nobody(
    marble: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listen, "HEADER_SECONDS", 0.5)
    with running(marble.roster, slots=1) as server:
        slow = [socket.create_connection(("127.0.0.1", server.port), timeout=10) for _ in range(150)]
        for number, connection in enumerate(slow):
            connection.sendall((b"", b"GET /v1/models HTTP/1.1\r\nX-Slow: ", b"P")[number % 3])
        assert server.ask("GET", "/v1/models")[0] == 200
        # Closed by the server, with or without a last word.
        assert all(_is_closed(connection) for connection in slow)


def _is_closed(connection: socket.socket) -> bool:
    try:
        while connection.recv(4096):
            pass
    except ConnectionResetError:
        pass
    except TimeoutError:
        return False
    finally:
        connection.close()
    return True


def test_a_connection_too_many_is_closed(marble: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listen, "MAX_CONNECTIONS", 3)
    with running(marble.roster, slots=1) as server:
        held = [socket.create_connection(("127.0.0.1", server.port), timeout=10) for _ in range(3)]
        for connection in held:
            connection.sendall(b"GET")
        extra = socket.create_connection(("127.0.0.1", server.port), timeout=10)
        assert _is_closed(extra)
        for connection in held:
            connection.close()
    assert os.environ.get(listen.TOKEN_VARIABLE) is None
