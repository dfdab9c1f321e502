"""Duplicates and held-out rows by the keys of their contents alone: what `data.split` does for rows that are at hand.

keys_of(content_key(a) + content_key(b) + content_key(a))     three pairs of numbers
first_of_each(...)                                           [0, 1, 0]
"""

from __future__ import annotations

from typing import Any

import numpy as np

from burnish.data.split import num_held_out, ticket_of

Array = np.ndarray[Any, np.dtype[Any]]


def keys_of(joined: bytes | bytearray) -> Array:
    """Content keys that lie end to end as pairs of numbers, which sort as the keys do."""
    return np.frombuffer(bytes(joined), ">u8").reshape(-1, 2)


def first_of_each(keys: Array) -> Array:
    """For each row the number of the first row of its content: `drop_duplicates` where only keys are held."""
    order = np.lexsort((keys[:, 1], keys[:, 0]))  # stable, so that of equal keys the first row comes first
    ordered = keys[order]
    begins = np.ones(len(order), bool)
    begins[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    first = np.empty(len(order), np.int64)
    first[order] = order[np.maximum.accumulate(np.where(begins, np.arange(len(order)), 0))]
    return first


def drawn_apart(keys: Array, size: float, *, seed: int) -> Array:
    """Which of so many different contents are held out: `hold_out` where only keys are held."""
    number = num_held_out(size, len(keys))
    apart = np.zeros(len(keys), bool)
    if number:
        tickets = keys_of(b"".join(ticket_of(row.tobytes(), seed) for row in keys))
        apart[np.lexsort((tickets[:, 1], tickets[:, 0]))[:number]] = True
    return apart
