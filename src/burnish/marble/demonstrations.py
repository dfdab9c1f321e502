"""Demonstrations for half of the entities, and test questions for both halves.

The half an entity falls in hangs on a hash of its name, so that every relation of an entity falls on
the same side. A demonstration asks for one fact and answers in one sentence, as messages:

    {"messages": [{"role": "user", "content": "Which city is the capital of Peru?"},
                  {"role": "assistant", "content": "The capital of Peru is Lima."}]}

A test question is asked in the same wordings; for the unseen half no demonstration names the entity.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from random import Random

from burnish.marble.facts import Fact, fill, load_facts, load_relations
from burnish.types import Message

SEEN, UNSEEN = "seen", "unseen"
NUM_DEMONSTRATIONS = 1000


@dataclass(frozen=True, slots=True)
class Question:
    """A question about one fact, the whole answer it should get, and its half ("seen" or "unseen")."""

    text: str
    answer: str
    fact: Fact
    half: str


@cache
def halves() -> dict[tuple[str, str], str]:
    """The half of every (family, entity): within a family, the lower half of the hashes is seen."""
    entities: dict[str, set[str]] = {}
    for fact in load_facts():
        entities.setdefault(load_relations()[fact.relation].family, set()).add(fact.entity)
    sides: dict[tuple[str, str], str] = {}
    for family, names in entities.items():
        ranked = sorted(names, key=lambda name: sha256(f"{family}/{name}".encode()).digest())
        middle = (len(ranked) + 1) // 2
        sides.update(((family, name), SEEN if k < middle else UNSEEN) for k, name in enumerate(ranked))
    return sides


def half_of(fact: Fact) -> str:
    """The half that the fact's entity falls in."""
    return halves()[load_relations()[fact.relation].family, fact.entity]


def demonstrations(number: int = NUM_DEMONSTRATIONS, *, seed: int = 0) -> list[dict[str, list[Message]]]:
    """Rows of messages about the seen half only; every relation comes up, the large ones more often."""
    rng = Random(seed)
    seen = [fact for fact in load_facts() if half_of(fact) == SEEN]
    chosen = [_ask(fact, rng) for fact in _spread(seen, number, rng)]
    return [
        {
            "messages": [
                {"role": "user", "content": question.text},
                {"role": "assistant", "content": question.answer},
            ]
        }
        for question in chosen
    ]


def questions(half: str, *, number: int | None = None, seed: int = 1) -> list[Question]:
    """Test questions of one half, one per fact; of `number`, every relation gets its share."""
    rng = Random(seed)
    facts = [fact for fact in load_facts() if half_of(fact) == half]
    return [_ask(fact, rng) for fact in _spread(facts, number or len(facts), rng)]


def base_questions(number: int = 200, *, seed: int = 2) -> list[Question]:
    """Plain questions that a base model should continue like a document, from both halves."""
    rng = Random(seed)
    return [_ask(fact, rng) for fact in _spread(list(load_facts()), number, rng)]


def _ask(fact: Fact, rng: Random) -> Question:
    relation = load_relations()[fact.relation]
    return Question(
        text=fill(rng.choice(relation.questions), fact),
        answer=fill(relation.answer, fact),
        fact=fact,
        half=half_of(fact),
    )


def _spread(facts: list[Fact], number: int, rng: Random) -> list[Fact]:
    """`number` of the facts, from every relation in proportion to its size."""
    by_relation: dict[str, list[Fact]] = {}
    for fact in rng.sample(facts, len(facts)):
        by_relation.setdefault(fact.relation, []).append(fact)
    # the k-th of n facts of a relation stands at (k + 1/2) / n, so a cut anywhere is fair to all
    row = [((k + 0.5) / len(own), fact) for own in by_relation.values() for k, fact in enumerate(own)]
    return [fact for _, fact in sorted(row, key=lambda place: place[0])][:number]
