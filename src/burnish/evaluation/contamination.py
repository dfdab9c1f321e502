"""How much of an evaluation set stands in the training data: rows that share a run of 13 words with a training row.

    evaluation row   "What is the boiling point of water at the top of mount everest in degrees?"   14 words: 2 runs
    short texts      of 4 to 12 words count where a text of a training row is the same, word for word

Looked at are prompts and expected answers; a training row's system message is not, nor is an evaluation row's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from burnish.curation.decontaminate import LEAST_WORDS, sequences, words_of
from burnish.curation.texts import texts_of
from burnish.types import Content, Conversation

NGRAM = 13


@dataclass(frozen=True, slots=True)
class Contamination:
    """So many rows of the set, `rows` of `of`, share a run of `ngram` words with training rows; the first few."""

    rows: int
    of: int
    ngram: int = NGRAM
    first: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """As `evals.json` holds it."""
        return {"rows": self.rows, "of": self.of, "ngram": self.ngram, "first": list(self.first)}


def spoken_texts(content: Content) -> list[str]:
    """What users and assistants said in a row, without system messages and tools."""
    if isinstance(content, Conversation):
        content = Conversation([m for m in content.messages if m["role"] != "system"])
    return texts_of(content)


def contamination(
    evaluation: Sequence[tuple[str, Sequence[str]]], training: Iterable[Content], *, ngram: int = NGRAM
) -> Contamination:
    """Look for the texts of evaluation rows, each with its place, in the training rows."""
    runs: dict[str, set[int]] = {}
    whole: dict[str, set[int]] = {}
    for row, (_, texts) in enumerate(evaluation):
        for text in texts:
            words = words_of(text)
            for run in sequences(words, ngram):
                runs.setdefault(run, set()).add(row)
            if LEAST_WORDS <= len(words) < ngram:
                whole.setdefault(" ".join(words), set()).add(row)
    hit: set[int] = set()
    for content in training:
        for text in spoken_texts(content):
            words = words_of(text)
            hit |= whole.get(" ".join(words), set()) if len(words) < ngram else set()
            for run in sequences(words, ngram):
                hit |= runs.get(run, set())
    first = tuple(evaluation[row][0] for row in sorted(hit)[:5])
    return Contamination(len(hit), len(evaluation), ngram, first)
