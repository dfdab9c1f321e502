"""Rows that hold a piece of an evaluation file go, and the ledger says which piece of which row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from burnish.data.ledger import read_ledger
from tests.conftest import write_jsonl

QUESTION = (
    "At what temperature does water boil on the top of the highest mountain, and why is it so low there?"
)


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    words = QUESTION.split()
    rows = [
        "An innocent question about nothing in particular at all, of a good many words in a row.",
        f"Please tell me: {QUESTION.upper()}",
        "Well, " + " ".join(words[4:13]) + " then?",
        " ".join(words[:7]),
        "name the three primary colours",
    ]
    data = write_jsonl(tmp_path / "train.jsonl", [{"instruction": text, "output": "I see."} for text in rows])
    tasks = [
        {"turns": [QUESTION], "id": 3},
        {"turns": ["Name the three primary colours!"]},
        {"turns": ["I see."]},
    ]
    return data, write_jsonl(tmp_path / "eval.jsonl", tasks)


def test_long_and_short_sequences_and_whole_texts_are_found(burnish: Any, files: tuple[Path, Path]) -> None:
    data, evaluation = files
    out = data.parent / "out.jsonl"
    ran = burnish("data", "decontaminate", str(data), "--against", str(evaluation), "-o", str(out), "--json")
    assert ran.code == 0, ran.err
    said = json.loads(ran.out)
    assert said["removed"] == {"13-gram overlap": 1, "8-gram overlap": 1, "whole text overlap": 1}
    gone = {
        entry.line: entry.detail for entry in read_ledger(Path(said["ledger"])) if entry.action == "dropped"
    }
    assert gone[2].startswith("'at what temperature does water boil on the top of the highest mountain'")
    assert all(f"{evaluation}:1" in gone[line] for line in (2, 3)) and f"{evaluation}:2" in gone[5]


def test_only_the_sizes_that_are_asked_for_and_only_the_part(burnish: Any, files: tuple[Path, Path]) -> None:
    data, evaluation = files
    words = ("data", "decontaminate", str(data), "--against", str(evaluation), "--json", "--overwrite")
    out = ("-o", str(data.parent / "out.jsonl"))
    only = json.loads(burnish(*words, *out, "--ngram", "13").out)
    assert only["removed"] == {"13-gram overlap": 1, "whole text overlap": 1}
    assert json.loads(burnish(*words, *out, "--on", "responses").out)["removed"] == {}
    assert burnish(*words, *out, "--ngram", "2").code == 2
    assert burnish(*words, *out, "--on", "answers").code == 2
