"""Dealing documents to packs: best fit, longest first, over a histogram of the room that is left.

fill([5, 3, 4, 2], max_tokens=7) == [[0, 3], [2, 1]]        5 2 | 4 3
"""

from __future__ import annotations

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
    by_room: dict[int, list[int]] = {}  # packs that have exactly so much room
    rooms = (
        0  # the keys of by_room that hold a pack, as bits: the tightest fit is the lowest from `length` on
    )
    for index in order:
        length, count = lengths[index], 1 if rows is None else rows[index]
        room, free, pack = max_tokens, rooms >> length, None
        while free and pack is None:
            room = length + (free & -free).bit_length() - 1
            pack = _take(by_room[room], taken, None if max_rows is None else max_rows - count)
            free &= free - 1
        if pack is None:
            pack, room = len(packs), max_tokens
            packs.append([])
            taken.append(0)
        elif not by_room[room]:
            rooms ^= 1 << room
        packs[pack].append(index)
        taken[pack] += count
        if room >= length and (max_rows is None or taken[pack] < max_rows):
            by_room.setdefault(room - length, []).append(pack)
            rooms |= 1 << (room - length)
    return packs


def _take(packs: list[int], taken: list[int], most: int | None) -> int | None:
    """Take out the newest of `packs` that holds at most `most` rows."""
    if most is None:
        return packs.pop()
    at = next((at for at in reversed(range(len(packs))) if taken[packs[at]] <= most), None)
    return None if at is None else packs.pop(at)
