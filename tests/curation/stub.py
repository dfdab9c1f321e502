"""A stub endpoint that speaks OpenAI's chat completions, and counts what it was paid for."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[[dict[str, Any]], str]


def last_said(body: dict[str, Any]) -> str:
    return str(body["messages"][-1]["content"])


def echo(body: dict[str, Any]) -> str:
    return f"You said: {last_said(body)} [{body['seed']}]"


class Stub:
    """`paid` counts answers by request; `faults` are statuses given before the next answers; `delay` is per answer."""

    def __init__(self, answer: Answer, delay: float = 0.0) -> None:
        self.answer = answer
        self.delay = delay
        self.paid: Counter[str] = Counter()
        self.headers: list[dict[str, str]] = []
        self.bodies: list[dict[str, Any]] = []
        self.faults: list[tuple[int, dict[str, str]]] = []
        self.finish_reason = "stop"
        self.lock = threading.Lock()
        self.url = ""

    def serve(
        self, body: dict[str, Any], headers: dict[str, str]
    ) -> tuple[int, dict[str, str], dict[str, Any]]:
        name = json.dumps(body, sort_keys=True)
        with self.lock:
            self.headers.append(headers)
            if self.faults:
                status, extra = self.faults.pop(0)
                return status, extra, {"error": {"message": f"no; you sent {headers.get('Authorization')}"}}
            self.bodies.append(body)
        time.sleep(self.delay)
        with self.lock:
            self.paid[name] += 1
        message = {"role": "assistant", "content": self.answer(body)}
        choice = {"index": 0, "message": message, "finish_reason": self.finish_reason}
        usage = {"prompt_tokens": 10, "completion_tokens": 20}
        return 200, {}, {"id": "x", "model": body["model"], "choices": [choice], "usage": usage}


@contextmanager
def stub_endpoint(answer: Answer = echo, *, delay: float = 0.0) -> Iterator[Stub]:
    stub = Stub(answer, delay)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, extra, answered = stub.serve(body, dict(self.headers))
            written = json.dumps(answered).encode()
            try:
                self.send_response(status)
                for name, value in {**extra, "Content-Length": str(len(written))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(written)
            except (BrokenPipeError, ConnectionResetError):
                pass  # the client was killed

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    stub.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield stub
    finally:
        server.shutdown()
        server.server_close()
