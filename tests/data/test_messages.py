"""Turns with more than a role and a string, and tool calls in every spelling (T13, T16)."""

from __future__ import annotations

import math

import pytest

from burnish.data.messages import read_messages
from burnish.data.reject import ConversionError
from burnish.data.tools import read_calls, read_tools

CALL = {"type": "function", "function": {"name": "f", "arguments": {"a": 1, "b": None}}}


def one(**keys):
    return read_messages([{"role": "assistant", **keys}])[0]


def reason(**keys):
    with pytest.raises(ConversionError) as caught:
        one(**keys)
    return str(caught.value.reason)


def test_null_content_beside_a_call_is_empty_text_and_other_nulls_are_gone():
    message = one(content=None, tool_calls=[CALL], name=None, reasoning_content=None, refusal=None)
    assert message == {"role": "assistant", "content": "", "tool_calls": [CALL]}
    assert one(tool_calls=[CALL])["content"] == ""
    assert one(content="a", tool_calls=None) == {"role": "assistant", "content": "a"}
    assert one(content="a", tool_calls=[]) == {"role": "assistant", "content": "a"}


@pytest.mark.parametrize(
    "call",
    [
        {"function": {"name": "f", "arguments": '{"a": 1, "b": null}'}},
        {"type": "function", "function": {"name": "f", "arguments": {"a": 1, "b": None}}},
        {"name": "f", "arguments": {"a": 1, "b": None}},
        {"name": "f", "arguments": '{"a": 1, "b": null}'},
        '{"name": "f", "arguments": {"a": 1, "b": null}}',
    ],
)
def test_a_call_has_one_shape_whichever_way_it_is_spelled(call):
    assert read_calls(call if isinstance(call, str) else [call]) == [CALL]


def test_the_id_of_a_call_is_kept_and_no_arguments_are_an_empty_object():
    assert read_calls([{"id": "1", "function": {"name": "f"}}]) == [
        {"id": "1", "type": "function", "function": {"name": "f", "arguments": {}}}
    ]


@pytest.mark.parametrize(
    "call",
    [
        {"name": "f", "arguments": "{'a': 1}"},
        {"name": "f", "arguments": "[1]"},
        {"name": "f", "arguments": ""},
        {"name": "f", "arguments": '{"a": 1, "a": 2}'},
        {"name": "f", "arguments": '{"a": NaN}'},
        {"name": "f", "arguments": '{"a": 12345678901234567890123}'},
        {"name": "f", "arguments": {"a": float("inf")}},
        {"name": "f", "arguments": {"a": b"raw"}},
        {"name": "", "arguments": {}},
        {"arguments": {}},
        {"function": "f"},
        {"id": 3, "name": "f"},
        7,
    ],
)
def test_a_call_that_would_be_trained_otherwise_than_written_is_refused(call):
    assert reason(content="", tool_calls=[call]) == "bad tool call"


def test_only_the_assistant_calls_tools():
    with pytest.raises(ConversionError, match="role 'user' calls"):
        read_messages([{"role": "user", "content": "q", "tool_calls": [CALL]}])


@pytest.mark.parametrize("tools", ["{}", "[1]", [{"description": "no name"}], 5, "[", [{"function": None}]])
def test_a_tool_list_that_is_none_is_refused(tools):
    with pytest.raises(ConversionError) as caught:
        read_tools(tools)
    assert caught.value.reason == "bad tool list"


def test_schemas_with_different_keys_get_no_keys_of_each_other():
    tools = [{"name": "f", "parameters": {"default": None}}, {"name": "g", "description": "d"}]
    assert [tool["function"] for tool in read_tools(tools)] == tools


def test_parts_are_joined_and_reasoning_and_calls_go_where_they_belong():
    parts = [
        {"type": "reasoning", "value": "Hm. "},
        {"type": "text", "value": " a"},
        {"type": "text", "text": "b "},
        {"type": "tool_call", "value": '{"name": "f", "arguments": {"a": 1, "b": null}}'},
    ]
    assert one(content=parts) == {
        "role": "assistant",
        "content": " ab ",
        "reasoning_content": "Hm. ",
        "tool_calls": [CALL],
    }
    assert one(content=[])["content"] == ""


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ({"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}, "image content"),
        ({"type": "image"}, "image content"),
        ({"type": "audio", "text": "x"}, "unknown content part"),
        ({"type": "text"}, "unknown content part"),
        ({"type": "text", "text": 3}, "unknown content part"),
        ({"type": ["text"], "text": "x"}, "unknown content part"),
        ("x", "unknown content part"),
    ],
)
def test_a_part_that_is_no_text_is_refused(part, expected):
    assert reason(content=[part]) == expected


def test_reasoning_given_twice_is_refused():
    assert (
        reason(content=[{"type": "reasoning", "text": "r"}], reasoning_content="r") == "unknown content part"
    )


def test_weights_are_kept_and_loss_weight_is_another_name_for_them():
    assert one(content="a", weight=0)["weight"] == 0
    assert one(content="a", weight=0.25, train=False) == {
        "role": "assistant",
        "content": "a",
        "weight": 0.25,
        "train": False,
    }
    assert one(content="a", loss_weight=1.0) == {"role": "assistant", "content": "a", "weight": 1.0}
    for weight in (True, "1", math.nan, math.inf, [1]):
        assert reason(content="a", weight=weight) == "bad weight"
    assert reason(content="a", weight=1, loss_weight=1) == "bad weight"
    assert reason(content="a", train=0) == "bad train flag"


def test_fields_that_are_strings_elsewhere_must_be_strings():
    for key in ("name", "tool_call_id", "reasoning_content"):
        assert reason(content="a", **{key: ["x"]}) == "non-string content"
        assert one(content="a", **{key: "x"})[key] == "x"


def test_unknown_keys_stay_if_they_are_plain_values():
    assert one(content="a", thinking="t", annotations=[{"x": 1}]) == {
        "role": "assistant",
        "content": "a",
        "thinking": "t",
    }
