"""The routes: OpenAI's chat, completions and models over one engine.

POST /v1/chat/completions     POST /v1/completions     GET /v1/models     GET /v1/models/ID     GET /health
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from burnish.serving.answers import ChatForm, Form, TextForm, gathered, streamed
from burnish.serving.engine import Engine, Ticket
from burnish.serving.gate import Gate
from burnish.serving.prompting import Prepared, Preparer
from burnish.serving.protocol import ApiError, ChatRequest, CompletionRequest, read_request
from burnish.serving.roster import Roster, Served

LOG = logging.getLogger("burnish.serving")
CLIENT_GONE = 499
T = TypeVar("T")


class Desk:
    """Takes requests in, up to a limit, and answers them; holds a place for each until it is answered."""

    def __init__(self, roster: Roster, engine: Engine, *, queue_length: int, max_tokens: int) -> None:
        self.engine = engine
        self.roster = roster
        self.admitted = 0
        self.started = int(time.time())
        self._limit = engine.slots + queue_length
        self._preparer = Preparer(roster, max_tokens=max_tokens)
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="burnish-prompts")

    def close(self) -> None:
        """End the threads in which prompts are made ready."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def enter(self) -> None:
        """Take a place; ApiError 429 where all slots and the whole queue are taken."""
        if self.admitted >= self._limit:
            raise ApiError(
                429,
                f"{self.admitted} requests are being answered or waiting; there is no room for more",
                code="queue_full",
                headers={"retry-after": "1"},
            )
        self.admitted += 1

    def leave(self) -> None:
        """Give a place back."""
        self.admitted -= 1

    def chat(self, body: bytes) -> tuple[Prepared, Form, bool]:
        """Read and render a chat request; in a worker thread."""
        request = read_request(ChatRequest, body)
        prepared = self._preparer.chat(request)
        return prepared, ChatForm.of(request, prepared), request.stream

    def completion(self, body: bytes) -> tuple[Prepared, Form, bool]:
        """Read and encode a completion request; in a worker thread."""
        request = read_request(CompletionRequest, body)
        prepared = self._preparer.completion(request)
        return prepared, TextForm(prepared, request), request.stream

    async def answer(
        self, request: Request, prepare: Callable[[bytes], tuple[Prepared, Form, bool]]
    ) -> Response:
        """Answer one request; its place is free and its slots are when it is over, however it ends."""
        body = await request.body()
        self.enter()
        held = Held(self)
        try:
            loop = asyncio.get_running_loop()
            prepared, form, stream = await loop.run_in_executor(self._threads, prepare, body)
            held.ticket = self.engine.submit(prepared.asks)
            events = held.ticket.events()
            if stream:
                return EventStream(streamed(form, events, LOG.error), held)
            found = await _unless_gone(request, gathered(form, events))
            return Response(status_code=CLIENT_GONE) if found is None else _json(found)
        finally:
            if not held.streams:
                held.release()


class Held:
    """What a request holds: a place at the desk and, once asked, slots of the engine. Released once."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._released = False
        self.ticket: Ticket | None = None
        self.streams = False

    def release(self) -> None:
        """Give all of it back."""
        if not self._released:
            self._released = True
            self._desk.leave()
            if self.ticket is not None:
                self._desk.engine.cancel(self.ticket)


class EventStream(StreamingResponse):
    """Server-sent events that release what they hold when the last is sent, or the client is gone."""

    def __init__(self, events: AsyncIterator[bytes], held: Held) -> None:
        super().__init__(events, media_type="text/event-stream")
        self._held = held
        held.streams = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._held.release()


def build_app(desk: Desk, *, token: str | None = None, any_host: bool = False) -> Gate:
    """The whole application, behind its gate."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        return await desk.answer(request, desk.chat)

    @app.post("/v1/completions")
    async def completions(request: Request) -> Response:
        return await desk.answer(request, desk.completion)

    @app.get("/v1/models")
    async def models() -> Response:
        listed = [_listed(served, desk.started) for served in desk.roster.by_id.values()]
        return _json({"object": "list", "data": listed})

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> Response:
        served = desk.roster.by_id.get(name)
        if served is None:
            raise ApiError(404, "no model of that name", param="model", code="model_not_found")
        return _json(_listed(served, desk.started))

    @app.get("/health")
    async def health() -> Response:
        return _json({"status": "ok"})

    app.add_exception_handler(ApiError, _as_error)
    app.add_exception_handler(HTTPException, _as_error)
    app.add_exception_handler(Exception, _as_error)
    return Gate(app, token=token, any_host=any_host)


async def _unless_gone(request: Request, work: Awaitable[T]) -> T | None:
    """The result; None where the client left before it was there."""
    done = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait({done, gone}, return_when=asyncio.FIRST_COMPLETED)
        return done.result() if done.done() else None
    finally:
        for task in (done, gone):
            task.cancel()


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _as_error(request: Request, error: Exception) -> Response:
    """Every error in OpenAI's form; of a bug nothing is told but that there is one."""
    if isinstance(error, HTTPException):
        error = ApiError(error.status_code, str(error.detail), headers=dict(error.headers or {}))
    if not isinstance(error, ApiError):
        error = ApiError(500, "the server has a fault; its log tells more", code="internal_error")
    return _json(error.as_dict(), error.status, error.headers)


def _json(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(value), status_code=status, headers=headers, media_type="application/json")


def _listed(served: Served, created: int) -> dict[str, Any]:
    return {
        "id": served.id,
        "object": "model",
        "created": created,
        "owned_by": "burnish",
        "root": served.base if served.adapter else served.id,
        "parent": served.base if served.adapter else None,
    }
