"""T48: duplicates leave before the split, and what is held out depends on content alone."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from burnish.data.ledger import Ledger
from burnish.data.split import content_key, drop_duplicates, hold_out
from burnish.errors import DataError, UsageError
from burnish.types import Completion, Conversation, Document, Origin, Row


def rows_of(texts):
    return [Row(k, 0, Origin("a.jsonl", k + 1), Document(text)) for k, text in enumerate(texts)]


def texts_of(rows):
    return [row.content.text for row in rows]


def test_equal_content_has_equal_keys_whatever_the_order_of_its_keys():
    def keyed(content):
        return content_key(Row(0, 0, Origin("a", 1), content))

    one = Conversation([{"role": "user", "content": "q"}], [{"a": 1, "b": 2}])
    two = Conversation([{"content": "q", "role": "user"}], [{"b": 2, "a": 1}])
    assert keyed(one) == keyed(two)
    others = [
        Document("ab"),
        Completion("ab", ""),
        Completion("a", "b"),
        Completion("", "ab"),
        Document("ab "),
        one,
    ]
    assert len({keyed(content) for content in others}) == len(others)


@given(st.lists(st.sampled_from("abcdef"), max_size=30))
def test_the_first_of_equal_rows_stays_and_the_ledger_names_it(texts):
    ledger = Ledger()
    ledger.count_read(len(texts))
    kept = list(drop_duplicates(rows_of(texts), ledger))
    assert texts_of(kept) == list(dict.fromkeys(texts))
    assert ledger.counts()["used"] == len(kept)
    for entry in ledger.entries():
        first = texts.index(texts[entry.row]) + 1
        assert (entry.reason, entry.detail) == ("duplicate", f"same content as a.jsonl:{first}")


@given(st.integers(2, 60), st.floats(0.001, 0.999), st.integers(0, 5))
def test_a_share_holds_out_that_many_rows_in_reading_order(num_rows, share, seed):
    rows = rows_of([f"t{k}" for k in range(num_rows)])
    train, held = hold_out(rows, share, seed=seed)
    assert len(held) == min(num_rows - 1, max(1, round(num_rows * share)))
    assert sorted([*train, *held], key=lambda row: row.index) == rows
    assert [row.index for row in train] == sorted(row.index for row in train)
    assert [row.index for row in held] == sorted(row.index for row in held)


def test_what_is_held_out_depends_on_content_and_seed_but_not_on_order():
    texts = [f"t{k}" for k in range(200)]
    shuffled = random.Random(0).sample(texts, len(texts))
    held = [set(texts_of(hold_out(rows_of(order), 20, seed=7)[1])) for order in (texts, shuffled)]
    assert held[0] == held[1]
    assert len(held[0]) == 20
    assert set(texts_of(hold_out(rows_of(texts), 20, seed=8)[1])) != held[0]


def test_another_process_holds_out_the_same_rows():
    rows = rows_of([f"t{k}" for k in range(50)])
    here = texts_of(hold_out(rows, 5, seed=42)[1])
    code = (
        "from burnish.types import *; from burnish.data.split import hold_out; "
        "rows = [Row(k, 0, Origin('a', 1), Document(f't{k}')) for k in range(50)]; "
        "print(','.join(row.content.text for row in hold_out(rows, 5, seed=42)[1]))"
    )
    source = str(Path(__file__).resolve().parents[2] / "src")
    environment = {**os.environ, "PYTHONPATH": source, "PYTHONHASHSEED": "1"}
    there = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert there.stdout.strip() == ",".join(here)


def test_rows_of_equal_content_stay_on_one_side():
    rows = rows_of([f"t{k % 10}" for k in range(40)])
    for seed in range(20):
        train, held = hold_out(rows, 0.25, seed=seed)
        assert not set(texts_of(train)) & set(texts_of(held))
        assert len(held) == 8


def test_nothing_is_held_out_of_one_row_or_at_size_zero():
    rows = rows_of(["a", "b", "c"])
    assert hold_out(rows, 0, seed=1) == (rows, [])
    assert hold_out([], 0, seed=1) == ([], [])


@pytest.mark.parametrize("size", [3, 4, 100])
def test_a_count_that_leaves_nothing_to_train_on_is_refused(size):
    with pytest.raises(DataError, match="3 rows"):
        hold_out(rows_of(["a", "b", "c"]), size, seed=1)


@pytest.mark.parametrize("size", [-1, -0.1, 1.5, float("nan"), float("inf")])
def test_a_size_that_is_no_share_and_no_count_is_refused(size):
    with pytest.raises(UsageError, match="val_set_size"):
        hold_out(rows_of(["a", "b"]), size, seed=1)


def test_rows_that_are_all_alike_cannot_be_split():
    with pytest.raises(DataError, match="1 different contents"):
        hold_out(rows_of(["a", "a"]), 0.5, seed=1)
