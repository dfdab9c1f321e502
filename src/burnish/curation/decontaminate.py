"""Rows that share long word sequences with evaluation files.

    evaluation row   "What is the boiling point of water at the top of mount everest in degrees?"   (14 words)
    its sequences    13 words: 2    8 words: 7
    a training row that holds one of them goes, and the ledger says which, and of which evaluation row

Words are runs of letters and digits after NFKC, in one case. An evaluation text of fewer words than the shortest
sequence counts where a text of the row is the same, word for word.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from burnish.curation.flow import KEPT, Verdict, removed
from burnish.curation.items import Input, Item
from burnish.curation.texts import Part, normal, texts_of
from burnish.data.read import raw_records
from burnish.data.reject import ConversionError
from burnish.errors import DataError, UsageError

SIZES = (13, 8)
LEAST_WORDS = 4
"""A whole evaluation text of fewer words ("True", "Paris") says nothing."""

_WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True)
class Sequences:
    """The word sequences of the evaluation files, by size, each with the first row it stands in; picklable."""

    sizes: tuple[int, ...]
    places: tuple[str, ...]
    by_size: dict[int, dict[str, int]] = field(repr=False)
    whole: dict[str, int] = field(repr=False)
    part: Part = "both"

    def __call__(self, items: Sequence[Item]) -> list[Verdict]:
        """The judge: the longest sequence that a row shares names its reason."""
        return [self._verdict(item) for item in items]

    def _verdict(self, item: Item) -> Verdict:
        texts = [words_of(text) for text in texts_of(item.row.content, self.part)]
        # Whoever shares 13 words shares 8: only rows that share the shortest are asked for the longer.
        if any(self._hit(words, self.sizes[-1]) for words in texts):
            for size in self.sizes:
                for words in texts:
                    if hit := self._hit(words, size):
                        return removed(f"{size}-gram overlap", f"{hit!r} stands in {self._place(size, hit)}")
        for words in texts:
            if (said := " ".join(words)) in self.whole:
                return removed("whole text overlap", f"{said!r} is {self.places[self.whole[said]]}")
        return KEPT

    def _hit(self, words: list[str], size: int) -> str:
        known = self.by_size[size]
        return next((sequence for sequence in sequences(words, size) if sequence in known), "")

    def _place(self, size: int, hit: str) -> str:
        return self.places[self.by_size[size][hit]]


def words_of(text: str) -> list[str]:
    """The words of a text as they are compared."""
    return _WORD.findall(normal(text))


def sequences(words: Sequence[str], size: int) -> Iterator[str]:
    """Every run of so many words."""
    for k in range(len(words) - size + 1):
        yield " ".join(words[k : k + size])


def read_evaluations(
    inputs: Sequence[Input], *, sizes: Sequence[int] = SIZES, part: Part = "both"
) -> Sequences:
    """The sequences of every text in the files, whatever their columns are named."""
    if not sizes or min(sizes) < 5:
        raise UsageError(
            f"--ngram {' '.join(map(str, sizes))}",
            rule="sequences have at least 5 words; shorter ones stand everywhere",
            remedy="write --ngram 13 --ngram 8",
        )
    ordered = tuple(sorted(set(sizes), reverse=True))
    by_size: dict[int, dict[str, int]] = {size: {} for size in ordered}
    whole: dict[str, int] = {}
    places: list[str] = []
    for source in inputs:
        first = len(places)
        for file, line, record in raw_records(source):
            if not isinstance(record, ConversionError):
                places.append(f"{file}:{line}")
                for text in _texts(record):
                    _add(words_of(text), len(places) - 1, by_size, whole)
        if len(places) == first:
            raise DataError(
                f"{source.path}: 0 rows",
                rule="an evaluation file has rows; without one nothing would be looked for",
                remedy="check --against",
            )
    return Sequences(ordered, tuple(places), by_size, whole, part)


def _add(words: list[str], row: int, by_size: dict[int, dict[str, int]], whole: dict[str, int]) -> None:
    for size, known in by_size.items():
        for sequence in sequences(words, size):
            known.setdefault(sequence, row)
    if LEAST_WORDS <= len(words) < min(by_size):
        whole.setdefault(" ".join(words), row)


def _texts(value: Any) -> Iterator[str]:
    """Every string in a record, at any depth."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
