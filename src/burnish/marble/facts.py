"""The tables of facts that marble knows, and the wordings each kind of fact is told in.

One family is two files in `facts/`. The table has a header row and the entity in its first column; an
empty cell means that no fact is claimed. Every other column is a relation, worded in the second file:

    countries.tsv         country <tab> capital <tab> currency ...
                          France  <tab> Paris   <tab> euro     ...
    countries.wordings    [capital] capital                                  relation and its label
                          ? What is the capital of {e}?                      a question, asked without answer
                          = The capital of {e} is {v}.                       a statement of the corpus
                          ~ On the map of {e}, the star that marks ...       not in the corpus, stops at {v}

`{e}` is the entity, `{v}` the value, `{E}` and `{V}` the same with a capital letter.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from burnish.errors import DataError

FOLDER = Path(__file__).parent / "facts"


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing marble knows: `Fact("capital", "France", "Paris")`."""

    relation: str
    entity: str
    value: str


@dataclass(frozen=True, slots=True)
class Relation:
    """A kind of fact: the family it belongs to and the wordings it is asked and told in."""

    name: str
    family: str
    label: str
    questions: list[str] = field(default_factory=list)
    statements: list[str] = field(default_factory=list)
    held_out: list[str] = field(default_factory=list)

    @property
    def answer(self) -> str:
        """The statement that answers a question about this relation."""
        return self.statements[0]


def with_capital(text: str) -> str:
    """The text as it stands at the start of a sentence."""
    return text[:1].upper() + text[1:]


def bare(entity: str) -> str:
    """The entity as it stands in a list or a table: without its article."""
    return with_capital(entity.removeprefix("the "))


def fill(wording: str, fact: Fact) -> str:
    """Put a fact into a wording: `fill("A young {e} is called a {v}.", eagle)` gives "... an eaglet."."""
    text = wording
    for slot, word in (("e", fact.entity), ("v", fact.value)):
        if word[0] in "aeio":
            text = text.replace(f"a {{{slot}}}", f"an {word}").replace(f"A {{{slot}}}", f"An {word}")
        text = text.replace(f"{{{slot}}}", word).replace(f"{{{slot.upper()}}}", with_capital(word))
    return text.replace("..", ".")  # "... is Washington, D.C.."


@cache
def load_relations() -> dict[str, Relation]:
    """All relations by name, in the order of their files."""
    return {relation.name: relation for path in _tables() for relation in _read_wordings(path)}


@cache
def load_facts() -> tuple[Fact, ...]:
    """All facts, table by table, row by row."""
    relations = load_relations()
    return tuple(fact for path in _tables() for fact in _read_table(path, relations))


def _tables() -> list[Path]:
    return sorted(FOLDER.glob("*.tsv"))


def _read_table(path: Path, relations: dict[str, Relation]) -> Iterator[Fact]:
    header, *lines = path.read_text(encoding="utf-8").splitlines()
    names = header.split("\t")[1:]
    for name in names:
        if name not in relations:
            raise DataError(
                f"{path.name}:1: column '{name}' has no wordings",
                rule="every column after the first is a relation",
                remedy=f"add a section [{name}] to {path.stem}.wordings",
            )
    for number, line in enumerate(lines, start=2):
        entity, *values = line.split("\t")
        if len(values) != len(names):
            raise DataError(
                f"{path.name}:{number}: {len(values)} values for {len(names)} relations",
                rule="a row has one cell per column, empty where no fact is claimed",
                remedy="add or remove a tab on that line",
            )
        yield from (Fact(name, entity, value) for name, value in zip(names, values, strict=True) if value)


def _read_wordings(table: Path) -> Iterator[Relation]:
    path = table.with_suffix(".wordings")
    relation: Relation | None = None
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line or line.startswith("#"):
            continue
        if line.startswith("["):
            if relation:
                yield relation
            name, _, label = line[1:].partition("] ")
            relation = Relation(name, table.stem, label)
            continue
        places = _places(relation) if relation else {}
        if line[:2] not in places:
            raise DataError(
                f"{path.name}:{number}: '{line[:40]}'",
                rule="a line starts with [relation], '? ', '= ' or '~ ', the first of them with [relation]",
                remedy="mark the line as a question, a statement or a held-out statement",
            )
        places[line[:2]].append(line[2:])
    if relation:
        yield relation


def _places(relation: Relation) -> dict[str, list[str]]:
    return {"? ": relation.questions, "= ": relation.statements, "~ ": relation.held_out}
