"""Clients side by side: no answer depends on them, no slot stays taken, and the server outlives whatever they do."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import burnish
from burnish.models.generate import generate
from burnish.serving.compute import Computer, Memory
from burnish.serving.roster import load_roster
from tests.serving.campaign import body_of, campaign, expected
from tests.serving.conftest import Running, running

CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def poets(two_runs: tuple[Path, Path]) -> Iterator[Running]:
    with running(load_roster([str(run) for run in two_runs]), slots=3) as found:
        yield found


def test_clients_of_base_and_adapters_get_the_answers_that_each_alone_gets(poets: Running) -> None:
    answers = expected(poets, list(poets.roster.by_id), 8)
    outcome = asyncio.run(campaign(poets, answers, clients=12, requests=8))
    assert not outcome.wrong, outcome.wrong[:3]
    assert set(outcome.statuses) == {200, 400, 404} and len(outcome.kinds) == 5
    assert poets.becomes_empty()


def test_a_batch_whose_shape_follows_its_company_is_found_out(
    marble: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Computer.step

    def as_wide_as_needed(self: Computer, memories: Sequence[Memory], tokens: Sequence[int]) -> Any:
        monkeypatch.setattr(self, "width", len(memories))
        try:
            return step(self, memories, tokens)
        finally:
            monkeypatch.setattr(self, "width", 4)

    monkeypatch.setattr(Computer, "step", as_wide_as_needed)
    answers = expected(marble, ["marble"], 6)
    outcome = asyncio.run(campaign(marble, answers, clients=6, requests=4))
    assert any("marble" in wrong for wrong in outcome.wrong)
    assert marble.becomes_empty()


def against_transformers(server: Running, answers: dict[tuple[str, int], Any]) -> None:
    """The answers are those of transformers' own greedy generation, one prompt at a time."""
    served = server.roster.by_id["marble"]
    server.roster.inner.set_attn_implementation("sdpa")
    try:
        for (_, number), (text, _, reason) in answers.items():
            body = body_of("marble", number, stream=False)
            ids = served.tokenizer.prompt_ids(body["messages"])
            stops = sorted(served.stop_ids)
            own = generate(server.roster.model, [ids], stop_ids=stops, max_new_tokens=body["max_tokens"])[0]
            assert (served.tokenizer.decode_answer(own.completion_ids), own.finish_reason) == (text, reason)
    finally:
        server.roster.inner.set_attn_implementation("burnish_rows")


def test_clients_of_marble_get_what_transformers_gives_each_alone(marble: Running) -> None:
    answers = expected(marble, ["marble"], 8)
    against_transformers(marble, answers)
    outcome = asyncio.run(campaign(marble, answers, clients=10, requests=4))
    assert not outcome.wrong, outcome.wrong[:3]
    assert marble.becomes_empty()


@pytest.mark.slow
def test_sixty_four_clients_of_marble_no_wrong_answer_no_5xx_no_slot_lost() -> None:
    with running(load_roster(["marble"]), slots=8) as server:
        answers = expected(server, ["marble"], 48)
        against_transformers(server, answers)
        began = time.monotonic()
        outcome = asyncio.run(campaign(server, answers, clients=64, requests=32))
        print(f"\n{sum(outcome.kinds.values())} requests in {time.monotonic() - began:.0f} s: {outcome}")
        assert not outcome.wrong, outcome.wrong[:3]
        assert set(outcome.statuses) == {200, 400, 404}
        assert server.becomes_empty()


def test_one_request_more_than_slots_and_queue_is_told_to_come_again(
    marble: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()
    step = Computer.step

    def held(self: Computer, *words: Any) -> Any:
        go_on.wait(30)
        return step(self, *words)

    found: list[tuple[int, Any, dict[str, str]]] = []
    with running(marble.roster, slots=1, queue=2) as server:
        monkeypatch.setattr(Computer, "step", held)
        body = body_of("marble", 1, stream=False)
        threads = [
            threading.Thread(target=lambda: found.append(server.ask("POST", CHAT, body))) for _ in range(3)
        ]
        for thread in threads:
            thread.start()
        while server.desk.admitted < 3:
            time.sleep(0.01)
        status, answer, headers = server.ask("POST", CHAT, body)
        assert (status, answer["error"]["code"], headers["retry-after"]) == (429, "queue_full", "1")
        go_on.set()
        for thread in threads:
            thread.join()
        assert [status for status, _, _ in found] == [200] * 3 and server.becomes_empty()
        assert server.ask("POST", CHAT, body)[0] == 200


@pytest.mark.parametrize("stream", [False, True])
def test_who_leaves_frees_the_slot_long_before_the_answer_would_end(
    stream: bool, marble: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = []
    step = Computer.step

    def slow(self: Computer, *words: Any) -> Any:
        steps.append(1)
        time.sleep(0.02)
        return step(self, *words)

    def leave() -> None:
        body = {**body_of("marble", 0, stream=stream), "max_tokens": 256, "logit_bias": {"0": -100}}
        with _begun(marble.port, body):
            while not steps:
                time.sleep(0.01)

    monkeypatch.setattr(Computer, "step", slow)
    for _ in range(3):
        steps.clear()
        leave()
        assert marble.becomes_empty() and len(steps) < 100


@pytest.mark.parametrize("stream", [False, True])
def test_a_fault_while_computing_is_told_and_the_server_goes_on(
    stream: bool, marble: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    step = Computer.step

    def failing(self: Computer, *words: Any) -> Any:
        calls.append(1)
        if len(calls) == 5:
            raise RuntimeError("planted in /some/place")
        return step(self, *words)

    body = {**body_of("marble", 1, stream=stream), "max_tokens": 20}
    with monkeypatch.context() as patch:
        patch.setattr(Computer, "step", failing)
        if stream:
            text = raw(marble, body)
            assert b'"code":"computation_failed"' in text and b"[DONE]" not in text and b"planted" not in text
        else:
            status, answer, _ = marble.ask("POST", CHAT, body)
            assert (status, answer["error"]["type"]) == (500, "server_error")
            assert "planted" not in json.dumps(answer)
    assert marble.becomes_empty()
    assert marble.ask("POST", CHAT, {**body, "stream": False})[0] == 200


def raw(server: Running, body: Any) -> bytes:
    return _rest(_begun(server.port, body))


def test_a_long_prompt_does_not_stop_those_who_are_being_answered(marble: Running) -> None:
    read: list[tuple[int, int]] = []
    served = marble.roster.by_id["marble"]
    with Computer(marble.roster, width=2) as computer:
        assert computer.prompt_tokens == 256
        memory = Memory(served)
        for at in range(0, 1000, 256):
            rows = computer.read(memory, [7] * min(256, 1000 - at))
            read.append((memory.length, len(rows)))
    assert read == [(256, 1), (512, 1), (768, 1), (1000, 1)]


def test_sigterm_answers_what_was_accepted_and_ends(tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(burnish.__file__).parents[1]),
        "PYTHONUNBUFFERED": "1",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "burnish", "serve", "marble", "--port", "0", "--slots", "1"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, cwd=tmp_path,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        line = next(line for line in process.stdout if "serving marble" in line)
        port = int(line.split("127.0.0.1:")[1].split("/")[0])
        body = {**body_of("marble", 0, stream=True), "max_tokens": 100, "logit_bias": {"0": -100}}
        first, second = (_begun(port, body) for _ in range(2))
        told = first.recv(65536)
        process.send_signal(signal.SIGTERM)
        texts = [told + _rest(first), _rest(second)]
        assert told and b"[DONE]" not in told
        assert process.wait(30) in (0, -signal.SIGTERM)
        assert all(text.count(b'"delta":{"content"') > 50 and b"data: [DONE]" in text for text in texts)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def _begun(port: int, body: Any) -> socket.socket:
    data = json.dumps(body).encode()
    connection = socket.create_connection(("127.0.0.1", port), timeout=60)
    connection.sendall(
        f"POST {CHAT} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n".encode()
        + data
    )
    return connection


def _rest(connection: socket.socket) -> bytes:
    with connection:
        return b"".join(iter(lambda: connection.recv(65536), b""))
