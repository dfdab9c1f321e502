"""Tool calls are read in the ways models write them, and held against what was offered and expected."""

from __future__ import annotations

import pytest

from burnish.errors import DataError
from burnish.evaluation.calls import Call, are_valid, arguments_match, names_match, parse_calls, read_wanted

ADD = Call("add", {"a": 1, "b": "x"})
SCHEMA = {
    "name": "add",
    "parameters": {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "string", "enum": ["x", "y"]}},
        "required": ["a"],
    },
}


@pytest.mark.parametrize(
    "text",
    [
        '<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": "x"}}\n</tool_call><|im_end|>',
        '[TOOL_CALLS] [{"name": "add", "arguments": {"a": 1, "b": "x"}}]</s>',
        '{"name": "add", "parameters": {"a": 1, "b": "x"}}',
        '{"type": "function", "function": {"name": "add", "arguments": "{\\"a\\": 1, \\"b\\": \\"x\\"}"}}',
        "[add(a=1, b='x')]",
    ],
)
def test_a_call_is_read_in_every_spelling(text: str) -> None:
    assert parse_calls(text) == [ADD]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I would add.",
        '<tool_call>{"name": "add"</tool_call>',
        "add(1)",
        "add(a=b)",
        "__import__('os')",
        "(" * 300,
    ],
)
def test_what_is_no_call_is_none_and_nothing_is_run(text: str) -> None:
    assert parse_calls(text) == []


def test_a_valid_call_keeps_to_the_schema() -> None:
    assert are_valid([ADD], [SCHEMA]) and are_valid([Call("add", {"a": 1})], [SCHEMA])
    for arguments in ({"b": "x"}, {"a": "1"}, {"a": True}, {"a": 1, "b": "z"}, {"a": 1, "c": 2}):
        assert not are_valid([Call("add", arguments)], [SCHEMA])
    assert not are_valid([Call("sum", {"a": 1})], [SCHEMA]) and not are_valid([], [SCHEMA])


def test_expected_calls_match_in_any_order_and_each_once() -> None:
    wanted = read_wanted(
        [{"name": "add", "arguments": {"a": 1, "b": "x"}}, {"name": "f", "arguments": {}}], "x:1"
    )
    assert arguments_match([Call("f", {}), Call("add", {"b": "x", "a": 1.0})], wanted)
    assert names_match([Call("f", {"z": 1}), Call("add", {})], wanted)
    assert not arguments_match([Call("f", {"z": 1}), ADD], wanted)
    assert not arguments_match([ADD, ADD, Call("f", {})], wanted) and not arguments_match([ADD], wanted)


def test_the_berkeley_form_lists_accepted_values_and_what_may_be_absent() -> None:
    wanted = read_wanted([{"math.area": {"base": [10], "unit": ["square units", ""]}}], "x:1")
    assert arguments_match(parse_calls("math.area(base=10, unit='Square-Units')"), wanted)
    assert arguments_match([Call("math.area", {"base": 10})], wanted)
    assert not arguments_match([Call("math.area", {"base": 9})], wanted)
    assert not arguments_match([Call("math.area", {"base": 10, "side": 1})], wanted)
    with pytest.raises(DataError, match="x:7"):
        read_wanted("add", "x:7")
