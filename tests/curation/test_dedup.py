"""Repeats are found, unlike rows are left, and what goes names what stays."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from burnish.curation import journal, sketch
from burnish.curation.dedup import Question, Repeats, find_repeats
from burnish.curation.flow import Job, sift
from burnish.curation.items import Input
from burnish.curation.neighbours import MISSED, band_width
from burnish.curation.sketch import (
    PAD,
    PIECE,
    SLOTS,
    differ_in_numbers_only,
    edited_little,
    jaccard,
    minhashes,
    piece_set,
    pieces,
)
from burnish.data.ledger import read_ledger
from tests.conftest import write_jsonl

FEW = [
    f"{a}{b}{c}"
    for a in ("ka", "lo", "mi", "ru")
    for b in ("ven", "sta", "dor")
    for c in ("", "n", "lis", "mar")
]
WORDS = [first + second for first in FEW for second in FEW]


def text(draw: random.Random, count: int, words: Sequence[str] = WORDS) -> str:
    return " ".join(draw.choice(words) for _ in range(count))


def row(asked: str, said: str) -> dict[str, Any]:
    return {"instruction": asked, "output": said}


def edited(said: str, draw: random.Random, rate: float = 0.05) -> str:
    characters = list(said)
    for place in draw.sample(range(len(characters)), max(1, int(rate * len(characters)))):
        characters[place] = draw.choice("bcfghjpqwxyz")
    return "".join(characters)


def repeats(rows: list[dict[str, Any]], place: Path, question: Question, **more: Any) -> Repeats:
    data = write_jsonl(place / "rows.jsonl", rows)
    return find_repeats([Input(str(data))], question, folder=place / "scratch", key={}, **more)


@pytest.mark.parametrize("words", [WORDS, FEW], ids=["many words", "few words"])
def test_planted_near_duplicates_are_found_and_nothing_else(words: list[str], tmp_path: Path) -> None:
    draw = random.Random(1)
    rows = [row(text(draw, 10, words), text(draw, 5 + k % 60, words)) for k in range(800)]
    copies = [row(rows[k]["instruction"], edited(rows[k]["output"], draw)) for k in range(300)]
    found = repeats(rows + copies, tmp_path, Question())
    right = sum(found.of.get(800 + k, (-1, 0.0))[0] == k for k in range(300))
    assert right >= 297
    assert set(found.of) <= set(range(800, 1100))


def test_a_band_that_is_wider_than_it_should_be_would_miss_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = random.Random(2)
    rows = [row(text(draw, 10), text(draw, 40)) for _ in range(200)]
    copies = [row(old["instruction"], edited(old["output"], draw)) for old in rows]
    monkeypatch.setattr("burnish.curation.neighbours.band_width", lambda threshold: 16)
    assert len(repeats(rows + copies, tmp_path, Question()).of) < 190


@pytest.mark.parametrize("threshold", [0.4, 0.5, 0.6, 0.7, 0.8, 0.9])
def test_pairs_at_the_threshold_meet_in_some_band(threshold: float) -> None:
    width = band_width(threshold)
    assert (1 - threshold**width) ** (SLOTS // width) <= MISSED


def test_case_width_and_spaces_make_no_difference_and_the_part_compared_does(tmp_path: Path) -> None:
    rows = [
        row("What is this?", "A thing."),
        row("WHAT  is\u00a0this?", "A\tthing."),
        row("Ｗhat is this?", "Another one."),
        row("What is it?", "A thing."),
    ]
    assert set(repeats(rows, tmp_path, Question(threshold=1.0)).of) == {1}
    assert set(repeats(rows, tmp_path, Question("prompts", 1.0)).of) == {1, 2}
    assert set(repeats(rows, tmp_path, Question("responses", 1.0)).of) == {1, 3}


def test_texts_that_only_join_to_the_same_are_two_rows(tmp_path: Path) -> None:
    assert not repeats([row("ab", "c d"), row("ab c", "d")], tmp_path, Question(threshold=1.0)).of


def test_documents_are_never_repeats_by_their_prompts(tmp_path: Path) -> None:
    data = write_jsonl(tmp_path / "d.jsonl", [{"text": "one"}, {"text": "two"}])
    assert not find_repeats([Input(str(data))], Question("prompts"), folder=tmp_path / "s", key={}).of


def test_rows_that_differ_in_numbers_or_in_a_name_are_left(tmp_path: Path) -> None:
    rows = [
        row(f"Double {k} miles and say it in yards.", f"That makes {2 * k} yards.") for k in range(100, 400)
    ]
    rows += [
        row(f"What is the capital of {name}?", "I do not know.")
        for name in ("France", "Spain", "Norway", "Peru")
    ]
    assert not repeats(rows, tmp_path, Question()).of
    assert repeats(rows, tmp_path, Question(edits=1.0)).of, "the second rule is what leaves them"


def test_likeness_is_not_handed_on_along_a_chain(tmp_path: Path) -> None:
    draw = random.Random(3)
    chain = [text(draw, 40)]
    while len(chain) < 12:
        chain.append(edited(chain[-1], draw, 0.03))
    rows = [row("Go on.", said) for said in chain]
    found = repeats(rows, tmp_path, Question())
    assert 0 < len(found.of) < 11
    for gone, (original, _) in found.of.items():
        assert original not in found.of
        assert edited_little(chain[gone], chain[original], 0.065)


def test_a_large_group_of_alike_rows_ends_as_one(tmp_path: Path) -> None:
    draw = random.Random(4)
    said = text(draw, 60)
    rows = [row("Say it.", said), *(row("Say it.", edited(said, draw, 0.02)) for _ in range(200))]
    found = repeats(rows, tmp_path, Question())
    assert len(found.of) == 200 and {original for original, _ in found.of.values()} == {0}


def test_the_longest_or_the_best_scored_of_a_group_stays(tmp_path: Path) -> None:
    draw = random.Random(5)
    said = text(draw, 40)
    rows = [row("Say it.", said), row("Say it.", said + " ka"), row("say it.", said)]
    assert set(repeats(rows, tmp_path, Question(keep="longest")).of) == {0, 2}
    from burnish.curation.items import Item, read_items

    keys = [item.key for item in read_items([Input(str(tmp_path / "rows.jsonl"))]) if isinstance(item, Item)]
    scores = dict(zip(keys, (0.1, 0.2, 0.9), strict=True))
    found = repeats(rows, tmp_path, Question(keep="score"), scores=scores)
    assert {gone: original for gone, (original, _) in found.of.items()} == {0: 2, 1: 2}


def test_several_processes_and_a_killed_first_pass_find_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = random.Random(6)
    rows = [row("Go on.", text(draw, 9)) for _ in range(1200)]
    rows += [row(old["instruction"], edited(old["output"], draw)) for old in rows[:100]]
    whole = repeats(rows, tmp_path, Question())
    assert repeats(rows, tmp_path, Question(), processes=2) == whole
    monkeypatch.setattr(journal, "SAVE_SECONDS", 0.0)
    sketched = []

    def dies(texts: Sequence[str]) -> Any:
        if len(sketched) == 2:
            raise KeyboardInterrupt
        sketched.append(len(texts))
        return minhashes(texts)

    monkeypatch.setattr(sketch, "minhashes", dies)
    with pytest.raises(KeyboardInterrupt):
        repeats(rows, tmp_path, Question())
    again: list[int] = []
    monkeypatch.setattr(sketch, "minhashes", lambda texts: again.append(len(texts)) or minhashes(texts))
    assert repeats(rows, tmp_path, Question()) == whole
    assert again == [300], "two chunks of 500 were done"


def test_the_ledger_names_the_row_that_stays(tmp_path: Path) -> None:
    data = write_jsonl(
        tmp_path / "rows.jsonl", [row("Hi", "Hello there."), row("x", "y"), row("HI", "hello there.")]
    )
    found = find_repeats([Input(str(data))], Question(), folder=tmp_path / "s", key={})
    report = sift(Job("dedup", (Input(str(data)),), tmp_path / "out.jsonl"), found)
    gone = [entry for entry in read_ledger(Path(report.ledger)) if entry.action == "dropped"]
    assert [(entry.line, entry.reason, entry.detail) for entry in gone] == [
        (3, "duplicate", f"same text as {data}:1")
    ]
    assert len(Path(report.out).read_text().splitlines()) == 2


def test_minhash_estimates_the_true_similarity() -> None:
    draw = random.Random(7)
    first = text(draw, 200)
    second = edited(first, draw)
    slots = minhashes([first, second])
    assert abs(np.mean(slots[0] == slots[1]) - jaccard(piece_set(first), piece_set(second))) < 0.15


@pytest.mark.parametrize(
    ("first", "second", "only"),
    [("7 apples cost 21.5", "8 apples cost 24", True), ("7 apples", "7 pears", False), ("7", "7", False)],
)
def test_numbers_alone_are_told_from_other_differences(first: str, second: str, only: bool) -> None:
    assert differ_in_numbers_only(first, second) is only


def test_the_verb_says_what_it_did(burnish: Any, tmp_path: Path) -> None:
    data = write_jsonl(tmp_path / "rows.jsonl", [row("Hi", "Hello."), row("Hi ", "Hello."), row("a", "b")])
    ran = burnish("data", "dedup", str(data), "--out", str(tmp_path / "out.jsonl"), "--json")
    assert ran.code == 0, ran.err
    said = json.loads(ran.out)
    assert (said["read"], said["kept"], said["removed"]) == (3, 2, {"duplicate": 1})
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_pieces_are_the_same_in_ascii_and_among_other_characters() -> None:
    """A text of one byte a character is read otherwise than one with others; what they share must be the same."""
    plain, mixed = "the cat sat on the mat", "the cat sat on the mat 猫 é"
    (alone, _), (among, starts) = pieces([plain]), pieces([plain, mixed, "猫が座った"])
    assert alone[:22].tolist() == among[:22].tolist()
    assert among[starts[1] + 4 : starts[1] + 22].tolist() == alone[4:22].tolist()
    assert len(set(among[starts[2] :].tolist())) == len("猫が座った") + 4


@given(st.lists(st.text(max_size=12), min_size=1, max_size=6))
def test_a_piece_has_one_hash_and_different_pieces_have_different_ones(texts: list[str]) -> None:
    hashes, starts = pieces(texts)
    found: dict[str, int] = {}
    for text, start in zip(texts, starts.tolist(), strict=False):
        # the first four windows of a text begin with marks, also those of the text before it
        padded = PAD + text + PAD
        for k in range(len(text) + PIECE - 1):
            piece = padded[k : k + PIECE]
            assert found.setdefault(piece, int(hashes[start + k])) == int(hashes[start + k])
    assert len(set(found.values())) == len(found)
