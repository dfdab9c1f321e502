"""The gate before every route: who may ask, from where, how much, and how long it may take to say it.

Any web page that a user has open can send requests to 127.0.0.1, and a name that it owns can be made to point there.
So before anything is read:

    Host             a name of this machine, with this port             else 403   (a rebound name)
    Origin           absent, or this very server                        else 403   (another page; "null" too)
    Sec-Fetch-Site   absent, same-origin or none                        else 403
    Authorization    the token, compared in constant time               else 401   (all but /health)
    Content-Type     application/json, where there is a body            else 415   (a plain form cannot say it)
    body             at most MAX_BODY bytes, within BODY_SECONDS        else 413, 408

Where another address than this machine's own is bound, the token is required and any Host will do: a page that
rebinds a name has no token.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterable

import orjson
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from burnish.serving.protocol import ApiError

MAX_BODY = 2 * 1024 * 1024
BODY_SECONDS = 30.0
SEND_SECONDS = 60.0
"""How long a client may leave a piece of its answer unread."""

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")
HEADERS = (
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"x-content-type-options", b"nosniff"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
)


class Gate:
    """ASGI middleware that lets through what passes every rule, with its body read."""

    def __init__(self, app: ASGIApp, *, token: str | None = None, any_host: bool = False) -> None:
        if any_host and token is None:
            raise ValueError("without a token only this machine's own names may be asked for")
        self._app = app
        self._token = token.encode() if token is not None else None
        self._any_host = any_host

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            raise RuntimeError(f"no {scope['type']} here")
        bounded = _bounded(send)
        try:
            self._check(scope)
            body = await _body(scope, receive)
        except ApiError as error:
            await refuse(error, bounded)
            return
        if body is not None:
            await self._app(scope, _replayed(body, receive), bounded)

    def _check(self, scope: Scope) -> None:
        headers = _headers(scope)
        self._check_host(scope, headers.get(b"host", []), headers.get(b"origin", []))
        if any(site not in (b"same-origin", b"none") for site in headers.get(b"sec-fetch-site", [])):
            raise ApiError(403, "requests from other sites are not answered", code="cross_site")
        if self._token is not None and scope["path"] != "/health":
            given = headers.get(b"authorization", [b""])
            kind, _, token = given[0].partition(b" ")
            fits = secrets.compare_digest(token.strip(), self._token)
            if len(given) != 1 or kind.lower() != b"bearer" or not fits:
                raise ApiError(
                    401,
                    "this server wants its token: Authorization: Bearer TOKEN",
                    code="invalid_api_key",
                    headers={"www-authenticate": "Bearer"},
                )
        if scope["method"] == "POST":
            kinds = headers.get(b"content-type", [b""])
            if len(kinds) != 1 or kinds[0].partition(b";")[0].strip().lower() != b"application/json":
                raise ApiError(415, "the body is sent as Content-Type: application/json", code="content_type")
            if headers.get(b"content-encoding", []):
                raise ApiError(415, "the body is sent uncompressed", code="content_encoding")

    def _check_host(self, scope: Scope, hosts: list[bytes], origins: list[bytes]) -> None:
        allowed = _own_names(scope)
        if len(hosts) != 1 or not (self._any_host or hosts[0].lower() in allowed):
            raise ApiError(403, "the Host header does not name this server", code="host")
        same = b"http://" + hosts[0].lower()
        if any(origin.lower() != same for origin in origins):
            raise ApiError(403, "requests from other origins are not answered", code="origin")


async def refuse(error: ApiError, send: Send) -> None:
    """Answer with an error."""
    body = orjson.dumps(error.as_dict())
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    headers += [(key.encode(), value.encode()) for key, value in error.headers.items()]
    if error.status in (408, 413):  # the rest of the body is not waited for
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _own_names(scope: Scope) -> set[bytes]:
    _, port = scope["server"]
    names = {f"{name}:{port}".encode() for name in LOOPBACK_NAMES}
    return names | {name.encode() for name in LOOPBACK_NAMES} if port == 80 else names


def _headers(scope: Scope) -> dict[bytes, list[bytes]]:
    found: dict[bytes, list[bytes]] = {}
    pairs: Iterable[tuple[bytes, bytes]] = scope["headers"]
    for key, value in pairs:
        found.setdefault(key.lower(), []).append(value)
    return found


async def _body(scope: Scope, receive: Receive) -> bytes | None:
    """The whole body; None where the client went away."""
    declared = _headers(scope).get(b"content-length", [b"0"])[0]
    if not declared.isdigit() or len(declared) > 12 or int(declared) > MAX_BODY:
        raise ApiError(413, f"a body has at most {MAX_BODY:,} bytes", code="body_too_large")
    pieces: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return None
                pieces.append(message.get("body", b""))
                size += len(pieces[-1])
                if size > MAX_BODY:
                    raise ApiError(413, f"a body has at most {MAX_BODY:,} bytes", code="body_too_large")
                if not message.get("more_body", False):
                    return b"".join(pieces)
    except TimeoutError:
        raise ApiError(408, f"the body took longer than {BODY_SECONDS:.0f} s", code="timeout") from None


def _replayed(body: bytes, receive: Receive) -> Receive:
    given = False

    async def again() -> Message:
        nonlocal given
        if not given:
            given = True
            return {"type": "http.request", "body": body, "more_body": False}
        return await receive()

    return again


def _bounded(send: Send) -> Send:
    """Each message gets the headers that all answers have, and a limit on how long it may lie unread."""

    async def guarded(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", []), *HEADERS]}
        async with asyncio.timeout(SEND_SECONDS):
            await send(message)

    return guarded
