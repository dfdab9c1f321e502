"""A few rows as training would feed them, found without reading or encoding the rest of the data.

ledger = Ledger()
for row in sample_rows(recipe, ledger):          # lazily, duplicates and unreadable rows entered in the ledger
    for part in fit_row(row, encoder, recipe, ledger): ...

sample_rows(recipe, ledger, wanted=["6", "data/train.jsonl:40"])      two particular rows, nothing behind them
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Protocol

from burnish.chat.refusal import RowRefused
from burnish.data.ledger import Ledger
from burnish.data.prepare import CHANGES, fit, window_length, windows
from burnish.data.rows import read_rows_of, replay_source
from burnish.data.split import drop_duplicates
from burnish.errors import UsageError
from burnish.recipe.choices import TooLong
from burnish.recipe.schema import Recipe
from burnish.types import Document, Example, Rejected, Row


class Encodes(Protocol):
    """Whoever turns a row into token sequences; `counts` tells what was out of the ordinary so far."""

    counts: Counter[str]

    def encode(self, row: Row) -> list[Example]:
        """The row's sequences; RowRefused where it cannot be graded exactly."""


@dataclass(frozen=True, slots=True)
class Part:
    """A sequence as training feeds it: the tokens from `start` on of a view that the encoder made."""

    example: Example
    view: Example
    start: int = 0


def sample_rows(recipe: Recipe, ledger: Ledger, *, wanted: Collection[str] = ()) -> Iterator[Row]:
    """The recipe's training rows as they are asked for; with `wanted`, those that a number or `file:line` names.

    UsageError, once all is read, where the data has no such row. A wanted row that is not among those yielded is
    in the ledger, with the reason.
    """
    missing = set(wanted)
    for row in drop_duplicates(_usable(recipe, ledger, missing), ledger):
        if not wanted or names(wanted, row.index, row.origin.file, row.origin.line):
            yield row
    if missing:
        raise UsageError(
            f"row {', '.join(sorted(missing))}: the data has {ledger.counts()['read']:,} rows",
            rule="a row is named by its number, counted from 0 over all files, or by file:line",
            remedy="take the number from `burnish preview --json`, or the place from ledger.jsonl",
        )


def replayed_rows(recipe: Recipe) -> Iterator[Row]:
    """The rows of what the recipe replays, numbered from 0: their own numbers hang on all that is read before them."""
    number = replay_source(recipe)
    if number is not None:
        yield from (row for row in read_rows_of(recipe.sources[number], number, 0) if isinstance(row, Row))


def names(wanted: Collection[str], index: int, file: str, line: int) -> bool:
    """Whether one of the words names this row: "6", "data/train.jsonl:7", or the end of it, "train.jsonl:7"."""
    place = f"{file}:{line}"
    return any(word == str(index) or place == word or place.endswith(f"/{word}") for word in wanted)


def fit_row(row: Row, encoder: Encodes, recipe: Recipe, ledger: Ledger) -> list[Part]:
    """The row's sequences within `max_length`; what is refused, cut or dropped is entered as training enters it."""
    before = {key: encoder.counts[key] for key in CHANGES}
    try:
        views = encoder.encode(row)
    except RowRefused as refusal:
        ledger.reject(Rejected(row.index, row.source, row.origin, refusal.reason, refusal.detail))
        return []
    for key, words in CHANGES.items():
        if encoder.counts[key] > before[key]:
            ledger.change(row, words)
    if isinstance(row.content, Document):
        length = window_length(recipe, row.source)
        # Windows overlap by one token: the second begins at `length - 1` of the text.
        return [
            Part(window, view, number * (length - 1))
            for view in views
            for number, window in enumerate(windows(view, length))
        ]
    if recipe.on_too_long == TooLong.ERROR:  # where training stops, looking goes on
        recipe = recipe.model_copy(update={"on_too_long": TooLong.DROP})
    return [Part(fitted, view) for fitted, view in fit(row, views, recipe, ledger)]


def _usable(recipe: Recipe, ledger: Ledger, missing: set[str]) -> Iterator[Row]:
    """Rows that can be read, up to the last one that is looked for; a row that is met leaves `missing`."""
    seeking = bool(missing)
    first = 0
    for number, source in enumerate(recipe.datasets):
        for row in read_rows_of(source, number, first):
            first += 1
            ledger.count_read()
            if seeking:
                met = {word for word in missing if names([word], row.index, row.origin.file, row.origin.line)}
                missing -= met
            if isinstance(row, Row):
                yield row
            else:
                ledger.reject(row)
            if seeking and not missing:
                return
