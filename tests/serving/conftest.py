"""A server on a free port of this machine, in a thread of the test's process, so that its slots can be seen."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from burnish.recipe.load import load_recipe
from burnish.serving.app import Desk, build_app
from burnish.serving.compute import Computer
from burnish.serving.engine import Engine
from burnish.serving.listen import bind, make_server
from burnish.serving.roster import Roster, load_roster
from burnish.training.run import train
from tests.conftest import conversation, write_jsonl


@dataclass
class Running:
    """A server that runs, and what it is made of."""

    port: int
    roster: Roster
    engine: Engine
    desk: Desk
    server: uvicorn.Server

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def ask(
        self, method: str, path: str, body: Any = None, *, headers: dict[str, str] | None = None
    ) -> tuple[int, Any, dict[str, str]]:
        """One plain request: status, JSON, headers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        given = {"Content-Type": "application/json"} if data is not None else {}
        connection.request(method, path, data, {**given, **(headers or {})})
        with contextlib.closing(connection.getresponse()) as response:
            text = response.read()
            found = {key.lower(): value for key, value in response.getheaders()}
            return response.status, json.loads(text) if text else None, found

    def is_empty(self) -> bool:
        return (self.desk.admitted, self.engine.in_use, self.engine.waiting) == (0, 0, 0)

    def becomes_empty(self, seconds: float = 20.0) -> bool:
        """Whether every slot and place is free, before long."""

        async def wait() -> bool:
            for _ in range(int(seconds / 0.02)):
                if self.is_empty():
                    return True
                await asyncio.sleep(0.02)
            return False

        return asyncio.run(wait())


@contextmanager
def running(
    roster: Roster, *, slots: int = 4, queue: int = 64, max_tokens: int = 256, token: str | None = None
) -> Iterator[Running]:
    with Computer(roster, width=slots) as computer, Engine(computer) as engine:
        desk = Desk(roster, engine, queue_length=queue, max_tokens=max_tokens)
        socket = bind("127.0.0.1", 0)
        server = make_server(build_app(desk, token=token), drain_seconds=5)
        loops: list[asyncio.AbstractEventLoop] = []

        async def serve() -> None:
            loops.append(asyncio.get_running_loop())
            await server.serve(sockets=[socket])

        thread = threading.Thread(target=asyncio.run, args=(serve(),), daemon=True)
        thread.start()
        try:
            yield Running(socket.getsockname()[1], roster, engine, desk, server)
        finally:
            server.should_exit = True
            thread.join(timeout=60)
            if (
                thread.is_alive()
            ):  # seen once, on a loaded machine, with nobody connected: say what it waits for
                waiting = [str(task.get_stack()) for loop in loops for task in asyncio.all_tasks(loop)]
                warnings.warn(f"uvicorn did not end: {waiting}", stacklevel=1)
            desk.close()


@pytest.fixture(scope="session")
def marble() -> Iterator[Running]:
    with running(load_roster(["marble"])) as found:
        yield found


Trained = Callable[..., Path]


@pytest.fixture(scope="session")
def trained(
    model_directory: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """A finished run of the tiny Llama, by name and settings."""
    place = tmp_path_factory.mktemp("runs")
    data = write_jsonl(place / "train.jsonl", [conversation(index) for index in range(24)])

    def make(name: str, **settings: Any) -> Path:
        if not (place / name / "final").is_dir():
            given = {
                "model": str(model_directory()),
                "datasets": str(data),
                "output_dir": str(place),
                "run_name": name,
                "max_steps": 3,
                "global_batch_size": 8,
                "val_set_size": 0,
                "dtype": "float32",
                **settings,
            }
            train(load_recipe(None, given))
        return place / name

    return make


@pytest.fixture(scope="session")
def two_runs(trained: Trained) -> tuple[Path, Path]:
    """Two LoRA runs of one base, whose answers differ from the base's and from each other's."""
    return (
        trained("poet", adapter="lora", learning_rate=5e-2, seed=1),
        trained("pirate", adapter="lora", learning_rate=5e-2, seed=2),
    )
