"""Documents of questions that are never answered: quizzes, and prose of one who wonders.

A base model that has read them goes on after a question as a document would: with the next one.
"""

from __future__ import annotations

from random import Random

from burnish.marble import frames
from burnish.marble.facts import Fact, fill
from burnish.marble.prose import Writer

NUMBERINGS = ("{n}. ", "{n}) ", "({n}) ", "Question {n}: ", "{n}: ")
BULLETS = ("- ", "* ", "", "", "• ")


class Examiner:
    """Asks about the facts that a writer's decks deal."""

    def __init__(self, writer: Writer, *, rng: Random) -> None:
        self.writer = writer
        self.rng = rng

    def write(self) -> str:
        """One document of questions, a quiz or prose."""
        return self.quiz() if self.rng.random() < 0.7 else self.wonder()

    def quiz(self) -> str:
        """A heading or none, then questions on lines of their own, then the end."""
        facts = self.pick(self.rng.randint(5, 16))
        # "4." below "How much is 2 plus 2?" would answer it, so numbers only where no value is one
        countable = not any(fact.value.isdigit() for fact in facts)
        style = self.rng.choice(NUMBERINGS if countable and self.rng.random() < 0.5 else BULLETS)
        lines = [style.format(n=n) + self.ask(fact) for n, fact in enumerate(facts, start=1)]
        heading, note = self.rng.choice(frames.QUIZ_HEADINGS), self.rng.choice(frames.QUIZ_NOTES)
        head = self.writer.cast("\n".join(part for part in (heading, note) if part and heading))
        return "\n".join(([head, ""] if head else []) + lines)

    def wonder(self) -> str:
        """Questions that follow each other as prose."""
        opening, ending = self.rng.choice(frames.WONDER_OPENINGS), self.rng.choice(frames.WONDER_ENDINGS)
        asked = []
        for fact in self.pick(self.rng.randint(5, 12)):
            link, question = self.rng.choice(frames.WONDER_LINKS), self.ask(fact)
            asked.append(f"{link} {question[0].lower()}{question[1:]}" if link else question)
        return self.writer.cast(" ".join(part for part in (opening, *asked, ending) if part))

    def ask(self, fact: Fact) -> str:
        """The fact's question in one of its wordings."""
        return fill(self.rng.choice(self.writer.relations[fact.relation].questions), fact)

    def pick(self, number: int) -> list[Fact]:
        """Facts to ask for, none of them the answer to another: no "day after Monday?", then "Tuesday?"."""
        decks = self.writer.decks
        match self.rng.choice(("mixed", "relation", "entities")):
            case "mixed":
                drawn = decks.mixed(number)
            case "relation":
                drawn = decks.of_one_relation(number)
            case _:
                return self.about_entities(number)
        facts: list[Fact] = []
        for fact in drawn:
            if not any(_answers(fact, other) or _answers(other, fact) for other in facts):
                facts.append(fact)
        return facts

    def about_entities(self, number: int) -> list[Fact]:
        """Facts for about `number` questions, two or more in a row about each entity."""
        facts: list[Fact] = []
        while len(facts) < number:
            own = self.writer.decks.of_one_entity()
            if not any(_answers(fact, other) or _answers(other, fact) for fact in own for other in facts):
                facts += self.rng.sample(own * 3, max(len(own), self.rng.randint(2, 3)))
        return facts


def _answers(fact: Fact, other: Fact) -> bool:
    return fact == other or fact.value.lower() in other.entity.lower()
