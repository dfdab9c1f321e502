from __future__ import annotations

import pytest

from burnish.data.convert import detect_format
from burnish.errors import DataError

CHAT = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}
SHAREGPT = {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}


@pytest.mark.parametrize(
    ("record", "format"),
    [
        (CHAT, "messages"),
        ({"conversations": CHAT["messages"]}, "messages"),
        ({**CHAT, "prompt": "q", "prompt_id": "7"}, "messages"),
        ({"messages": '[{"role": "user", "content": "q"}]'}, "messages"),
        (SHAREGPT, "sharegpt"),
        ({"messages": SHAREGPT["conversations"]}, "sharegpt"),
        ({"instruction": "i", "input": "", "output": "o"}, "alpaca"),
        ({"instruction": "i", "input": "", "output": "o", "text": "### i"}, "alpaca"),
        ({"instruction": "i", "context": "c", "response": "o", "category": "x"}, "alpaca"),
        ({"question": "q", "answer": "a"}, "alpaca"),
        ({"prompt": "q", "response": "a"}, "alpaca"),
        ({"prompt": "p", "completion": "c"}, "prompt-completion"),
        ({"text": "t", "url": "u"}, "text"),
    ],
)
def test_a_format_is_told_from_the_columns(record, format):
    assert detect_format([record]).format == format


def test_the_reasons_are_plain_words_and_name_what_is_left_out():
    assert detect_format([{**SHAREGPT, "id": 1, "model": "m"}]).reasons == (
        "column 'conversations' holds lists of {from, value}: ShareGPT",
        "columns not read: 'id', 'model'",
    )


def test_unknown_columns_are_refused_with_what_each_format_needs():
    with pytest.raises(
        DataError, match="columns 'prompt', 'reply'; 'prompt' comes nearest to alpaca"
    ) as caught:
        detect_format([{"prompt": "p", "reply": "r"}], place="data/x.jsonl")
    assert caught.value.saw.startswith("data/x.jsonl:")
    assert all(name in caught.value.rule for name in ("messages", "sharegpt", "alpaca", "completion", "text"))
    assert "format:" in caught.value.remedy


@pytest.mark.parametrize(
    ("record", "seen"),
    [
        ({**SHAREGPT, "chosen": {}, "rejected": {}}, "preference pairs"),
        ({**CHAT, "label": False}, "good and bad"),
        ({"question": "q", "options": ["a", "b"], "answer": "B"}, "answer options"),
        ({"text": "t", "label": 1}, "labelled"),
        ({**CHAT, "instruction": "i", "output": "o"}, "messages and alpaca"),
    ],
)
def test_detection_asks_where_it_would_have_to_guess(record, seen):
    with pytest.raises(DataError, match=seen) as caught:
        detect_format([record])
    assert "`format: " in caught.value.remedy


def test_a_few_rows_of_another_format_do_not_change_the_format():
    assert detect_format([CHAT, CHAT, {"text": "t"}, {"odd": 1}]).format == "messages"
    with pytest.raises(DataError, match="2 rows of messages, 2 rows of text"):
        detect_format([CHAT, {"text": "t"}, CHAT, {"text": "t"}])
