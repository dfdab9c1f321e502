"""Exact duplicates leave, and a held-out part is split off by what the rows say, not where they stand.

    key     = blake2b(canonical JSON of the content)           b"\\x8f\\x1c..."  the same in every process
    ticket  = blake2b(key, keyed with the seed)                the rows with the smallest are held out

Shuffling the file, or splitting it into three, leaves the same rows held out; another seed takes
others. Two rows that share a prompt but differ in the answer may stand on both sides.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from hashlib import blake2b

import orjson

from burnish.data.ledger import Ledger
from burnish.errors import DataError, UsageError
from burnish.types import Origin, Row

_KEY_BYTES = 16


def content_key(row: Row) -> bytes:
    """16 bytes that are equal for equal content, whatever the order of keys in its objects."""
    written = orjson.dumps(row.content, option=orjson.OPT_SORT_KEYS)
    return blake2b(written, digest_size=_KEY_BYTES).digest()


def drop_duplicates(rows: Iterable[Row], ledger: Ledger) -> Iterator[Row]:
    """Pass on the first row of each content; the others are entered as dropped, naming the first."""
    # About 200 bytes per row: a million rows keep 0.2 GB of keys and origins.
    first: dict[bytes, Origin] = {}
    for row in rows:
        original = first.setdefault(content_key(row), row.origin)
        if original is row.origin:
            yield row
        else:
            ledger.drop(row, "duplicate", detail=f"same content as {original}")


def hold_out(rows: Iterable[Row], size: float, *, seed: int) -> tuple[list[Row], list[Row]]:
    """Split into (training rows, held-out rows), both in reading order.

    `size` below 1 is a share, rounded to the nearest row but at least one; from 1 up it is a number
    of rows; 0 holds nothing out. Rows of equal content stay on one side, so where duplicates were
    kept, the held-out part may come out smaller than asked, never larger.
    """
    rows = list(rows)
    num_wanted = num_held_out(size, len(rows))
    if num_wanted == 0:
        return rows, []
    alike: dict[bytes, list[int]] = {}
    for k, row in enumerate(rows):
        alike.setdefault(_ticket(row, seed), []).append(k)
    held: set[int] = set()
    # Rows of equal content share a ticket; a group that would overshoot is passed over, never halved.
    for ticket in sorted(alike):
        if len(held) + len(alike[ticket]) <= num_wanted:
            held.update(alike[ticket])
    if not held:
        raise DataError(
            f"val_set_size {size}: {len(rows)} rows hold only {len(alike)} different contents",
            rule="rows of equal content stay on one side of the split",
            remedy="remove duplicates first, or set val_set_size: 0",
        )
    train = [row for k, row in enumerate(rows) if k not in held]
    return train, [rows[k] for k in sorted(held)]


def _ticket(row: Row, seed: int) -> bytes:
    """The row's place in the draw: a hash of its content under the seed."""
    return ticket_of(content_key(row), seed)


def ticket_of(key: bytes, seed: int) -> bytes:
    """The place in the draw of the content with this key."""
    return blake2b(key, digest_size=_KEY_BYTES, key=str(seed).encode()).digest()


def num_held_out(size: float, num_rows: int) -> int:
    """How many of `num_rows` rows a share or a count holds out; at least one row is left to train on."""
    if not 0 <= size < float("inf") or (size >= 1 and size != int(size)):
        raise UsageError(
            f"val_set_size {size}",
            rule="val_set_size is a share from 0 up to, not including, 1, or a whole number of rows",
            remedy="write 0.05 for five per cent, or 200 for two hundred rows",
        )
    if size == 0:
        return 0
    wanted = max(1, round(num_rows * size)) if size < 1 else int(size)
    if size < 1 and num_rows >= 2:
        return min(wanted, num_rows - 1)
    if wanted >= num_rows:
        raise DataError(
            f"val_set_size {size}: the data has {num_rows} rows",
            rule="at least one row is left to train on",
            remedy="lower val_set_size, or add data",
        )
    return wanted
