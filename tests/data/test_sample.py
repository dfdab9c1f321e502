"""A sample is what training would feed of the first rows, and the rest of the file is not touched."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from burnish.chat.refusal import RowRefused
from burnish.data.ledger import Ledger
from burnish.data.sample import Encodes, Part, fit_row, sample_rows
from burnish.errors import UsageError
from burnish.models.tokenizer import load_chat_tokenizer
from burnish.recipe.load import load_recipe
from burnish.recipe.schema import Recipe
from burnish.training.session import encode_recipe
from burnish.types import Conversation, Document, Example, Row
from tests.conftest import conversation, write_jsonl


class Words:
    """A stand-in for an encoder: one token per word, two views where there are two replies; refuses "no"."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def encode(self, row: Row) -> list[Example]:
        if isinstance(row.content, Document):
            ids = [len(word) for word in row.content.text.split()]
            return [Example(row.index, row.source, (), ids, [0.0, *[1.0] * (len(ids) - 1)])]
        assert isinstance(row.content, Conversation)
        views, ids = [], []
        for at, message in enumerate(row.content.messages):
            words = message["content"].split()
            if "no" in words:
                raise RowRefused("says no", f"message {at}")
            self.counts["trimmed_replies"] += "trim" in words
            graded = message["role"] == "assistant"
            weights = [0.0] * len(ids) + [float(graded)] * len(words)
            ids = ids + [len(word) for word in words]
            if graded:
                views.append(Example(row.index, row.source, (at,), ids, weights))
        return views


def recipe_of(path: Path, **more: Any) -> Recipe:
    return load_recipe(None, {"model": "marble", "datasets": str(path), "on_bad_row": "drop", **more}).recipe


def sampled(recipe: Recipe, encoder: Encodes) -> tuple[list[list[Part]], Ledger]:
    ledger = Ledger()
    parts = [fit_row(row, encoder, recipe, ledger) for row in sample_rows(recipe, ledger)]
    return [part for part in parts if part], ledger


def messages(*texts: str) -> dict[str, Any]:
    roles = ("user", "assistant")
    return {"messages": [{"role": roles[at % 2], "content": text} for at, text in enumerate(texts)]}


ROWS = [
    messages("What is it?", "A cat."),
    messages("What is it?", "A cat."),  # a duplicate
    messages("word " * 50, "A cat."),  # nothing graded within 40
    messages("What is it?", "A cat " * 30, "And that?", "A mat."),
    messages("Who?", "  A cat.\n\n"),
    messages("Who?", ""),
    {"messages": [{"role": "user", "content": "x"}]},
]


@pytest.mark.parametrize("too_long", ["drop", "cut_answer"])
def test_a_sample_of_all_rows_is_what_training_feeds_and_enters_in_its_ledger(
    too_long: str, tmp_path: Path
) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", ROWS)
    recipe = recipe_of(path, max_length=40, on_too_long=too_long)
    tokenizer, trained = encode_recipe(recipe)
    parts, ledger = sampled(recipe, load_chat_tokenizer("marble").encoder)
    assert tokenizer.stop_ids
    assert [tuple(part.example for part in row) for row in parts] == [tuple(row) for row in trained.train]
    assert ledger.entries() == trained.ledger.entries()
    assert {"duplicate", "too long"} <= {entry.reason for entry in ledger.entries()}


@pytest.mark.parametrize(("too_long", "actions"), [("drop", {"dropped"}), ("cut_answer", {"dropped", "cut"})])
def test_what_a_sample_loses_is_in_its_ledger(too_long: str, actions: set[str], tmp_path: Path) -> None:
    rows = [messages("a", "no"), messages("a b c d e f g h i", "j"), messages("a b c", "d e f g h i j")]
    path = write_jsonl(tmp_path / "a.jsonl", rows)
    parts, ledger = sampled(recipe_of(path, max_length=8, on_too_long=too_long), Words())
    assert [entry.reason for entry in ledger.entries()] == ["says no", "too long", "too long"]
    assert {entry.action for entry in ledger.entries()} == actions
    assert [part.example.cut for row in parts for part in row] == ([2] if "cut" in actions else [])


def test_the_windows_of_a_long_text_know_where_in_it_they_begin(tmp_path: Path) -> None:
    recipe = recipe_of(
        write_jsonl(tmp_path / "a.jsonl", [{"text": "a bb ccc dddd eeeee f gg"}]), max_length=3
    )
    (parts,), _ = sampled(recipe, Words())
    assert [part.start for part in parts] == [0, 2, 4]
    for part in parts:
        end = part.start + len(part.example)
        assert part.example.input_ids == part.view.input_ids[part.start : end]


def test_a_row_is_found_by_its_number_and_by_its_place(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [conversation(index) for index in range(9)])
    recipe = recipe_of(path)
    for wanted in ("6", f"{path}:7", "a.jsonl:7"):
        assert [row.index for row in sample_rows(recipe, Ledger(), wanted=[wanted])] == [6]
    assert [row.index for row in sample_rows(recipe, Ledger(), wanted=["5", "a.jsonl:2"])] == [1, 5]


def test_nothing_behind_the_last_wanted_row_is_read(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [conversation(index) for index in range(50)])
    ledger = Ledger()
    assert len(list(sample_rows(recipe_of(path), ledger, wanted=["4"]))) == 1
    assert ledger.counts()["read"] == 5


def test_a_row_that_the_data_does_not_have_is_named(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [conversation(index) for index in range(4)])
    with pytest.raises(UsageError, match=r"row b\.jsonl:1: the data has 4 rows"):
        list(sample_rows(recipe_of(path), Ledger(), wanted=["2", "b.jsonl:1"]))


def test_a_wanted_row_that_is_a_duplicate_is_in_the_ledger(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [conversation(0), conversation(0), conversation(1)])
    ledger = Ledger()
    assert list(sample_rows(recipe_of(path), ledger, wanted=["1"])) == []
    assert [(entry.row, entry.reason) for entry in ledger.entries()] == [(1, "duplicate")]
