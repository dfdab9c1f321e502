from __future__ import annotations

import pytest

from burnish.data.convert import to_content
from burnish.data.reject import ConversionError
from burnish.types import Completion, Conversation, Document

USER, REPLY = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}


def refused(record, format):
    with pytest.raises(ConversionError) as caught:
        to_content(record, format)
    return str(caught.value.reason), caught.value.detail


def test_messages_and_tools_become_a_conversation():
    tool = {"name": "f", "parameters": {"type": "object"}}
    wrapped = {"type": "function", "function": tool}
    for tools in ([tool], [wrapped], '[{"name": "f", "parameters": {"type": "object"}}]'):
        assert to_content({"messages": [USER, REPLY], "tools": tools}, "messages") == Conversation(
            [USER, REPLY], [wrapped]
        )
    for none in (None, [], "", "[]"):
        assert to_content({"messages": [USER, REPLY], "tools": none}, "messages").tools is None


def test_messages_may_stand_in_a_json_string_or_under_conversations():
    assert to_content({"conversations": [USER, REPLY]}, "messages").messages == [USER, REPLY]
    written = '[{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]'
    assert to_content({"messages": written}, "messages").messages == [USER, REPLY]


def test_content_that_looks_like_json_is_text():
    turns = [USER, {"role": "assistant", "content": '[{"type": "text", "text": "no"}]'}]
    assert to_content({"messages": turns}, "messages").messages == turns


@pytest.mark.parametrize(
    ("turns", "reason"),
    [
        ([], "empty conversation"),
        ([USER], "no assistant turn"),
        ([USER, {"role": "assistant", "content": ""}], "empty reply"),
        ([USER, {"role": "assistant", "content": None}], "null content"),
        ([USER, {"role": "assistant", "content": None, "tool_calls": []}], "null content"),
        ([{"role": "user", "content": None}, REPLY], "null content"),
        ([{"role": "assistant"}], "missing field"),
        ([{"content": "a"}], "missing field"),
        ([USER, {"role": "assitant", "content": "a"}], "unknown role"),
        ([{"role": ["user"], "content": "a"}], "unknown role"),
        ([{"role": None, "content": "a"}], "unknown role"),
        ([USER, {"role": "assistant", "content": 4}], "non-string content"),
        ([USER, {"role": "assistant", "content": {"text": "a"}}], "non-string content"),
        (["hello"], "not an object"),
        ("hello", "broken JSON"),
        (None, "missing field"),
    ],
)
def test_a_conversation_that_cannot_be_graded_is_refused(turns, reason):
    assert refused({"messages": turns}, "messages")[0] == reason


def test_the_detail_shows_the_place_and_the_value():
    assert refused({"messages": [USER, {"role": "bot\n", "content": "a"}]}, "messages") == (
        "unknown role",
        "messages[1]: role 'bot\\n'",
    )


def test_an_empty_reply_among_others_is_kept():
    turns = [USER, {"role": "assistant", "content": ""}, USER, REPLY]
    assert to_content({"messages": turns}, "messages").messages == turns


def test_odd_orders_of_roles_are_left_to_the_template():
    for turns in ([REPLY], [REPLY, USER, REPLY], [USER, USER, REPLY], [USER, REPLY, USER]):
        assert to_content({"messages": turns}, "messages").messages == turns


def test_sharegpt_roles_are_mapped_by_declaration():
    record = {
        "system": "be brief",
        "conversations": [
            {"from": "human", "value": "q"},
            {"from": "function_call", "value": '{"name": "f", "arguments": {"a": 1}}'},
            {"from": "observation", "value": "7"},
            {"from": "gpt", "value": " a ", "weight": 0},
        ],
    }
    call = {"type": "function", "function": {"name": "f", "arguments": {"a": 1}}}
    assert to_content(record, "sharegpt").messages == [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "7"},
        {"role": "assistant", "content": " a ", "weight": 0},
    ]


@pytest.mark.parametrize(
    ("turn", "reason"),
    [
        ({"from": "bing", "value": "x"}, "unknown role"),
        ({"from": None, "value": "x"}, "unknown role"),
        ({"value": "x"}, "missing field"),
        ({"from": "gpt"}, "missing field"),
        ({"from": "gpt", "value": None}, "null content"),
        ({"from": "function_call", "value": "f(1)"}, "bad tool call"),
    ],
)
def test_a_sharegpt_turn_that_is_not_understood_is_refused(turn, reason):
    assert refused({"conversations": [{"from": "human", "value": "q"}, turn]}, "sharegpt")[0] == reason


def test_a_system_prompt_given_twice_is_refused():
    turns = [{"from": "system", "value": "s"}, {"from": "gpt", "value": "a"}]
    assert "both" in refused({"system": "s", "conversations": turns}, "sharegpt")[1]


def test_alpaca_joins_instruction_and_input_with_a_blank_line():
    def user(record):
        return to_content(record, "alpaca").messages[-2]["content"]

    assert user({"instruction": "i", "input": "x", "output": "o"}) == "i\n\nx"
    assert user({"instruction": "i ", "input": "", "output": "o"}) == "i "
    assert user({"instruction": "i", "input": None, "output": "o"}) == "i"
    assert user({"instruction": "i", "context": "c", "response": "o"}) == "i\n\nc"
    assert user({"question": "q", "answer": "o"}) == "q"


def test_alpaca_history_and_system_come_before_the_question():
    record = {"instruction": "i", "output": "o", "history": [["u", "b"]], "system": "s"}
    roles = [(message["role"], message["content"]) for message in to_content(record, "alpaca").messages]
    assert roles == [("system", "s"), ("user", "u"), ("assistant", "b"), ("user", "i"), ("assistant", "o")]
    assert refused({**record, "history": [["u"]]}, "alpaca")[0] == "wrong format"
    assert refused({**record, "history": "u"}, "alpaca")[0] == "wrong format"


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"instruction": "i", "output": ""}, "empty reply"),
        ({"instruction": "i", "output": None}, "null content"),
        ({"instruction": 3, "output": "o"}, "non-string content"),
        ({"instruction": "i", "input": ["x"], "output": "o"}, "non-string content"),
        ({"instruction": "i"}, "missing field"),
        ({"text": "t"}, "wrong format"),
    ],
)
def test_an_alpaca_row_that_lacks_something_is_refused(record, reason):
    assert refused(record, "alpaca")[0] == reason


def test_prompt_and_completion_are_kept_to_the_character():
    record = {"prompt": " 2 + 2 =\n", "completion": " 4 \n"}
    assert to_content(record, "prompt-completion") == Completion(" 2 + 2 =\n", " 4 \n")
    assert refused({"prompt": "p", "completion": ""}, "prompt-completion")[0] == "empty reply"
    assert refused({"prompt": "p", "completion": [REPLY]}, "prompt-completion")[0] == "non-string content"
    assert refused({"prompt": "p"}, "prompt-completion")[0] == "missing field"


def test_of_a_prompt_of_messages_no_reply_is_graded():
    record = {"prompt": [USER, REPLY, USER], "completion": [REPLY]}
    assert to_content(record, "prompt-completion").messages == [USER, {**REPLY, "train": False}, USER, REPLY]
    assert (
        refused({"prompt": [USER, REPLY], "completion": [USER]}, "prompt-completion")[0]
        == "no assistant turn"
    )


def test_text_is_a_document():
    assert to_content({"text": " \n"}, "text") == Document(" \n")
    assert refused({"text": ""}, "text")[0] == "empty text"
    assert refused({"text": None}, "text")[0] == "null content"
