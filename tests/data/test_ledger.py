from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from burnish.data.ledger import Ledger, read_ledger
from burnish.errors import DataError
from burnish.types import Document, Origin, Rejected, Row


def row(index):
    return Row(index, 0, Origin("a.jsonl", index + 1), Document(f"t{index}"))


@given(
    st.lists(
        st.sampled_from(["used", "dropped", "cut", "changed", "rejected", "cut and dropped"]), max_size=60
    )
)
def test_rows_read_are_rows_used_and_rows_dropped_at_every_moment(fates):
    ledger = Ledger()
    used = 0
    for index, fate in enumerate(fates):
        ledger.count_read()
        used += fate in ("used", "cut", "changed")
        if fate == "rejected":
            ledger.reject(Rejected(index, 0, Origin("a.jsonl", index + 1), "broken JSON", "x"))
        if fate == "changed":
            ledger.change(row(index), "trimmed")
        if "cut" in fate:
            ledger.cut(row(index), "too long", graded_tokens_lost=3)
        if "dropped" in fate:
            ledger.drop(row(index), f"reason {index % 3}")
        counts = ledger.counts()
        assert counts["read"] == index + 1
        assert counts["used"] == used
        assert counts["read"] == counts["used"] + sum(counts["dropped"].values())


def test_a_row_is_dropped_once_and_only_after_it_was_read():
    ledger = Ledger()
    with pytest.raises(ValueError, match="never counted"):
        ledger.drop(row(0), "duplicate")
    ledger.count_read(2)
    ledger.drop(row(0), "duplicate")
    with pytest.raises(ValueError, match="dropped twice"):
        ledger.drop(row(0), "too long")


def filled(order):
    ledger = Ledger()
    ledger.count_read(5)
    for index in order:
        ledger.cut(row(index), "too long", graded_tokens_lost=index, detail="cut at 2048 tokens\n")
    ledger.drop(row(3), "duplicate", detail="same content as a.jsonl:1")
    return ledger


def test_a_ledger_is_written_in_reading_order_and_read_back(tmp_path):
    filled([4, 0, 3]).write(tmp_path / "ledger.jsonl")
    filled([3, 4, 0]).write(tmp_path / "again.jsonl")
    raw = (tmp_path / "ledger.jsonl").read_bytes()
    assert raw == (tmp_path / "again.jsonl").read_bytes()
    assert json.loads(raw.split(b"\n")[2]) == {
        "row": 3,
        "file": "a.jsonl",
        "line": 4,
        "action": "dropped",
        "reason": "duplicate",
        "graded_tokens_lost": None,
        "detail": "same content as a.jsonl:1",
    }
    assert list(read_ledger(tmp_path / "ledger.jsonl")) == filled([0, 3, 4]).entries()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again.jsonl", "ledger.jsonl"]


def test_an_empty_ledger_counts_nothing(tmp_path):
    assert Ledger().counts() == {"read": 0, "used": 0, "dropped": {}, "cut": {}, "changed": {}}
    Ledger().write(tmp_path / "ledger.jsonl")
    assert list(read_ledger(tmp_path / "ledger.jsonl")) == []


@pytest.mark.parametrize("line", ["{", "[]", '{"row": 1}', '{"row": 1, "x": 2}'])
def test_a_ledger_that_was_tampered_with_is_refused_at_its_line(tmp_path, line):
    path = tmp_path / "ledger.jsonl"
    filled([0]).write(path)
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(DataError, match=r"ledger\.jsonl:3"):
        list(read_ledger(path))
    with pytest.raises(DataError, match="none"):
        list(read_ledger(tmp_path / "none.jsonl"))
