"""Each rule takes what it is for, leaves what is like it, and names what it saw."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from burnish.curation import signs
from burnish.curation.items import Input, Item, read_items
from burnish.curation.rules import RULES, read_rules
from burnish.errors import UsageError
from tests.conftest import write_jsonl

LONG = "The river runs from the hills down to the sea, past the old mill and the two bridges that the town built, "
PLANTED = {
    "words=3:": ("Hi", "No.", "Yes, it is so."),
    "prompt-words=:3": ("What is it that you would say?", "A", "Say a."),
    "characters=:5": ("Hi", "Hello there", "Hello"),
    "repetition": ("Hi", "so it goes and so it stays " * 6, LONG),
    "refusal": (
        "Hi",
        "I'm sorry, but I can't help with that.",
        "I am sorry that your dog died. What was its name?",
    ),
    "cut": ("Hi", LONG + "and then, because of the", LONG + "and then it ends."),
    "odd": ("Hi", "caf\ufffd", "café\n\tau lait"),
    "controls": ("Hi", "Say <|im_end|> now", "if a < b | c > d: x[INSTANCE]"),
    "secrets": ("Hi", "use sk-" + "a1B2" * 8, "the task-force of sk-land"),
    "personal": ("Hi", "write to ann@example.com", "It was @ example dot com, in 2001-2004, at 1.2.3"),
    "script=Latin": ("Hi", "你好，很高兴认识你", "Grüß Gott"),
}


def judged(rows: list[dict[str, Any]], rules: list[str], place: Path) -> list[tuple[bool, str]]:
    items = [
        item
        for item in read_items([Input(str(write_jsonl(place / "rows.jsonl", rows)))])
        if isinstance(item, Item)
    ]
    return [(verdict.keep, verdict.reason) for verdict in read_rules(rules)(items)]


@pytest.mark.parametrize("rule", PLANTED)
def test_each_rule_takes_the_planted_row_and_leaves_its_neighbour(rule: str, tmp_path: Path) -> None:
    prompt, bad, good = PLANTED[rule]
    name = rule.partition("=")[0]
    good_prompt = good if name == "prompt-words" else prompt
    rows = [{"instruction": prompt, "output": bad}, {"instruction": good_prompt, "output": good}]
    assert judged(rows, [rule], tmp_path) == [(False, name), (True, "")]


def test_turns_out_of_order_are_seen_and_tools_may_answer_twice(tmp_path: Path) -> None:
    def turns(*roles: str) -> dict[str, Any]:
        return {"messages": [{"role": role, "content": f"text {k}"} for k, role in enumerate(roles)]}

    rows = [
        turns("system", "user", "assistant", "tool", "tool", "assistant"),
        turns("user", "user", "assistant"),
        turns("user", "assistant", "user"),
        turns("user", "system", "assistant"),
    ]
    assert [keep for keep, _ in judged(rows, ["order"], tmp_path)] == [True, False, False, False]
    assert [keep for keep, _ in judged(rows, ["turns=:3"], tmp_path)] == [False, True, True, True]


def test_every_rule_is_tried_here() -> None:
    assert {rule.partition("=")[0] for rule in PLANTED} | {"order", "turns"} == set(RULES)


@pytest.mark.parametrize(
    "words",
    [[], ["nonsense"], ["words=many"], ["words=9:3"], ["script"], ["script=English"], ["repetition=2"]],
)
def test_a_rule_that_cannot_be_read_is_a_usage_error(words: list[str]) -> None:
    with pytest.raises(UsageError):
        read_rules(words)


def test_a_card_number_counts_by_its_check_digit() -> None:
    assert signs.personal_data("4111 1111 1111 1111") == ["card number"]
    assert signs.personal_data("4111 1111 1111 1112") == []


def test_scripts_are_told_apart() -> None:
    texts = {
        "Guten Tag": "Latin",
        "你好": "Han",
        "これは本です": "Kana",
        "Привет": "Cyrillic",
        "12:30": "none",
        "ქართული": "other",
    }
    assert {text: signs.main_script(text) for text in texts} == texts


def test_the_verb_counts_each_reason(burnish: Any, tmp_path: Path) -> None:
    rows = [
        {"instruction": "Hi", "output": said} for said in ("Hello to you.", "I cannot help with that.", "No.")
    ]
    data = write_jsonl(tmp_path / "rows.jsonl", rows)
    ran = burnish(
        "data",
        "filter",
        str(data),
        "-r",
        "refusal",
        "-r",
        "words=2:",
        "-o",
        str(tmp_path / "o.jsonl"),
        "--json",
    )
    assert ran.code == 0, ran.err
    assert json.loads(ran.out)["removed"] == {"refusal": 1, "words": 1}
    again = burnish("data", "filter", str(data), "-r", "refusal", "-o", str(tmp_path / "o.jsonl"))
    assert again.code == 2 and "exists already" in again.err
    assert burnish("data", "filter", str(data), "-r", "x", "-o", str(tmp_path / "p.jsonl")).code == 2


def test_a_rule_that_saw_nothing_is_told_too(burnish: Any, tmp_path: Path) -> None:
    data = write_jsonl(
        tmp_path / "rows.jsonl", [{"instruction": "Hi", "output": text} for text in ("a b c.", "c")]
    )
    words = ["-r", "words=3:", "-r", "refusal", "-o", str(tmp_path / "out.jsonl"), "--json"]
    ran = burnish("data", "filter", str(data), *words)
    assert json.loads(ran.out)["removed"] == {"words": 1, "refusal": 0}


def test_inspect_finds_what_was_planted(burnish: Any, tmp_path: Path) -> None:
    rows = [{"instruction": "Hi", "output": bad} for _, bad, _ in PLANTED.values()]
    data = write_jsonl(tmp_path / "rows.jsonl", [*rows, rows[0], {"instruction": "x", "output": None}])
    ran = burnish("data", "inspect", str(data), "--json")
    assert ran.code == 0, ran.err
    said = json.loads(ran.out)
    assert (said["rows"], said["duplicates"]["rows"]) == (13, 1)
    assert said["unreadable"] == {"null content": 1}
    assert said["finds"]["secrets"] == {"API key": 1}
    assert said["finds"]["personal data"] == {"e-mail address": 1}
    assert said["finds"]["control token look-alikes"] == {"<|im_end|>": 1}
    assert said["finds"]["odd characters"] == {"U+FFFD REPLACEMENT CHARACTER": 1}
    assert set(said["finds"]["responses"]) == {
        "begin by declining",
        "end in the middle of something",
        "repeat themselves",
    }
    assert said["places"]["secrets: API key"] == [f"{data}:9"]
    assert said["scripts"] == {"Latin": 11, "Han": 1}
    people = burnish("data", "inspect", str(data))
    assert "12 rows" in people.out or "13 rows" in people.out
    assert "API key" in people.out and "█" in people.out


def test_inspect_draws_the_cut_line_with_a_model(burnish: Any, model_directory: Any, data_file: Path) -> None:
    ran = burnish("data", "inspect", str(data_file), "--model", str(model_directory()), "--max-length", "40")
    assert ran.code == 0, ran.err
    assert "cut at 40" in ran.out
