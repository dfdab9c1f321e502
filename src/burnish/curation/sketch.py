"""What is kept of a row to compare it with a million others: a hash of its text, and a MinHash of its pieces.

    "the cat"  ->  pieces of 5 characters, the text padded with 4 marks on both sides:  "····t" "···th" ... "t····"

m characters changed in a text of L touch at most 5m of its L + 4 pieces, so two texts whose edit rate is at most 5%
have a Jaccard similarity of at least (L + 4 - 0.25 L) / (L + 4 + 0.25 L) > 0.6 where no piece repeats. Where words
repeat it is less: 0.55 was the least of 300 texts made of 48 words.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from hashlib import blake2b
from itertools import chain
from typing import Any

import numpy as np

from burnish.curation.items import Item
from burnish.curation.texts import Part, normal, texts_of
from burnish.errors import UsageError
from burnish.types import Rejected

PIECE = 5
SLOTS = 128
SEED = 20_26
PAD = "\x01" * (PIECE - 1)
_FIRST_FACTOR, _SECOND_FACTOR = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xD6E8FEB86659FD93)
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")

ROW = np.dtype(
    [("high", "<u8"), ("low", "<u8"), ("end", "<u8"), ("index", "<u8"), ("length", "<u4"), ("has", "?")]
)
"""A row as it lies on disk: its hash in two halves, the byte at which its text ends, its number, its characters."""

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Sketches:
    """The sketches of one chunk: a record per readable row, the texts end to end, and the MinHashes."""

    rows: Array
    texts: bytes
    slots: Array | None


@dataclass(frozen=True)
class Sketcher:
    """Sketches chunks of items; `near` asks for texts and MinHashes too. Picklable, for children."""

    part: Part
    near: bool

    def __call__(self, chunk: Sequence[Item | Rejected]) -> Sketches:
        """The sketches of the chunk's readable rows, in order."""
        items = [item for item in chunk if isinstance(item, Item)]
        rows = np.zeros(len(items), ROW)
        # A mark between texts: ["ab", "c"] and ["a", "bc"] are two rows.
        texts = ["\x1e".join(map(normal, texts_of(item.row.content, self.part))) for item in items]
        encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
        keys = b"".join([blake2b(text, digest_size=16).digest() for text in encoded])
        halves = np.frombuffer(keys, "<u8").reshape(-1, 2)
        rows["high"], rows["low"] = halves[:, 0], halves[:, 1]
        rows["index"] = [item.row.index for item in items]
        rows["length"] = list(map(len, texts))
        rows["has"] = [bool(text) for text in texts]
        if not self.near:
            return Sketches(rows, b"", None)
        rows["end"] = np.cumsum(list(map(len, encoded)), dtype=np.uint64)
        return Sketches(rows, b"".join(encoded), minhashes(texts))


def minhashes(texts: Sequence[str]) -> Array:
    """One row of `SLOTS` 32-bit numbers per text."""
    if not texts:
        return np.zeros((0, SLOTS), np.uint32)
    hashes, starts = pieces(texts)
    matrix = _rensa().RMinHash.digest_matrix_from_flat_token_hashes(hashes, starts, SLOTS, SEED)
    slots = chain.from_iterable(matrix.to_rows())
    return np.fromiter(slots, np.uint32, len(texts) * SLOTS).reshape(-1, SLOTS)


def pieces(texts: Sequence[str]) -> tuple[Array, Array]:
    """A 64-bit hash of every piece of every text end to end, and where each text's begin, with the end of the last.

    The low bytes of five characters lie beside each other in memory, so one read takes a piece; what characters beyond
    Latin-1 have above that is added where they stand.
    """
    joined = PAD + "".join([text + PAD for text in texts])
    try:
        low, high = joined.encode("latin-1"), None
    except UnicodeEncodeError:
        codes = np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), "<u4")
        low, high = codes.astype(np.uint8).tobytes(), codes >> np.uint32(8)
    count = len(joined) - PIECE + 1
    low += bytes(2 * 8)
    hashes = np.empty(count, np.uint64)
    for k in range(8):  # every eighth piece at once: numpy is slow at reads that are not aligned
        every = hashes[k::8]
        every[:] = np.frombuffer(low[k : k + 8 * len(every)], "<u8")
    hashes &= np.uint64((1 << 8 * PIECE) - 1)
    hashes *= _FIRST_FACTOR
    if high is not None:
        places = np.flatnonzero(high)
        for k in range(PIECE):
            within = places[(places >= k) & (places - k < count)]
            hashes[within - k] += (high[within].astype(np.uint64) << np.uint64(13 * k)) * _SECOND_FACTOR
    scratch = hashes >> np.uint64(29)
    hashes ^= scratch
    hashes *= _SECOND_FACTOR
    hashes ^= np.right_shift(hashes, np.uint64(32), out=scratch)
    # A text of L characters has L + 4 windows, the first of which begins with the mark before it.
    starts = np.zeros(len(texts) + 1, np.uint64)
    starts[1:] = np.cumsum([len(text) + PIECE - 1 for text in texts])
    return hashes, starts


def jaccard(first: Array, second: Array) -> float:
    """The similarity of two sets of pieces, as `piece_set` gives them: shared over all."""
    both = np.concatenate([first, second])
    both.sort()
    shared = int(np.count_nonzero(both[1:] == both[:-1]))
    return shared / (len(both) - shared)


def piece_set(text: str) -> Array:
    """The distinct pieces of one text by their hashes, ascending; of characters within Latin-1 no two share one."""
    hashes, _ = pieces([text])
    hashes.sort()
    is_new = np.ones(len(hashes), bool)
    np.not_equal(hashes[1:], hashes[:-1], out=is_new[1:])
    return hashes[is_new]


def edited_little(first: str, second: str, most: float) -> bool:
    """Whether so small a share of the characters, or of the words, turns one text into the other.

    One character of a short text may differ whatever the share: 1 of 12 is the least that can.
    """
    distance = _levenshtein()
    allowed = max(1, int(most * max(len(first), len(second))))
    if distance(first, second, score_cutoff=allowed) <= allowed:
        return True
    words = _words(first), _words(second)
    allowed = int(most * max(map(len, words)))
    return bool(allowed and distance(*words, score_cutoff=allowed) <= allowed)


@lru_cache(maxsize=2_000)
def _words(text: str) -> list[str]:
    return text.split()


@cache
def _levenshtein() -> Callable[..., int]:
    from rapidfuzz.distance import Levenshtein

    return Levenshtein.distance


def differ_in_numbers_only(first: str, second: str) -> bool:
    """`7 apples cost 21` and `8 apples cost 24` are two questions, however alike."""
    return first != second and _NUMBER.sub("0", first) == _NUMBER.sub("0", second)


def _rensa() -> Any:
    try:
        import rapidfuzz  # noqa: F401 (said here, before an hour of sketching, not after it)
        import rensa
    except ImportError:
        raise UsageError(
            "rensa or rapidfuzz is not installed",
            rule="near duplicates are found by MinHash (rensa) and proved by their edits (rapidfuzz)",
            remedy="pip install 'burnish[dedup]', or say --exact",
        ) from None
    return rensa
