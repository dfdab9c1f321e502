"""A recipe's rows: read once to learn what becomes of each, and again, a segment at a time, to be encoded.

    first reading    16 bytes of every row's content -> which repeat an earlier one, which are held out
    segments()       Segment(0, train=[...], held_out=[...]), Segment(1, ...), ...

So a set of fifteen million rows takes some thirty bytes a row, and the rows of one segment. A set that is no larger
than a segment is read once.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from burnish.data.keys import Array, drawn_apart, first_of_each, keys_of
from burnish.data.ledger import Ledger
from burnish.data.phrasing import phrased
from burnish.data.read import read_source
from burnish.data.split import content_key
from burnish.data.store import StoredOrigins
from burnish.errors import DataError
from burnish.recipe.choices import BadRow
from burnish.recipe.schema import DatasetSource, Recipe
from burnish.types import Conversation, Origin, Rejected, Row

SEGMENT_ROWS = 50_000
"""Rows that are in memory, and written whole or not at all, together."""

TRAIN, HELD_OUT, GONE = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Segment:
    """Some rows that were read one after another, without those that are gone."""

    number: int
    train: list[Row]
    held_out: list[Row]


@dataclass(frozen=True, slots=True)
class _Placed:
    """A row of which only its number and place are known, as the ledger asks for it."""

    index: int
    origin: Origin


@dataclass(frozen=True, slots=True)
class Rows:
    """What becomes of every row of a recipe; the rows themselves are read when they are asked for.

    `fates` has TRAIN, HELD_OUT or GONE for each usable row, `keys` its content's key, `indices` its number among all,
    `sources` that of its source.
    """

    recipe: Recipe
    fates: Array
    keys: Array
    indices: Array
    sources: Array
    ledger: Ledger
    origins: StoredOrigins
    has_conversations: bool
    few: list[Row] | None

    @property
    def num_kept(self) -> int:
        """How many rows are to be encoded."""
        return int(np.count_nonzero(self.fates != GONE))

    @property
    def bounds(self) -> list[tuple[int, int]]:
        """Where each segment begins and ends, among the usable rows."""
        return [*pairwise([*range(0, len(self.fates), SEGMENT_ROWS), len(self.fates)])] or [(0, 0)]

    def kept_in(self, wanted: Sequence[bool]) -> int:
        """How many rows of the segments that are wanted are to be encoded."""
        bounds = [place for place, is_wanted in zip(self.bounds, wanted, strict=True) if is_wanted]
        return sum(int(np.count_nonzero(self.fates[start:end] != GONE)) for start, end in bounds)

    @property
    def train(self) -> list[Row]:
        """All rows that are trained on, in memory."""
        return [row for segment in self.segments() for row in segment.train]

    @property
    def held_out(self) -> list[Row]:
        """All rows that are held out, in memory."""
        return [row for segment in self.segments() for row in segment.held_out]

    def segments(self, wanted: Sequence[bool] | None = None) -> Iterator[Segment]:
        """The segments in order, or those that are wanted."""
        rows = iter(self.few) if self.few is not None else self._read_again()
        for number, (start, end) in enumerate(self.bounds):
            is_wanted = wanted is None or wanted[number]
            segment = Segment(number, [], [])
            for place in range(start, end):
                row = next(rows, None)
                if row is None or row.index != self.indices[place]:
                    raise _changed(self, place)
                if is_wanted and self.fates[place] != GONE:
                    if self.few is None and content_key(row) != self.keys[place].tobytes():
                        raise _changed(self, place)
                    (segment.held_out if self.fates[place] else segment.train).append(row)
            if is_wanted:
                yield segment

    def _read_again(self) -> Iterator[Row]:
        return (row for row in _read(self.recipe) if isinstance(row, Row))


def read_rows(recipe: Recipe) -> Rows:
    """Read every source; hold rows out after exact deduplication, so that none is on both sides."""
    ledger, origins, keys = Ledger(), StoredOrigins([]), bytearray()
    few: list[Row] | None = []
    indices, sources = array("q"), array("i")
    has_conversations = False
    for row in _read(recipe):
        ledger.count_read()
        if isinstance(row, Rejected):
            refuse(row, recipe, ledger)
            continue
        keys += content_key(row)
        indices.append(row.index)
        sources.append(row.source)
        origins.add(row.index, row.origin)
        has_conversations = has_conversations or isinstance(row.content, Conversation)
        if few is not None:
            few.append(row)
            few = few if len(few) <= SEGMENT_ROWS else None
    numbers = np.array(indices)
    found = keys_of(keys)
    first = first_of_each(found)
    for place in np.flatnonzero(first != np.arange(len(first))).tolist():
        index = int(numbers[place])
        original = origins[int(numbers[first[place]])]
        ledger.drop(_Placed(index, origins[index]), "duplicate", detail=f"same content as {original}")
    of_sources = np.array(sources)
    fates = _fates(recipe, found, first, of_sources)
    return Rows(recipe, fates, found, numbers, of_sources, ledger, origins, has_conversations, few)


def _fates(recipe: Recipe, keys: Array, first: Array, sources: Array) -> Array:
    """What becomes of each row: the first of its content is held out by its source, or drawn, or is trained on."""
    apart = len(recipe.val_datasets) + sum(source.held_out for source in recipe.datasets)
    fates = np.full(len(keys), GONE, np.uint8)
    stays = first == np.arange(len(keys))
    fates[stays] = np.where(sources[stays] < apart, HELD_OUT, TRAIN)
    replayed = replay_source(recipe)
    drawn_from = np.flatnonzero(
        stays & (sources >= apart) & (sources != (-1 if replayed is None else replayed))
    )
    fates[drawn_from[drawn_apart(keys[drawn_from], recipe.val_set_size, seed=recipe.seed)]] = HELD_OUT
    return fates


def replay_source(recipe: Recipe) -> int | None:
    """The number of the source that is replayed."""
    return None if recipe.replay is None else len(recipe.sources) - 1


def read_rows_of(source: DatasetSource, number: int, first: int) -> Iterator[Row | Rejected]:
    """A source's rows as the recipe has them read: by their format, or put into its phrasings."""
    convert = phrased(source.prompt, source.response or "") if source.prompt else None
    return read_source(source, source_index=number, first_index=first, convert=convert)


def refuse(row: Rejected, recipe: Recipe, ledger: Ledger) -> None:
    """Enter a row that cannot be used, or stop at it where the recipe says so."""
    if recipe.on_bad_row == BadRow.ERROR:
        raise DataError(
            f"{row.origin}: {row.reason}: {row.detail}",
            rule="every row can be read, and graded exactly",
            remedy="correct the row, or leave such rows out, counted: on_bad_row=drop",
        )
    ledger.reject(row)


def _read(recipe: Recipe) -> Iterator[Row | Rejected]:
    first = 0
    for number, source in enumerate(recipe.sources):
        for row in read_rows_of(source, number, first):
            first += 1
            yield row


def _changed(rows: Rows, place: int) -> DataError:
    return DataError(
        f"{rows.origins[int(rows.indices[place])]}: not the row that was there when the file was read before",
        rule="the data stays as it is while it is encoded",
        remedy="run it again when nobody writes to the file",
    )
