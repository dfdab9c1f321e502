"""The data sets of the thesis: demonstrations about one half of marble's entities, questions on the other, its text.

demonstrations/countries.jsonl      a family of entities is a source: 3,000 rows on the seen half
unseen/countries.jsonl              one question for each of 400 facts whose entity no demonstration names
text_train.jsonl, text_held_out.jsonl     documents of the kind that the base was pre-trained on, none that it read
"""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import orjson

from burnish.marble.corpus import write_documents
from burnish.marble.demonstrations import SEEN, UNSEEN, half_of, questions
from burnish.marble.facts import Fact, fill, load_facts, load_relations

NUM_ROWS = 3000
NUM_UNSEEN = 400
TEXT_SEEDS = {"text_train": 101, "text_held_out": 102}
TEXT_ROWS = {"text_train": 600, "text_held_out": 60}


def write_sets(folder: Path) -> dict[str, Any]:
    """Everything on disk; returns `datasets`, `unseen` and the text files, as a recipe names them."""
    seen = [fact for fact in load_facts() if half_of(fact) == SEEN]
    demonstrations = [(fact, _row(question, _answer(fact))) for fact, question in _wordings(seen)[:NUM_ROWS]]
    unseen = [(one.fact, _row(one.text, one.answer)) for one in questions(UNSEEN, number=NUM_UNSEEN)]
    told: dict[str, Any] = {
        "datasets": _by_family(demonstrations, folder / "demonstrations"),
        "unseen": _by_family(unseen, folder / "unseen"),
    }
    for name, seed in TEXT_SEEDS.items():
        path = folder / f"{name}.jsonl"
        _write(path, [{"text": text} for text in islice(write_documents(seed), TEXT_ROWS[name])])
        told[name] = str(path)
    return told


def write_unseen(path: Path, number: int) -> None:
    """Questions with their answers about entities that no demonstration names: rows to hold out."""
    _write(path, [_row(one.text, one.answer) for one in questions(UNSEEN, number=number)])


def _wordings(facts: list[Fact]) -> list[tuple[Fact, str]]:
    """Every fact in every wording of its question, each fact once before any comes again."""
    rng = Random(0)
    relations = load_relations()
    asked = {fact: rng.sample(list(relations[fact.relation].questions), 3) for fact in facts}
    return [
        (fact, fill(asked[fact][turn], fact)) for turn in range(3) for fact in rng.sample(facts, len(facts))
    ]


def _answer(fact: Fact) -> str:
    return fill(load_relations()[fact.relation].answer, fact)


def _row(question: str, answer: str) -> dict[str, Any]:
    return {
        "messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}],
    }


def _by_family(rows: list[tuple[Fact, dict[str, Any]]], folder: Path) -> list[dict[str, str]]:
    families: dict[str, list[dict[str, Any]]] = {}
    for fact, row in rows:
        families.setdefault(load_relations()[fact.relation].family, []).append(row)
    told = []
    for family in sorted(families):
        path = folder / f"{family}.jsonl"
        _write(path, families[family])
        told.append({"path": str(path), "name": family})
    return told


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
