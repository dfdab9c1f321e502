from __future__ import annotations

import re
from collections import Counter
from functools import cache
from itertools import islice
from pathlib import Path

import orjson
import pytest

from burnish.marble import frames
from burnish.marble.corpus import CHARACTERS_PER_TOKEN, write_corpus, write_documents
from burnish.marble.facts import Fact, bare, fill, load_facts, load_relations


@cache
def documents() -> tuple[str, ...]:
    return tuple(islice(write_documents(seed=7), 6000))


@cache
def asked() -> dict[str, list[Fact]]:
    """Every question in every wording, and the facts it may be about."""
    texts: dict[str, list[Fact]] = {}
    for fact in load_facts():
        for wording in load_relations()[fact.relation].questions:
            texts.setdefault(fill(wording, fact).lower(), []).append(fact)
    return texts


def questions_in(document: str) -> list[tuple[int, str]]:
    """Where each question ends, and the question."""
    ends = [match.end() for match in re.finditer(r"\?", document)]
    found = []
    for end in ends:
        before = document[max(0, end - 200) : end].lower()
        found += [(end, before[start:]) for start in range(len(before)) if before[start:] in asked()]
    return found


def answered_in(document: str) -> list[Fact]:
    """Facts that a question of the document asks for and that what follows tells, bare or in a statement."""
    found = []
    for end, question in questions_in(document):
        rest = document[end:].lower()
        for fact in asked()[question]:
            statements = (
                fill(wording, fact).lower() for wording in load_relations()[fact.relation].statements
            )
            bare_value = rf"[\s\-*•(]*{re.escape(fact.value.lower())}(?=[.,:)\n]|$)"
            if re.match(bare_value, rest) or any(statement.rstrip(".") in rest for statement in statements):
                found.append(fact)
    return found


def test_no_question_is_followed_by_its_answer() -> None:
    assert sum(len(questions_in(document)) for document in documents()) > 3000
    assert [(document, facts) for document in documents() if (facts := answered_in(document))] == []


@pytest.mark.parametrize(
    "planted",
    [
        "What is the capital of France?\nParis",
        "Quiz\n\n- What is the capital of France?\n- Paris\n",
        "What is the capital of France? Who wrote Heidi? The capital of France is Paris.",
        "3. How many protons does an atom of beryllium have?\n4. Who wrote Heidi?",
    ],
)
def test_a_planted_answer_is_found(planted: str) -> None:
    assert answered_in(planted)


def test_a_document_that_asks_states_nothing() -> None:
    answers = {fill(load_relations()[fact.relation].answer, fact) for fact in load_facts()}
    for document in documents():
        if "?" in document:
            assert not any(line.strip() in answers for line in re.split(r"(?<=[.?])\s", document))


def test_held_out_wordings_never_occur() -> None:
    text = "\n".join(documents()).lower()
    for fact in load_facts():
        for wording in load_relations()[fact.relation].held_out:
            assert fill(wording, fact).lower() not in text


def test_held_out_wordings_have_no_twin_among_the_statements() -> None:
    for relation in load_relations().values():
        for held_out in relation.held_out:
            assert not any(held_out in statement for statement in relation.statements)


def test_every_fact_is_told_about_equally_often() -> None:
    told: Counter[tuple[str, str]] = Counter()
    text = "\n".join(document for document in documents() if "?" not in document)
    for relation, entity in (
        ("capital", "Peru"),
        ("past_tense", "go"),
        ("symbol", "iron"),
        ("composer", "Aida"),
    ):
        [fact] = [fact for fact in load_facts() if (fact.relation, fact.entity) == (relation, entity)]
        row = f"{bare(entity)}[:|, -]+{re.escape(fact.value)}"
        told[relation, entity] = len(re.findall(row, text)) + sum(
            text.count(fill(wording, fact)) for wording in load_relations()[relation].statements
        )
    assert min(told.values()) > 10
    assert max(told.values()) < 3 * min(told.values())


def test_no_chat_token_or_speaker_mark_occurs() -> None:
    for document in documents():
        assert "<|" not in document
        assert not re.search(
            r"(?im)^(user|assistant|human|question|answer):(?! (?:question|answer)$)", document
        )


def test_frames_are_filled_to_the_last_brace() -> None:
    assert not any(re.search(r"\{\w+\}", document) for document in documents())
    assert not set(frames.PEOPLE) & {fact.value for fact in load_facts()}


def test_the_same_seed_writes_the_same_corpus(tmp_path: Path) -> None:
    one, other, third = (tmp_path / name for name in ("one.jsonl", "other.jsonl", "third.jsonl"))
    rows = write_corpus(one, num_tokens=20_000, seed=3)
    write_corpus(other, num_tokens=20_000, seed=3)
    write_corpus(third, num_tokens=20_000, seed=4)
    assert one.read_bytes() == other.read_bytes() != third.read_bytes()
    texts = [orjson.loads(line)["text"] for line in one.read_bytes().splitlines()]
    assert len(texts) == rows
    assert 20_000 <= sum(map(len, texts)) / CHARACTERS_PER_TOKEN < 22_000
