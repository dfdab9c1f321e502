"""Documents of statements: entries, surveys, notes, comparisons, stories, letters, lists, tables."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from burnish.marble import frames
from burnish.marble.deck import Decks
from burnish.marble.facts import Fact, Relation, bare, fill, with_capital


class Writer:
    """Writes documents about facts that decks deal, in wordings drawn at random."""

    def __init__(self, decks: Decks, *, relations: dict[str, Relation], rng: Random) -> None:
        self.decks = decks
        self.relations = relations
        self.rng = rng

    def write(self) -> str:
        """One document of statements, of a kind drawn at random."""
        kinds: dict[Callable[[], str], int] = {
            self.entries: 24, self.topics: 32, self.survey: 8, self.notes: 10, self.comparison: 10,
            self.story: 7, self.letter: 4, self.listing: 3, self.table: 2,
        }  # fmt: skip
        [kind] = self.rng.choices(list(kinds), weights=list(kinds.values()))
        return kind()

    def entries(self) -> str:
        """Encyclopedia entries, one paragraph per entity, until about a dozen facts are told."""
        paragraphs: list[str] = []
        told = 0
        while told < 10:
            facts = self.decks.of_one_entity()
            told += len(facts)
            head = self.rng.choice(("", f"{bare(facts[0].entity)}\n", f"{bare(facts[0].entity)}. "))
            retold = facts if len(facts) > 2 else facts * self.rng.choice((1, 2, 2, 3))
            paragraphs.append(head + " ".join(map(self.say, self.rng.sample(retold, len(retold)))))
        return self.rng.choice(("\n\n", "\n")).join(paragraphs)

    def topics(self) -> str:
        """Each entity announced in a sentence that leaves open what will be said about it."""
        # the entity must be carried over from the sentence before, as it must from question to answer
        parts = [f"{self.topic(fact)} {self.say(fact)}" for fact in self.decks.mixed(self.rng.randint(6, 10))]
        return self.cast(self.rng.choice((" ", "\n", "\n\n")).join(parts))

    def survey(self) -> str:
        """Statements of one relation, one entity after the other."""
        facts = self.decks.of_one_relation(self.rng.randint(8, 16))
        return self.under(frames.LABEL_HEADINGS, self.join(list(map(self.say, facts))), facts[0])

    def notes(self) -> str:
        """Unconnected statements, as in a notebook."""
        facts = self.decks.mixed(self.rng.randint(8, 16))
        return self.under(frames.PROSE_HEADINGS, self.join(list(map(self.say, facts))))

    def comparison(self) -> str:
        """Pairs of facts of one relation set against each other."""
        facts = self.decks.of_one_relation(2 * self.rng.randint(3, 6))
        sentences = []
        for one, other in zip(facts[::2], facts[1::2], strict=False):
            pair = self.rng.choice(frames.PAIRS).replace("{one}", one.entity).replace("{two}", other.entity)
            clauses = {"clause": self.clause(one), "other_clause": self.clause(other)}
            sentences.append(f"{pair} {self.rng.choice(frames.COMPARISONS).format(**clauses)}".strip())
        return self.cast(self.under(frames.LABEL_HEADINGS, self.join(sentences), facts[0]))

    def story(self) -> str:
        """Invented people who come across facts."""
        middle: list[str] = []
        for fact in self.decks.mixed(self.rng.randint(7, 12)):
            middle.append(self.say(fact) if self.rng.random() < 0.5 else self.reported(fact))
            if self.rng.random() < 0.3:
                middle.append(self.rng.choice(frames.STORY_LINKS))
        parts = [self.rng.choice(frames.STORY_OPENINGS), *middle, self.rng.choice(frames.STORY_ENDINGS)]
        return self.cast(" ".join(part for part in parts if part))

    def letter(self) -> str:
        """A letter that reports facts."""
        body = " ".join(
            self.say(fact) if self.rng.random() < 0.7 else self.reported(fact)
            for fact in self.decks.mixed(self.rng.randint(6, 12))
        )
        opening, ending = self.rng.choice(frames.LETTER_OPENINGS), self.rng.choice(frames.LETTER_ENDINGS)
        return self.cast(f"{opening} {body}\n{ending}")

    def listing(self) -> str:
        """A list of entities and values under the relation's label."""
        facts = self.decks.of_one_relation(self.rng.randint(10, 20))
        bullet = self.rng.choice(("- ", "* ", "", "• "))
        link = self.rng.choice((": ", " - ", ": "))
        lines = [f"{bullet}{bare(fact.entity)}{link}{fact.value}" for fact in facts]
        return self.under(frames.LIST_HEADINGS, "\n".join(lines), facts[0])

    def table(self) -> str:
        """A table with one row per entity."""
        facts = self.decks.of_one_relation(self.rng.randint(10, 20))
        head = f"| {self.rng.choice(('Name', 'Entry', 'Subject'))} | {with_capital(self.label(facts[0]))} |"
        return "\n".join([head, "|---|---|", *(f"| {bare(fact.entity)} | {fact.value} |" for fact in facts)])

    def say(self, fact: Fact) -> str:
        """The fact in one of its statement wordings, sometimes after an opening such as "In fact,"."""
        wording = self.rng.choice(self.relations[fact.relation].statements)
        opening = ""
        if self.rng.random() < 0.3:
            opening = self.rng.choice(frames.OPENINGS).replace("{who}", self.rng.choice(frames.PEOPLE))
            wording = wording.replace("{E}", "{e}").replace("{V}", "{v}")
            wording = wording[0].lower() + wording[1:]
        text = opening + fill(wording, fact)
        return text if text.endswith((".", ")")) else f"{text}."

    def topic(self, fact: Fact) -> str:
        """The sentence that announces the fact's entity."""
        topic = self.rng.choice(frames.TOPICS).replace("{entity}", fact.entity)
        return topic.replace("{label}", self.label(fact))

    def clause(self, fact: Fact) -> str:
        """The fact as it stands after "that": the answer wording without capital letter and full stop."""
        wording = self.relations[fact.relation].answer.replace("{E}", "{e}").removesuffix(".")
        return fill(wording[:1].lower() + wording[1:], fact)

    def reported(self, fact: Fact) -> str:
        """The fact as somebody reports it."""
        return f"{self.rng.choice(frames.CLAUSES).replace('{clause}', self.clause(fact))}.".replace("..", ".")

    def label(self, fact: Fact) -> str:
        """What the fact's relation is called in headings."""
        return self.relations[fact.relation].label

    def join(self, sentences: list[str]) -> str:
        """Sentences as one paragraph, as several, or as one line each."""
        match self.rng.choice(("paragraph", "paragraph", "paragraphs", "lines")):
            case "paragraph":
                return " ".join(sentences)
            case "paragraphs":
                middle = self.rng.randint(3, 5)
                return "\n\n".join((" ".join(sentences[:middle]), " ".join(sentences[middle:]))).strip()
            case _:
                return "\n".join(sentences)

    def under(self, headings: tuple[str, ...], text: str, fact: Fact | None = None) -> str:
        """The text under a heading, or under none."""
        label = self.label(fact) if fact else ""
        heading = self.rng.choice(headings).replace("{label}", label).replace("{Label}", with_capital(label))
        return f"{self.cast(heading)}\n\n{text}" if heading else text

    def cast(self, text: str) -> str:
        """Give the invented people and the place of a text their names."""
        who, other = self.rng.sample(frames.PEOPLE, 2)
        place = self.rng.choice(frames.PLACES)
        return text.replace("{who}", who).replace("{other}", other).replace("{place}", place)
