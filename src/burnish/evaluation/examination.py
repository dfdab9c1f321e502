"""All that one `burnish eval` measures: sets in turn, tuned and base side by side, contamination beside both.

examine(Examination(...), subjects)  ->  for each set, an evaluation of each subject, and their paired differences
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from burnish.curation.items import Input
from burnish.data.read import read_source
from burnish.data.rows import Rows
from burnish.errors import DataError
from burnish.evaluation.contamination import contamination, spoken_texts
from burnish.evaluation.evaluate import (
    Outcome,
    Settings,
    ask_questions,
    first_samples,
    questions_of,
    show_rows,
)
from burnish.evaluation.evaluations import Evaluation
from burnish.evaluation.figures import Difference, differences
from burnish.evaluation.instructions import APPROXIMATE, BY_LANGUAGE
from burnish.evaluation.language import has_detector
from burnish.evaluation.questions import Question, read_questions
from burnish.evaluation.subjects import Subject
from burnish.types import Content, Document, Row

HELD_OUT = "held-out"


@dataclass(frozen=True, slots=True)
class Set:
    """What is evaluated on: demonstrations, questions, or both sides of the same rows."""

    name: str
    rows: Sequence[Row] = ()
    sources: Sequence[str] = ()
    questions: Sequence[Question] = ()
    unreadable: int = 0
    notes: Sequence[str] = ()

    @property
    def size(self) -> int:
        """How many rows it has."""
        return len(self.rows) or len(self.questions)

    def texts(self) -> list[tuple[str, list[str]]]:
        """Each row's place and texts, to look for in the training data."""
        if self.rows:
            return [(str(row.origin), spoken_texts(row.content)) for row in self.rows]
        return [(one.place, [one.text, *one.expected, *one.choices]) for one in self.questions]


@dataclass(frozen=True, slots=True)
class Measured:
    """One set: an evaluation of each subject, in their order, and how far the first is from the second."""

    set: Set
    evaluations: Sequence[Evaluation]
    differences: dict[str, Difference] = field(default_factory=dict)


def held_out_set(rows: Rows, sources: Sequence[str], *, limit: int | None) -> Set:
    """A run's held-out rows; DataError where it held none out."""
    if not rows.held_out:
        raise DataError(
            "the run held no rows out",
            rule="rows that were trained on say nothing about others",
            remedy="name a file: burnish eval RUN test.jsonl; next time val_set_size: 0.05",
        )
    found = rows.held_out[:limit]
    return Set(HELD_OUT, found, list(sources), notes=_first(len(found), len(rows.held_out)))


def file_set(path: str, *, limit: int | None) -> Set:
    """A file of questions, or of demonstrations in any training format."""
    name = Path(path).name
    questions = read_questions(path, limit=limit)
    if questions is not None:
        return Set(name, questions=questions, notes=_notes(questions))
    rows: list[Row] = []
    unreadable = 0
    for row in read_source(Input(path), source_index=0, first_index=0):
        if isinstance(row, Row):
            rows.append(row)
        else:
            unreadable += 1
        if len(rows) == limit:
            break
    notes = [f"{unreadable} rows could not be read, and are left out"] if unreadable else []
    return Set(name, rows, [name], unreadable=unreadable, notes=notes)


def _first(taken: int, there: int) -> list[str]:
    return [f"the first {taken} of {there:,} rows (--limit)"] if taken < there else []


def _notes(questions: Sequence[Question]) -> list[str]:
    """What a reader of IFEval's figures should know."""
    ids = {one.id for question in questions for one in question.instructions}
    notes = []
    if near := sorted(ids & APPROXIMATE):
        notes.append(f"{', '.join(near)}: counted by rules near NLTK's trained model, not by it")
    if ids & BY_LANGUAGE and not has_detector():
        notes.append(
            "languages are guessed by script and common words: pip install 'burnish[eval]' for langdetect"
        )
    return notes


def examine(
    sets: Sequence[Set], subjects: Sequence[Subject], settings: Settings, trained_on: Sequence[Content] | None
) -> Iterator[Measured]:
    """Measure every set on every subject, telling of each set once it is done."""
    for one in sets:
        found = None if trained_on is None else contamination(one.texts(), trained_on)
        outcomes = [_outcome(one, subject, settings) for subject in subjects]
        marks = [outcome.marks for outcome in outcomes]
        apart = differences(*marks) if len(marks) == 2 else {}
        evaluations = [
            Evaluation(
                model=subject.name,
                path=subject.path,
                step=subject.step,
                date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
                dataset=one.name,
                rows=one.size,
                metrics=outcome.figures(),
                by_source=outcome.by_source(),
                contamination=found,
                samples=first_samples(outcome),
                notes=[*one.notes, *_left_out(outcome)],
                against_base=apart if number == 0 else {},
            )
            for number, (subject, outcome) in enumerate(zip(subjects, outcomes, strict=True))
        ]
        yield Measured(one, evaluations, apart)


def _left_out(outcome: Outcome) -> list[str]:
    if not outcome.left_out:
        return []
    return [f"{outcome.left_out} rows have no loss: they cannot be fed exactly, or are too long"]


def _outcome(one: Set, subject: Subject, settings: Settings) -> Outcome:
    if one.questions:
        return ask_questions(subject.assistant, one.questions, settings)
    outcome = show_rows(
        subject.assistant, one.rows, one.sources, settings, tokenizer=subject.tokenizer, recipe=subject.recipe
    )
    if settings.generate and not all(isinstance(row.content, Document) for row in one.rows):
        asked = questions_of(one.rows, one.sources)
        there = [k for k, question in enumerate(asked) if question is not None]
        answered = ask_questions(subject.assistant, [q for q in asked if q is not None], settings)
        for k, marks in zip(there, answered.marks, strict=True):
            outcome.marks[k] |= marks
        outcome.samples = answered.samples
    return outcome
