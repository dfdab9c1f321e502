"""Many clients at once against a server: answers whole and streamed, clients that leave, and nonsense.

`expected` is asked first, one request after the other. Then `clients` run side by side; every answer that is read to
its end must be the expected one, to the last bit of its log-probabilities.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.serving.conftest import Running

PROMPTS = (
    "The capital of France is", "Gold is a metal that", "The cat", "In the year 1900 the", "Water freezes at",
    "A lion is an animal that lives in", "The opposite of hot is", "Paris is the capital of", "What is the sun?",
    "Who wrote the book", "The moon", "Iron", "A piano is", "The sea is", "One of the oldest", "Bread is made of",
)  # fmt: skip
NONSENSE = (
    b"{", b"[]", b'{"model": 1}', b"\xff",
    b'{"model": "nobody", "messages": [{"role": "user", "content": "Hi"}]}',
)  # fmt: skip


@dataclass
class Outcome:
    """What a campaign saw."""

    statuses: Counter[int] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


def body_of(model: str, number: int, *, stream: bool) -> dict[str, Any]:
    prompt = PROMPTS[number % len(PROMPTS)] + f" {number}" * (number % 3)
    return {
        "model": model, "messages": [{"role": "user", "content": prompt}], "temperature": 0,
        "max_tokens": 4 + number % 20, "logprobs": True, "stream": stream,
    }  # fmt: skip


def expected(server: Running, models: Sequence[str], numbers: int) -> dict[tuple[str, int], Any]:
    """Each answer, asked alone."""
    found = {}
    for model in models:
        for number in range(numbers):
            status, answer, _ = server.ask(
                "POST", "/v1/chat/completions", body_of(model, number, stream=False)
            )
            assert status == 200, answer
            found[model, number] = _seen(answer["choices"][0]["message"]["content"], answer["choices"][0])
    return found


async def campaign(
    server: Running, answers: dict[tuple[str, int], Any], *, clients: int, requests: int, seed: int = 0
) -> Outcome:
    """`clients` side by side, each with so many requests."""
    outcome = Outcome()

    async def client(number: int) -> None:
        draw = random.Random(seed * 1000 + number)
        for _ in range(requests):
            kinds = ["whole", "stream", "leaves a stream", "leaves", "nonsense"]
            kind = draw.choices(kinds, [35, 25, 15, 15, 10])[0]
            outcome.kinds[kind] += 1
            await _one(server, kind, draw.choice(list(answers)), answers, outcome, draw)

    await asyncio.gather(*(client(number) for number in range(clients)))
    return outcome


async def _one(
    server: Running,
    kind: str,
    key: tuple[str, int],
    answers: dict[Any, Any],
    outcome: Outcome,
    draw: random.Random,
) -> None:
    body = json.dumps(body_of(*key, stream="stream" in kind)).encode()
    if kind == "nonsense":
        body = draw.choice(NONSENSE)
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        writer.write(
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nConnection: close\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        await writer.drain()
        if kind == "leaves":
            await asyncio.sleep(draw.random() * 0.1)
            return
        if kind == "leaves a stream":
            await reader.readuntil(b"data: ")
            await asyncio.sleep(draw.random() * 0.02)
            return
        head, _, rest = (await reader.read()).partition(b"\r\n\r\n")
        status = int(head.split()[1])
        outcome.statuses[status] += 1
        if kind == "nonsense":
            if status not in (400, 404):
                outcome.wrong.append(f"nonsense: {status}")
        elif status != 200:
            outcome.wrong.append(f"{key}: {status} {rest[:200]!r}")
        else:
            seen = _streamed(rest) if kind == "stream" else _whole(rest)
            if seen != answers[key]:
                outcome.wrong.append(f"{key} {kind}: {seen} for {answers[key]}")
    finally:
        writer.close()


def _whole(body: bytes) -> Any:
    choice = json.loads(body)["choices"][0]
    return _seen(choice["message"]["content"], choice)


def _streamed(body: bytes) -> Any:
    """The answer of a chunked body of events."""
    text = b""
    while body:
        size, _, body = body.partition(b"\r\n")
        text += body[: int(size, 16)]
        body = body[int(size, 16) + 2 :]
    lines = [line.removeprefix("data: ") for line in text.decode().split("\n\n") if line]
    assert lines[-1] == "[DONE]"
    choices = [json.loads(line)["choices"][0] for line in lines[:-1]]
    content = "".join(choice["delta"].get("content") or "" for choice in choices)
    tokens = [entry for choice in choices for entry in (choice["logprobs"] or {}).get("content", [])]
    return _seen(content, {"logprobs": {"content": tokens}, "finish_reason": choices[-1]["finish_reason"]})


def _seen(content: str, choice: dict[str, Any]) -> Any:
    logprobs = [entry["logprob"] for entry in choice["logprobs"]["content"]]
    return content, logprobs, choice["finish_reason"]
