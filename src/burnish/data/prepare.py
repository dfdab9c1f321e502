"""From the recipe's datasets to what training feeds, with every row accounted for.

    read -> drop duplicates -> hold out -> encode -> fit to max_length

Each step hands on what it keeps and writes what it does not keep to the ledger.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Protocol

import numpy as np

from burnish.chat.encode import cut_answer
from burnish.chat.refusal import RowRefused
from burnish.data.ledger import Ledger
from burnish.data.read import inspect_source, read_source
from burnish.data.split import drop_duplicates, hold_out
from burnish.errors import DataError
from burnish.recipe.choices import BadRow, TooLong
from burnish.recipe.schema import DatasetSource, Recipe
from burnish.types import Conversation, Document, Example, Origin, Rejected, Row

CHANGES = {
    "trimmed_replies": "reply trimmed by the template",
    "unspelled_replies": "reply not fully spelled",
    "reasoning_left_out": "reasoning left out",
}
"""What an encoder counts that changes a row's text, and the ledger's words for it."""


class Encodes(Protocol):
    """Whoever turns a row into token sequences; `counts` tells what was out of the ordinary so far."""

    counts: Counter[str]

    def encode(self, row: Row) -> list[Example]:
        """The row's sequences; RowRefused where it cannot be graded exactly."""


@dataclass(frozen=True, slots=True)
class Rows:
    """The recipe's rows, read, deduplicated and split; not yet tokens."""

    train: list[Row]
    held_out: list[Row]
    ledger: Ledger

    @property
    def has_conversations(self) -> bool:
        """Whether a chat template is needed."""
        return any(isinstance(row.content, Conversation) for row in [*self.train, *self.held_out])


@dataclass(frozen=True, slots=True)
class Prepared:
    """What training feeds: one tuple of sequences per row, as a row's turns may need several."""

    train: list[tuple[Example, ...]]
    held_out: list[tuple[Example, ...]]
    origins: dict[int, Origin]
    ledger: Ledger

    def fingerprint(self) -> str:
        """A hash of all ids and weights in order: equal for equal training data."""
        digest = blake2b(digest_size=16)
        for group in (self.train, self.held_out):
            for view in (view for views in group for view in views):
                digest.update(np.asarray(view.input_ids, dtype=np.int64).tobytes())
                digest.update(np.asarray(view.weights, dtype=np.float32).tobytes())
        return digest.hexdigest()


def read_rows(recipe: Recipe) -> Rows:
    """Read every source; hold rows out after exact deduplication, so that none is on both sides."""
    ledger = Ledger()
    held_out: list[Row] = []
    sources = list(recipe.val_datasets) + list(recipe.datasets)
    read = _read(sources, recipe, ledger)
    unique = list(drop_duplicates(read, ledger))
    if recipe.val_datasets:
        first_training_source = len(recipe.val_datasets)
        held_out = [row for row in unique if row.source < first_training_source]
        train = [row for row in unique if row.source >= first_training_source]
    else:
        train, held_out = hold_out(unique, recipe.val_set_size, seed=recipe.seed)
    return Rows(train, held_out, ledger)


def describe_formats(recipe: Recipe) -> list[str]:
    """For each source, the format its rows are read in and why, in words."""
    sources = [*recipe.val_datasets, *recipe.datasets]
    found = [(source.name or source.path, inspect_source(source)) for source in sources]
    return [f"{name}: {format.format} ({'; '.join(format.reasons)})" for name, format in found]


def encode_rows(rows: Rows, encoder: Encodes, recipe: Recipe) -> Prepared:
    """Encode what was read and fit it to `max_length`; DataError where nothing graded is left to train on."""
    train = _encode_all(rows.train, encoder, recipe, rows.ledger)
    held_out = _encode_all(rows.held_out, encoder, recipe, rows.ledger)
    if not train:
        dropped = rows.ledger.counts()["dropped"]
        raise DataError(
            f"no row with a graded token is left to train on (dropped: {dropped or 'none; nothing was read'})",
            rule="a run trains on at least one graded token",
            remedy="look at the reasons: burnish check RECIPE; max_length and on_too_long decide what is too long",
        )
    origins = {row.index: row.origin for row in [*rows.train, *rows.held_out]}
    return Prepared(train, held_out, origins, rows.ledger)


def _read(sources: Sequence[DatasetSource], recipe: Recipe, ledger: Ledger) -> Iterator[Row]:
    first = 0
    for number, source in enumerate(sources):
        for row in read_source(source, source_index=number, first_index=first):
            first += 1
            ledger.count_read()
            if isinstance(row, Row):
                yield row
            else:
                _refuse(row, recipe, ledger)


def _encode_all(
    rows: Sequence[Row], encoder: Encodes, recipe: Recipe, ledger: Ledger
) -> list[tuple[Example, ...]]:
    kept: list[tuple[Example, ...]] = []
    sources = list(recipe.val_datasets) + list(recipe.datasets)
    for row in rows:
        before = {key: encoder.counts[key] for key in CHANGES}
        try:
            views = encoder.encode(row)
        except RowRefused as refusal:
            _refuse(
                Rejected(row.index, row.source, row.origin, refusal.reason, refusal.detail), recipe, ledger
            )
            continue
        for key, words in CHANGES.items():
            if encoder.counts[key] > before[key]:
                ledger.change(row, words)
        weight = sources[row.source].weight
        if isinstance(row.content, Document):
            kept += [
                (_weighted(part, weight),) for view in views for part in windows(view, recipe.max_length)
            ]
        elif fitted := _fit(row, views, recipe, ledger):
            kept.append(tuple(_weighted(view, weight) for view in fitted))
    return kept


def windows(view: Example, length: int) -> list[Example]:
    """A long text as windows of at most `length` tokens, each token graded in exactly one of them.

    A window begins with the last token of the one before, ungraded, so that its first graded token has something
    before it: `a b c d e` in windows of 3 is `a b c | c d e`.
    """
    if len(view) <= length:
        return [view]
    starts = range(0, len(view) - 1, length - 1)
    return [
        replace(
            view,
            input_ids=view.input_ids[start : start + length],
            weights=[0.0, *view.weights[start + 1 : start + length]],
        )
        for start in starts
    ]


def _fit(row: Row, views: Sequence[Example], recipe: Recipe, ledger: Ledger) -> list[Example]:
    """The views that are kept within `max_length`; empty if the row is dropped. What is lost is entered."""
    kept = _within_length(row, views, recipe)
    lost = _graded(views) - _graded(kept)
    longest = max(map(len, views))
    reason = "too long" if longest > recipe.max_length else "nothing graded"
    if not kept:
        ledger.drop(row, reason=reason, graded_tokens_lost=lost, detail=f"{longest} tokens")
    elif lost:
        ledger.cut(row, reason=reason, graded_tokens_lost=lost, detail=f"{longest} tokens")
    return kept


def _within_length(row: Row, views: Sequence[Example], recipe: Recipe) -> list[Example]:
    """Views of at most `max_length` tokens with something graded, cut where the recipe says so."""
    longest = max(map(len, views))
    if longest > recipe.max_length and recipe.on_too_long == TooLong.ERROR:
        raise DataError(
            f"{row.origin}: {longest} tokens, over max_length {recipe.max_length}",
            rule="on_too_long: error stops at the first row that is longer than max_length",
            remedy="raise max_length, or say on_too_long: drop or cut_answer",
        )
    if recipe.on_too_long == TooLong.CUT_ANSWER:
        cut = [cut_answer(view, recipe.max_length) for view in views]
        return [view for view in cut if view is not None and view.num_graded]
    return [view for view in views if len(view) <= recipe.max_length and view.num_graded]


def _graded(views: Sequence[Example]) -> int:
    return sum(view.num_graded for view in views)


def _weighted(view: Example, weight: float) -> Example:
    return view if weight == 1.0 else replace(view, weights=[weight * w for w in view.weights])


def _refuse(row: Rejected, recipe: Recipe, ledger: Ledger) -> None:
    if recipe.on_bad_row == BadRow.ERROR:
        raise DataError(
            f"{row.origin}: {row.reason}: {row.detail}",
            rule="every row can be read, and graded exactly",
            remedy="correct the row, or leave such rows out, counted: on_bad_row=drop",
        )
    ledger.reject(row)
