"""Facts dealt evenly: a pile is shuffled, dealt out to the last card, and shuffled again."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Generic, TypeVar

from burnish.marble.facts import Fact

Card = TypeVar("Card")


class Deck(Generic[Card]):
    """A pile that deals every card equally often, give or take one."""

    def __init__(self, cards: Sequence[Card], *, rng: Random) -> None:
        self._cards = list(cards)
        self._rng = rng
        self._left: list[Card] = []

    def deal(self, number: int = 1) -> list[Card]:
        """The next cards, at most one whole pile of them; only where two passes meet can one come twice."""
        hand: list[Card] = []
        for _ in range(min(number, len(self._cards))):
            if not self._left:
                self._left = self._rng.sample(self._cards, len(self._cards))
            hand.append(self._left.pop())
        return hand


class Decks:
    """The same facts as one pile, as one pile per relation, and as one pile of entities."""

    def __init__(self, facts: Sequence[Fact], *, families: dict[str, str], rng: Random) -> None:
        by_relation: dict[str, list[Fact]] = {}
        by_entity: dict[tuple[str, str], list[Fact]] = {}
        for fact in facts:
            by_relation.setdefault(fact.relation, []).append(fact)
            by_entity.setdefault((families[fact.relation], fact.entity), []).append(fact)
        self._rng = rng
        self._all = Deck(facts, rng=rng)
        self._relations = {name: Deck(own, rng=rng) for name, own in by_relation.items()}
        self._sizes = [len(own) for own in by_relation.values()]
        self._entities = Deck(list(by_entity.values()), rng=rng)

    def mixed(self, number: int) -> list[Fact]:
        """Facts of any kind."""
        return self._all.deal(number)

    def of_one_relation(self, number: int) -> list[Fact]:
        """Facts of one kind; large relations come up in proportion to their size."""
        [name] = self._rng.choices(list(self._relations), weights=self._sizes)
        return self._relations[name].deal(number)

    def of_one_entity(self) -> list[Fact]:
        """Everything known about one entity."""
        return self._entities.deal()[0]
