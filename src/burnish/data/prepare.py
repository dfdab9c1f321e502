"""From a recipe's rows to what training feeds, with every row accounted for.

    read, drop duplicates, hold out (data/rows.py) -> encode -> fit to max_length

Each step hands on what it keeps and writes what it does not keep to the ledger.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path

from burnish.chat.encode import cut_answer
from burnish.data.detect import Detection
from burnish.data.ledger import Ledger
from burnish.data.read import inspect_source
from burnish.data.rows import Rows, Segment, refuse, replay_source
from burnish.data.store import EncodedRows, RowsWriter, StoredOrigins
from burnish.data.workers import EncodedRow
from burnish.errors import DataError
from burnish.recipe.choices import TooLong
from burnish.recipe.schema import Recipe
from burnish.types import Document, Example, Rejected, Row

CHANGES = {
    "trimmed_replies": "reply trimmed by the template",
    "unspelled_replies": "reply not fully spelled",
    "reasoning_left_out": "reasoning left out",
}
"""What an encoder counts that changes a row's text, and the ledger's words for it."""


SIDES = ("train", "held_out")
"""The two folders of a set that is kept on disk."""

Encode = Callable[[Sequence[Row]], Iterable[EncodedRow]]
"""Whoever turns rows into token sequences, in order; `data.workers` does."""

Inspect = Callable[[EncodedRow, Sequence[Example]], None]
"""Told of every row that was encoded, and of what training will feed of it."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """What training feeds: one tuple of sequences per row, as a row's turns may need several."""

    train: EncodedRows
    held_out: EncodedRows
    origins: StoredOrigins
    ledger: Ledger

    def fingerprint(self) -> str:
        """A hash of all ids and weights in order: equal for equal training data."""
        return blake2b(self.train.digest() + self.held_out.digest(), digest_size=16).hexdigest()


def describe_formats(recipe: Recipe) -> list[str]:
    """For each source, the format its rows are read in and why, in words."""
    raw = "phrased"
    found = [
        (source.title, Detection(raw, (f"the recipe has {len(source.prompt)} phrasings",)))
        if source.prompt
        else (source.title, inspect_source(source))
        for source in recipe.sources
    ]
    return [f"{name}: {format.format} ({'; '.join(format.reasons)})" for name, format in found]


def encode_rows(
    rows: Rows,
    encode: Encode,
    recipe: Recipe,
    *,
    folder: Path | None = None,
    inspect: Inspect = lambda encoded, kept: None,
) -> Prepared:
    """Encode all that was read and fit it to `max_length`; DataError where nothing graded is left to train on.

    The encodings are kept in memory, or in `folder`: then in its `train` and `held_out`.
    """
    writers = tuple(RowsWriter(folder and folder / name) for name in SIDES)
    for segment in rows.segments():
        encode_segment(segment, encode, recipe, rows.ledger, writers, inspect)
    train, held_out = (writer.finish() for writer in writers)
    return require_rows(Prepared(train, held_out, rows.origins, rows.ledger))


def encode_segment(
    segment: Segment,
    encode: Encode,
    recipe: Recipe,
    ledger: Ledger,
    writers: Sequence[RowsWriter],
    inspect: Inspect,
) -> None:
    """Encode a segment's rows, each side to its writer."""
    for part, writer in zip((segment.train, segment.held_out), writers, strict=True):
        _encode_all(part, encode, recipe, ledger, writer, inspect)


def require_rows(data: Prepared) -> Prepared:
    """The data, or DataError where nothing graded is left to train on."""
    if data.train:
        return data
    dropped = data.ledger.counts()["dropped"]
    raise DataError(
        f"no row with a graded token is left to train on (dropped: {dropped or 'none; nothing was read'})",
        rule="a run trains on at least one graded token",
        remedy="look at the reasons: burnish check RECIPE; max_length and on_too_long decide what is too long",
    )


def _encode_all(
    rows: Sequence[Row], encode: Encode, recipe: Recipe, ledger: Ledger, kept: RowsWriter, inspect: Inspect
) -> None:
    sources = recipe.sources
    for encoded in encode(rows) if rows else ():
        row = encoded.row
        fitted: list[Example] = []
        if encoded.refused:
            refuse(Rejected(row.index, row.source, row.origin, *encoded.refused), recipe, ledger)
        else:
            for key in CHANGES.keys() & encoded.unusual:
                ledger.change(row, CHANGES[key])
            fitted = [_weighted(v, sources[row.source].weight) for v in _fitted(encoded, recipe, ledger)]
        # Of a long text every window is a row of its own; of a conversation all views are one row.
        for views in [[view] for view in fitted] if isinstance(row.content, Document) else [fitted]:
            if views:
                kept.append(views)
        inspect(encoded, fitted)


def _fitted(encoded: EncodedRow, recipe: Recipe, ledger: Ledger) -> list[Example]:
    if isinstance(encoded.row.content, Document):
        length = window_length(recipe, encoded.row.source)
        return [part for view in encoded.views for part in windows(view, length)]
    return [fitted for fitted, _ in fit(encoded.row, encoded.views, recipe, ledger)]


def window_length(recipe: Recipe, source: int) -> int:
    """The longest piece of a source's plain text, in tokens."""
    if recipe.replay is None or source != replay_source(recipe):
        return recipe.max_length
    return min(recipe.replay.max_length or recipe.max_length, recipe.max_length)


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


def fit(row: Row, views: Sequence[Example], recipe: Recipe, ledger: Ledger) -> list[tuple[Example, Example]]:
    """The views that are kept within `max_length`, each with the one it was cut from; empty if the row is dropped.

    What is lost is entered in the ledger.
    """
    kept = _within_length(row, views, recipe)
    lost = _graded(views) - _graded([fitted for fitted, _ in kept])
    longest = max(map(len, views))
    reason = "too long" if longest > recipe.max_length else "nothing graded"
    if not kept:
        ledger.drop(row, reason=reason, graded_tokens_lost=lost, detail=f"{longest} tokens")
    elif lost:
        ledger.cut(row, reason=reason, graded_tokens_lost=lost, detail=f"{longest} tokens")
    return kept


def _within_length(row: Row, views: Sequence[Example], recipe: Recipe) -> list[tuple[Example, Example]]:
    """Views of at most `max_length` tokens with something graded, cut where the recipe says so."""
    longest = max(map(len, views))
    if longest > recipe.max_length and recipe.on_too_long == TooLong.ERROR:
        raise DataError(
            f"{row.origin}: {longest} tokens, over max_length {recipe.max_length}",
            rule="on_too_long: error stops at the first row that is longer than max_length",
            remedy="raise max_length, or say on_too_long: drop or cut_answer",
        )
    cuts = recipe.on_too_long == TooLong.CUT_ANSWER
    kept = []
    for view in views:
        short = len(view) <= recipe.max_length
        fitted = view if short else cut_answer(view, recipe.max_length) if cuts else None
        if fitted is not None and any(fitted.weights):
            kept.append((fitted, view))
    return kept


def _graded(views: Sequence[Example]) -> int:
    return sum(view.num_graded for view in views)


def _weighted(view: Example, weight: float) -> Example:
    return view if weight == 1.0 else replace(view, weights=[weight * w for w in view.weights])
