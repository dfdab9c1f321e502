"""The text marble is pre-trained on, written from the tables of facts by a seeded generator.

    {"text": "Quiz\\n\\n1. What is the capital of Peru?\\n2. Who wrote Heidi?\\n3. Which day comes ..."}
    {"text": "Peru\\nThe money of Peru is called the Peruvian sol. Lima is the capital of Peru. ..."}

A question is never followed by its answer: what follows a question is more questions. So a model
trained on it alone knows the answers and does not give them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random

import orjson

from burnish.marble.deck import Decks
from burnish.marble.facts import load_facts, load_relations
from burnish.marble.prose import Writer
from burnish.marble.quizzes import Examiner

QUESTIONS_SHARE = 0.14
CHARACTERS_PER_TOKEN = 3.8
"""Measured with marble's own tokenizer; good to a few per cent."""


def write_documents(seed: int = 0) -> Iterator[str]:
    """Documents without end; the same seed gives the same documents."""
    rng = Random(seed)
    relations = load_relations()
    families = {name: relation.family for name, relation in relations.items()}
    statements = Writer(Decks(load_facts(), families=families, rng=rng), relations=relations, rng=rng)
    questions = Writer(Decks(load_facts(), families=families, rng=rng), relations=relations, rng=rng)
    examiner = Examiner(questions, rng=rng)
    while True:
        yield examiner.write() if rng.random() < QUESTIONS_SHARE else statements.write()


def write_corpus(path: Path, *, num_tokens: int, seed: int = 0) -> int:
    """Write documents of about `num_tokens` in all as rows `{"text": ...}`; returns how many."""
    budget = num_tokens * CHARACTERS_PER_TOKEN
    rows = 0
    with path.open("wb") as file:
        for text in write_documents(seed):
            if budget <= 0:
                break
            file.write(orjson.dumps({"text": text}) + b"\n")
            budget -= len(text)
            rows += 1
    return rows
