"""Near duplicates among many sketches: bands of slots give candidates, the texts themselves decide.

    128 slots = 42 bands of 3:  rows that agree in a whole band stand together when sorted by it
    at similarity 0.6 two rows agree in some band with probability 1 - (1 - 0.6 ** 3) ** 42 = 0.99996, at 0.5 0.996

Two texts repeat each other where their pieces are as similar as asked, their edits are few, and they do not differ in
numbers alone. The second rule tells five scattered slips from one name replaced, which cost the same pieces.

In a large group each row is compared with the next few and with the best, so work grows with the rows and not with
the square of a group; groups are sorted by the next band too, so that alike stand close.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from burnish.curation.sketch import SLOTS, Array, differ_in_numbers_only, edited_little, jaccard, piece_set

MISSED = 0.005
"""The share of pairs at the threshold that no band may bring together."""

WINDOW = (4, 64)
"""With how many that stand next to it a row is compared in a band's group: in a large set few, in a small one many."""

COMPARISONS = 200_000
"""Rows times window, where the window is between the two."""

AT_ONCE = 65_536
_AS_ONE = np.array([1 << 32, 1])
DEVIATIONS = 3
"""A candidate whose MinHash says so many standard deviations less than the threshold is not looked at again."""


@dataclass(frozen=True)
class Near:
    """What is compared: the slots of all rows, their texts, the order of preference; and how alike repeats are."""

    slots: Array
    text_of: Callable[[int], str]
    rank: Array
    threshold: float
    edits: float


def near_duplicates(near: Near, rows: Array) -> dict[int, tuple[int, float]]:
    """For each of the rows that goes: the row it repeats, which stays, and their true Jaccard similarity."""
    neighbours: dict[int, list[int]] = {}
    for first, second in _pairs(near, rows):
        neighbours.setdefault(first, []).append(second)
        neighbours.setdefault(second, []).append(first)
    alike = _Alike(near)
    found: dict[int, tuple[int, float]] = {}
    # Best first: when a row's turn comes it is known of every better one whether it stays.
    for row in sorted(neighbours, key=lambda k: int(near.rank[k])):
        better = [other for other in neighbours[row] if near.rank[other] < near.rank[row]]
        # What repeats a row that went may repeat the row that stayed for it; it is asked, not assumed.
        kept = dict.fromkeys(found[other][0] if other in found else other for other in better)
        likeness = [(alike(row, other), -int(near.rank[other]), other) for other in kept]
        if likeness and max(likeness)[0] >= near.threshold:
            similarity, _, original = max(likeness)
            # Equal pieces in another order are no equal text, and 1.0 is how equal texts are told.
            found[row] = (original, min(similarity, 0.9999))
    return found


class _Alike:
    """The true similarity of two rows, 0.0 where the other rules say that they do not repeat each other."""

    def __init__(self, near: Near) -> None:
        self._near = near
        self._text = lru_cache(maxsize=10_000)(near.text_of)
        self._pieces = lru_cache(maxsize=2_000)(lambda row: piece_set(self._text(row)))

    def __call__(self, first: int, second: int) -> float:
        texts = self._text(first), self._text(second)
        if self._near.edits < 1.0 and (
            not edited_little(*texts, self._near.edits) or differ_in_numbers_only(*texts)
        ):
            return 0.0
        return jaccard(self._pieces(first), self._pieces(second))


def band_width(threshold: float) -> int:
    """The most slots to a band at which pairs of that similarity still meet."""
    for width in (8, 6, 5, 4, 3, 2):
        if (1.0 - threshold**width) ** (SLOTS // width) <= MISSED:
            return width
    return 1


def _pairs(near: Near, rows: Array) -> Iterator[tuple[int, int]]:
    """Each pair of rows that some band brings together and whose MinHash does not speak against it."""
    width = band_width(near.threshold)
    margin = DEVIATIONS * np.sqrt(near.threshold * (1 - near.threshold) / SLOTS)
    least = int(np.floor((near.threshold - margin) * SLOTS))
    likely: list[Array] = []
    for band in range(SLOTS // width):
        for pairs in _meetings(near, rows, band * width, width):
            for start in range(0, len(pairs), AT_ONCE):
                part = pairs[start : start + AT_ONCE]
                equal = np.count_nonzero(near.slots[part[:, 0]] == near.slots[part[:, 1]], axis=1)
                likely.append(part[equal >= least] @ _AS_ONE)
    if likely:
        # Two numbers below 2**31 as one: numpy sorts numbers ten times as fast as rows of two.
        for pair in np.unique(np.concatenate(likely)).tolist():
            yield pair >> 32, pair & 0xFFFFFFFF


def _meetings(near: Near, rows: Array, start: int, width: int) -> Iterator[Array]:
    """Pairs within the groups of one band, the smaller number first."""
    window = min(max(WINDOW[0], COMPARISONS // len(rows)), WINDOW[1])
    keys = _band_keys(near.slots[rows, start : start + width])
    # Most rows are alone in a band; the costly order is only made for those that are not.
    by_key = np.argsort(keys)
    same = keys[by_key[1:]] == keys[by_key[:-1]]
    together = by_key[np.concatenate([[False], same]) | np.concatenate([same, [False]])]
    rows, keys = rows[together], keys[together]
    next_start = (start + width) % (SLOTS - width + 1)
    order = np.lexsort((near.rank[rows], _band_keys(near.slots[rows, next_start : next_start + width]), keys))
    keys, sorted_rows = keys[order], rows[order]
    for distance in range(1, min(window + 1, len(rows))):
        equal = np.flatnonzero(keys[distance:] == keys[:-distance])
        if not len(equal):
            return
        yield np.sort(np.stack([sorted_rows[equal], sorted_rows[equal + distance]], axis=1), axis=1)
    yield from _with_best(near, keys, sorted_rows, window)


def _with_best(near: Near, keys: Array, rows: Array, window: int) -> Iterator[Array]:
    """Each row of a group larger than the window, paired with the group's best."""
    begins = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
    sizes = np.diff(np.append(begins, len(keys)))
    for begin, size in zip(begins[sizes > window], sizes[sizes > window], strict=True):
        members = rows[begin : begin + size]
        best = members[np.argmin(near.rank[members])]
        others = members[members != best]
        yield np.sort(np.stack([np.full(len(others), best), others], axis=1), axis=1)


def _band_keys(slots: Array) -> Array:
    """One number per row that is equal where all of the band's slots are."""
    keys = np.zeros(len(slots), np.uint64)
    for k in range(slots.shape[1]):
        keys = (keys ^ slots[:, k].astype(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
        keys ^= keys >> np.uint64(31)
    return keys
