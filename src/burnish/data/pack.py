"""Packs: documents laid end to end in one row, no padding, and the list of what is graded.

Two examples of 4 and 3 tokens, the answers `c d` and `y` graded:

    input_ids     a b c d | x y z
    position_ids  0 1 2 3 | 0 1 2          positions restart with each document
    reach         4 4 4 4 | 7 7 7          query q sees key k iff k <= q < reach[k]
    segments      (0, 4), (4, 7)           attention never crosses documents
    rows_kept     1 2 4                    positions whose logits are needed: b -> c, c -> d, x -> y
    row_of        0 1 2                    which of them predicts each target
    targets       c d y                    this is the only place where burnish shifts by one
    weights       1 1 1
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from burnish.types import Example

IntArray = np.ndarray[tuple[int], np.dtype[np.int64]]
FloatArray = np.ndarray[tuple[int], np.dtype[np.float32]]


@dataclass(frozen=True, slots=True)
class Segment:
    """The tokens `[start, end)` of a pack; they see themselves causally, and all of `parent` and its ancestors.

    `parent` is the index of the segment that this one continues, -1 for none: a plain document.
    """

    start: int
    end: int
    parent: int = -1


@dataclass(frozen=True, slots=True)
class Pack:
    """One micro-batch: T tokens, G targets, R rows of logits that they need.

    `input_ids`, `position_ids`, `reach` are `(T,)`; `rows_kept` `(R,)` ascends and names each position once; `row_of`,
    `targets`, `weights`, `sources` are `(G,)`. `rows` are the data rows inside.
    """

    input_ids: IntArray
    position_ids: IntArray
    reach: IntArray
    segments: tuple[Segment, ...]
    rows_kept: IntArray
    row_of: IntArray
    targets: IntArray
    weights: FloatArray
    sources: IntArray
    rows: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.input_ids)

    @property
    def predicts(self) -> IntArray:
        """For each target, the position that predicts it."""
        return self.rows_kept[self.row_of]

    @property
    def is_tree(self) -> bool:
        """Whether any segment continues another."""
        return any(segment.parent >= 0 for segment in self.segments)

    @property
    def bounds(self) -> tuple[tuple[int, int], ...]:
        """Where each document starts and ends, for models that need them one by one; a tree has no such bounds."""
        if self.is_tree:
            raise ValueError("a pack with shared prefixes does not fall into documents")
        return tuple((segment.start, segment.end) for segment in self.segments)

    @property
    def weight(self) -> float:
        """The pack's share of the loss's denominator."""
        return float(self.weights.sum(dtype=np.float64))


def build_pack(examples: Sequence[Example]) -> Pack:
    """Lay examples end to end and list what is graded."""
    lengths = [len(example) for example in examples]
    ends = np.cumsum(lengths)
    starts = ends - lengths
    input_ids = np.fromiter((token for e in examples for token in e.input_ids), np.int64, count=int(ends[-1]))
    weights = np.fromiter((w for e in examples for w in e.weights), np.float32, count=int(ends[-1]))
    if weights[starts].any():
        culprit = next(e for e in examples if e.weights[0] != 0.0)
        raise ValueError(f"row {culprit.row}: its first token is graded, but nothing comes before it")
    graded = np.flatnonzero(weights)
    owner = np.searchsorted(ends, graded, side="right")
    return Pack(
        input_ids=input_ids,
        position_ids=np.arange(len(input_ids)) - np.repeat(starts, lengths),
        reach=np.repeat(ends, lengths),
        segments=tuple(Segment(i, j) for i, j in zip(starts.tolist(), ends.tolist(), strict=True)),
        rows_kept=graded - 1,
        row_of=np.arange(len(graded)),
        targets=input_ids[graded],
        weights=weights[graded],
        sources=np.array([e.source for e in examples], dtype=np.int64)[owner],
        rows=tuple(e.row for e in examples),
    )


def fill(lengths: Sequence[int], *, max_tokens: int, max_rows: int | None = None) -> list[list[int]]:
    """Deal documents to packs of at most `max_tokens` tokens: best fit, longest first.

    Returns lists of indices into `lengths`; each index occurs once. A document longer than `max_tokens` gets a
    pack of its own, for a row is never split. `max_rows` bounds the documents of a pack.

        fill([5, 3, 4, 2], max_tokens=7) == [[0, 3], [2, 1]]
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    packs: list[list[int]] = []
    room: list[int] = []
    for index in order:
        fitting = [
            pack
            for pack, free in enumerate(room)
            if free >= lengths[index] and (max_rows is None or len(packs[pack]) < max_rows)
        ]
        if fitting:
            best = min(fitting, key=lambda pack: room[pack])
            packs[best].append(index)
            room[best] -= lengths[index]
        else:
            packs.append([index])
            room.append(max_tokens - lengths[index])
    return packs


def pack_all(examples: Sequence[Example], *, max_tokens: int, max_rows: int | None = None) -> list[Pack]:
    """Pack examples as `fill` deals them; the packs keep every example whole, once."""
    dealt = fill([len(example) for example in examples], max_tokens=max_tokens, max_rows=max_rows)
    return [build_pack([examples[index] for index in pack]) for pack in dealt]


def total_weight(packs: Iterable[Pack]) -> float:
    """The one denominator of a global batch: the weights of all its graded tokens."""
    return float(sum(pack.weight for pack in packs))
