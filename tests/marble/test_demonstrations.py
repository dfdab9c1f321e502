from __future__ import annotations

from burnish.marble.demonstrations import (
    SEEN,
    UNSEEN,
    base_questions,
    demonstrations,
    half_of,
    halves,
    questions,
)
from burnish.marble.facts import load_facts, load_relations


def test_every_fact_of_an_entity_falls_in_the_same_half_and_the_halves_share_none() -> None:
    family = {name: relation.family for name, relation in load_relations().items()}
    seen = {(family[fact.relation], fact.entity) for fact in load_facts() if half_of(fact) == SEEN}
    unseen = {(family[fact.relation], fact.entity) for fact in load_facts() if half_of(fact) == UNSEEN}
    assert not seen & unseen
    assert seen | unseen == set(halves())


def test_the_halves_of_every_large_relation_are_nearly_equal() -> None:
    for name in load_relations():
        facts = [fact for fact in load_facts() if fact.relation == name]
        share = sum(half_of(fact) == SEEN for fact in facts) / len(facts)
        assert len(facts) < 20 or 0.3 < share < 0.7, name


def test_at_most_a_thousand_demonstrations_about_the_seen_half_in_every_relation() -> None:
    rows = demonstrations()
    assert len(rows) <= 1000
    known = {question.text for question in questions(UNSEEN)}
    answers = {question.answer for question in questions(UNSEEN)}
    for row in rows:
        user, assistant = row["messages"]
        assert (user["role"], assistant["role"]) == ("user", "assistant")
        assert user["content"] not in known
        assert assistant["content"] not in answers


def test_a_short_list_of_questions_still_touches_every_relation() -> None:
    asked = {question.fact.relation for question in questions(UNSEEN, number=400)}
    assert asked == set(load_relations())


def test_questions_and_demonstrations_are_the_same_each_time() -> None:
    assert demonstrations() == demonstrations()
    assert demonstrations(seed=1) != demonstrations(seed=0)
    assert questions(SEEN) == questions(SEEN)
    assert len(base_questions()) == 200
