"""The real files under ../shared/data: what each is read as, and that no row vanishes on the way.

The counts of alpaca.jsonl, v1_sft_demo_500.jsonl and glaive_toolcall_en_demo.jsonl were counted
beforehand with other tools (wc, grep and a ten-line json.loads loop).
"""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path

import pytest

from burnish.errors import DataError
from burnish.types import Completion, Conversation, Document, Rejected, Row

READABLE = {
    "alpaca/alpaca.jsonl": Conversation,
    "alpaca/alpaca_gpt4_zh_1k.jsonl": Conversation,
    "dolly-3k/dolly_3k.jsonl": Conversation,
    "flan/cot.jsonl": Conversation,
    "gpteacher/codegen.jsonl": Conversation,
    "gpteacher/toolformer.jsonl": Conversation,
    "gsm8k/train.jsonl": Conversation,
    "medical/medquad_train.jsonl.gz": Conversation,
    "medical/openstax_microbiology_short.jsonl": Conversation,
    "medical/openstax_microbiology_text.jsonl.gz": Document,
    "multi-turn/soda_simple_chat_704.jsonl": Conversation,
    "multi-turn/topical_chat.jsonl.gz": Conversation,
    "self-instruct/t0_sample.jsonl.gz": Completion,
    "small-instruct/fastchat_dummy_500.jsonl": Conversation,
    "small-instruct/v1_sft_demo_500.jsonl": Conversation,
    "text-general/books.jsonl.gz": Document,
    "text-general/c4_demo.jsonl": Document,
    "tool-calling/glaive_toolcall_en_demo.jsonl": Conversation,
    "tool-calling/reason_tool_use_demo_50.jsonl": Conversation,
    "tool-calling/sgd_train.jsonl.gz": Conversation,
}
TEACHING = {
    "alpaca/seed_tasks.jsonl": "'instruction' comes nearest to alpaca",
    "code-eval/mbpp_train.jsonl": "'code' beside 'text'",
    "medical/openstax_microbiology_mcq.jsonl": "answer options",
    "multi-turn/moss_sft.jsonl.gz": "'meta_instruction'",
    "preference/dpo_en_demo.jsonl": "preference pairs",
    "preference/kto_en_demo.jsonl": "good and bad",
    "tool-calling/sgd_original_test_dialogues_001_first20.json": "'dialogue_id'",
    "tool-calling/taskmaster4_coffee.jsonl.gz": "'utterances'",
}


def num_lines(path: Path) -> int:
    raw = path.read_bytes()
    return sum(
        bool(line.strip()) for line in (gzip.decompress(raw) if path.suffix == ".gz" else raw).split(b"\n")
    )


@pytest.mark.parametrize("name", sorted(READABLE))
def test_every_line_of_a_real_file_is_a_row_or_a_rejection(shared_data, read_all, name):
    rows = read_all(shared_data / name)
    used = [row for row in rows if isinstance(row, Row)]
    rejected = [row for row in rows if isinstance(row, Rejected)]
    assert len(used) + len(rejected) == num_lines(shared_data / name)
    assert {type(row.content) for row in used} == {READABLE[name]}
    assert {row.reason for row in rejected} <= {"empty reply"}
    assert [row.origin.line for row in rows] == list(range(1, len(rows) + 1))


@pytest.mark.parametrize("name", sorted(TEACHING))
def test_a_real_file_that_no_format_fits_is_refused_with_what_would_help(shared_data, read_all, name):
    with pytest.raises(DataError, match=TEACHING[name]) as caught:
        read_all(shared_data / name)
    assert name in caught.value.saw
    assert "format: " in caught.value.remedy


def test_alpaca_has_19705_rows_of_which_9_have_an_empty_reply(shared_data, read_all):
    rows = read_all(shared_data / "alpaca/alpaca.jsonl")
    assert Counter(type(row).__name__ for row in rows) == {"Row": 19_696, "Rejected": 9}


def test_the_demo_with_loss_weights_has_500_graded_and_500_ungraded_turns(shared_data, read_all):
    rows = read_all(shared_data / "small-instruct/v1_sft_demo_500.jsonl")
    turns = Counter((turn["role"], turn["weight"]) for row in rows for turn in row.content.messages)
    assert turns == {("user", 0.0): 500, ("assistant", 1.0): 500}


def test_glaive_has_211_calls_and_as_many_results(shared_data, read_all):
    rows = read_all(shared_data / "tool-calling/glaive_toolcall_en_demo.jsonl")
    turns = [turn for row in rows for turn in row.content.messages]
    assert Counter(turn["role"] for turn in turns) == {"user": 746, "assistant": 746 + 211, "tool": 211}
    assert sum(len(turn.get("tool_calls", [])) for turn in turns) >= 211
    assert all(isinstance(row.content.tools, list | None) for row in rows)


def test_the_text_of_real_replies_is_that_of_the_file(shared_data, read_all):
    path = shared_data / "gpteacher/codegen.jsonl"
    source = [json.loads(line)["response"] for line in path.read_text(encoding="utf-8").split("\n") if line]
    assert [row.content.messages[-1]["content"] for row in read_all(path)] == source


def test_a_real_text_file_loses_no_word(shared_data, read_all):
    path = shared_data / "text-general/tinyshakespeare.txt"
    words = [word for row in read_all(path) for word in row.content.text.split()]
    assert words == path.read_text(encoding="utf-8").split()
