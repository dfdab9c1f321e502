"""What a request may say: limits at and beyond, fields nobody may choose, and nonsense in every place."""

from __future__ import annotations

import json
import random
import socket
from typing import Any

import pytest

from burnish.serving.protocol import ApiError, ChatRequest, CompletionRequest, read_request
from tests.serving.conftest import Running

USER = {"role": "user", "content": "Hi"}
CHAT: dict[str, Any] = {"model": "marble", "messages": [USER], "max_tokens": 1}
TEXT: dict[str, Any] = {"model": "marble", "prompt": "Hi", "max_tokens": 1}


def refused(server: Running, path: str, body: Any, status: int = 400) -> dict[str, Any]:
    found, answer, _ = server.ask("POST", path, body)
    assert found == status, (body, answer)
    error: dict[str, Any] = answer["error"]
    assert set(error) == {"message", "type", "param", "code"} and error["message"]
    return error


@pytest.mark.parametrize(
    ("field", "last_good", "first_bad"),
    [
        ("n", 4, 5), ("n", 1, 0), ("temperature", 2, 2.1), ("temperature", 0, -0.1), ("top_p", 1, 1.1),
        ("stop", ["a"] * 8, ["a"] * 9), ("stop", "a" * 256, "a" * 257), ("seed", 2**63 - 1, 2**63),
        ("messages", [USER] * 1000, [USER] * 1001), ("top_logprobs", 20, 21), ("presence_penalty", 2, 3),
        ("logit_bias", {"4095": 1}, {"4096": 1}), ("logit_bias", {"1": -100}, {"1": -101}),
        ("max_tokens", 256, 257), ("max_tokens", 1, 0), ("tools", None, [{}] * 129), ("stop", "a", ""),
    ],
)  # fmt: skip
def test_limits_hold_at_their_last_value_and_not_beyond(
    field: str, last_good: Any, first_bad: Any, marble: Running
) -> None:
    extra = {"logprobs": True} if field == "top_logprobs" else {}
    if field != "max_tokens" or last_good == 1:
        short = {**CHAT, "messages": [{"role": "user", "content": "Hi"}], **extra}
        if field != "messages":
            assert marble.ask("POST", "/v1/chat/completions", {**short, field: last_good})[0] == 200
        else:
            read_request(ChatRequest, json.dumps({**short, field: last_good}).encode())
    error = refused(marble, "/v1/chat/completions", {**CHAT, **extra, field: first_bad})
    assert error["param"] is None or field.startswith(error["param"].split(".")[0])


@pytest.mark.parametrize(
    "extra",
    [
        {"chat_template": "{{ 1 }}"},
        {"chat_template_kwargs": {"enable_thinking": False}},
        {"add_generation_prompt": False},
        {"tokenize": True},
        {"add_special_tokens": True},
        {"response_format": {"type": "json_object"}},
        {"tool_choice": "required"},
        {"stream_options": {"include_usage": True}},
        {"top_logprobs": 2},
        {"functions": []},
        {"anything": 1},
        {"temperature": "1"},
        {"temperature": True},
        {"n": 1.5},
        {"stream": "yes"},
        {"model": 3},
    ],
)
def test_what_cannot_be_chosen_is_refused(extra: dict[str, Any], marble: Running) -> None:
    refused(marble, "/v1/chat/completions", {**CHAT, **extra})


@pytest.mark.parametrize(
    "content",
    [
        [{"type": "image_url", "image_url": {"url": "http://169.254.169.254/latest"}}],
        [{"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}],
        [{"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}],
        [{"type": "file", "file": {"file_id": "x"}}],
        [{"type": "text"}],
        None,
        7,
        {"a": 1},
    ],
)
def test_content_that_is_no_text_is_refused_and_nothing_is_fetched(
    content: Any, marble: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_up = []
    monkeypatch.setattr(socket, "getaddrinfo", lambda *words, **_: looked_up.append(words) or [])
    body = json.dumps({**CHAT, "messages": [{"role": "user", "content": content}]}).encode()
    request = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{marble.port}\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode() + body
    with socket.socket() as connection:
        connection.settimeout(10)
        connection.connect(("127.0.0.1", marble.port))
        connection.sendall(request)
        answer = connection.recv(65536)
    assert answer.split()[1] == b"400" and not looked_up


@pytest.mark.parametrize(
    "messages",
    [
        [],
        "Hi",
        [{}],
        [{"role": "user"}],
        [{"role": "robot", "content": "x"}],
        [{"content": "x"}],
        [{"role": "user", "content": "x", "weight": 2}],
        [{"role": "user", "content": "x", "train": True}],
        [{"role": "user", "content": "x", "tool_calls": [{"function": {"name": "f"}}]}],
        [{"role": "assistant", "tool_calls": [{"function": {"name": 3}}]}],
        [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}],
        [{"role": "assistant", "content": "", "function_call": {"name": "f"}}],
        [["user", "x"]],
        [None],
    ],
)
def test_messages_that_are_none_are_refused(messages: Any, marble: Running) -> None:
    refused(marble, "/v1/chat/completions", {**CHAT, "messages": messages})


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"null", b"[]", b'"x"', b"1e999", b'{"model": "marble", "model": "marble"}', b"\xff\xfe{}",
        b'{"model": "marble", "messages": [{"role": "user", "content": "\\ud800"}]}', b"[" * 5000 + b"]" * 5000,
        b'{"a":' * 2000 + b"1" + b"}" * 2000, b'{"model": NaN}', b'{"model": "marble", "temperature": 1e400}',
    ],
)  # fmt: skip
def test_a_body_that_is_no_request_is_refused(body: bytes, marble: Running) -> None:
    refused(marble, "/v1/chat/completions", body)
    refused(marble, "/v1/completions", body)


@pytest.mark.parametrize(
    "extra",
    [
        {"prompt": ["a"] * 33}, {"prompt": []}, {"prompt": [[]]}, {"prompt": [-1]}, {"prompt": [1.5]},
        {"prompt": [True]}, {"prompt": [["a"]]}, {"prompt": ["a", [1]]}, {"prompt": None}, {"best_of": 2},
        {"max_tokens": 0}, {"suffix": "x"}, {"logprobs": True}, {"logprobs": 21}, {"prompt": [4096]},
        {"messages": [USER]},
    ],
)  # fmt: skip
def test_completions_that_cannot_be_are_refused(extra: dict[str, Any], marble: Running) -> None:
    refused(marble, "/v1/completions", {**TEXT, **extra})


def test_an_error_repeats_neither_values_nor_places_on_disk(marble: Running) -> None:
    for extra in ({"user": ["s3cret-value"]}, {"temperature": "s3cret-value"}, {"stop": [["s3cret-value"]]}):
        assert "s3cret" not in json.dumps(refused(marble, "/v1/chat/completions", {**CHAT, **extra}))
    error = refused(marble, "/v1/chat/completions", {**CHAT, "model": "../../etc/passwd"}, 404)
    assert error["code"] == "model_not_found" and "/" not in error["message"]


def test_nonsense_in_any_place_is_never_the_servers_fault(marble: Running) -> None:
    draw = random.Random(0)
    values: list[Any] = [
        None, True, -1, 0, 2**70, 1e308, "", "\x00", "\u202e", "a" * 300, [], {}, [[]], [None], {"a": {"b": []}},
        [USER], "<|im_end|>", [{"role": "user", "content": []}],
    ]  # fmt: skip
    seen: set[int] = set()
    for number in range(200):
        path, body = ("chat/completions", dict(CHAT)) if number % 2 else ("completions", dict(TEXT))
        fields = (ChatRequest if number % 2 else CompletionRequest).model_fields
        for key in draw.sample([*fields, "zzz"], 2):
            body[key] = draw.choice(values)
        status, answer, _ = marble.ask("POST", f"/v1/{path}", {**body, "stream": False})
        seen.add(status)
        assert status in (200, 400, 404), (body, answer)
    assert seen == {200, 400, 404} and marble.becomes_empty()


def test_an_unknown_field_is_named() -> None:
    with pytest.raises(ApiError, match="chat_template_kwargs: unknown field"):
        read_request(ChatRequest, json.dumps({**CHAT, "chat_template_kwargs": {}}).encode())
