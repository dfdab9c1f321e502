"""Dealing documents to packs: best fit, longest first, over a histogram of the room that is left.

fill([5, 3, 4, 2], max_tokens=7) == [[0, 3], [2, 1]]        5 2 | 4 3
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np

TRIES = 6
"""How often `evenly` halves what it does not know about the capacity: to 1/64 of the whole."""


def deal(
    lengths: Sequence[int], *, max_tokens: int, max_rows: int | None = None, even: bool = False
) -> list[list[int]]:
    """`fill`, with `even` in as many packs but of about one size: less memory, fewer shapes.

    deal([5, 3, 4, 2, 2], max_tokens=12)            == [[0, 2, 1], [3, 4]]
    deal([5, 3, 4, 2, 2], max_tokens=12, even=True) == [[0, 1], [2, 3, 4]]
    """

    def within(capacity: int) -> list[list[int]]:
        return fill(lengths, max_tokens=capacity, max_rows=max_rows)

    return evenly(within, total=sum(lengths), most=max_tokens) if even else within(max_tokens)


def evenly(within: Callable[[int], list[list[int]]], *, total: int, most: int) -> list[list[int]]:
    """The packs of about the least capacity, up to `most`, that needs no more packs than `most` does."""
    packs = within(most)
    if len(packs) == 1:
        return packs
    low, high = -(-total // len(packs)), most
    for _ in range(TRIES):
        if low >= high:
            break
        middle = (low + high) // 2
        tried = within(middle)
        if len(tried) <= len(packs):
            packs, high = tried, middle
        else:
            low = middle + 1
    return packs


def fill(
    lengths: Sequence[int], *, max_tokens: int, max_rows: int | None = None, rows: Sequence[int] | None = None
) -> list[list[int]]:
    """Deal documents to packs of at most `max_tokens` tokens: best fit, longest first.

    Returns lists of indices into `lengths`; each index occurs once. A document longer than `max_tokens` gets a
    pack of its own, for a row is never split. `max_rows` bounds the rows of a pack; `rows` says how many each
    document stands for (one). About a microsecond a document, whatever the number of packs.
    """
    max_tokens = min(max_tokens, sum(lengths))  # the room is counted in bits
    order = np.argsort(-np.asarray(lengths, dtype=np.int64), kind="stable").tolist()
    packs: list[list[int]] = []
    taken: list[int] = []  # rows in each pack
    by_room: defaultdict[int, list[int]] = defaultdict(list)  # packs that have exactly so much room
    rooms = (
        0  # the keys of by_room that hold a pack, as bits: the tightest fit is the lowest from `length` on
    )
    for index in order:
        length = lengths[index]
        count = rows[index] if rows is not None else 1
        free, pack, left = rooms >> length, -1, max_tokens - length
        while free and pack < 0:
            left = (free & -free).bit_length() - 1
            here = by_room[left + length]
            pack = here.pop() if max_rows is None else _take(here, taken, max_rows - count)
            if pack < 0:
                free &= free - 1
            elif not here:
                rooms ^= 1 << (left + length)
        if pack < 0:
            pack, left = len(packs), max_tokens - length
            packs.append([])
            taken.append(0)
        packs[pack].append(index)
        taken[pack] += count
        if left >= 0 and (max_rows is None or taken[pack] < max_rows):
            by_room[left].append(pack)
            rooms |= 1 << left
    return packs


def _take(packs: list[int], taken: list[int], most: int) -> int:
    """Take out the newest of `packs` that holds at most `most` rows; -1 for none."""
    at = next((at for at in reversed(range(len(packs))) if taken[packs[at]] <= most), -1)
    return packs.pop(at) if at >= 0 else -1
