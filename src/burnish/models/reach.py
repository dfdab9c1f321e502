"""The attention rule of a pack: query q sees key k iff k <= q < reach[k]; with a window, iff it is also near enough.

    input_ids   p p p | a a | b b b        the prefix p p p once, two continuations of it
    reach       8 8 8 | 5 5 | 8 8 8
    segments    (0, 3, -1) (3, 5, 0) (5, 8, 0)

A segment sees its ancestors' tokens, which are just the positions before its own, and itself causally. So each
segment is plain causal attention of its queries over `ancestors + own` keys, and that is how the backends
compute it. `visible` is the rule itself, spelled out for tests and as the last resort.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.distributed import ProcessGroup

from burnish.data.pack import Pack
from burnish.data.shard import Shard
from burnish.models.ring import Ring

Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Run:
    """One segment: queries `[start, end)` over the keys of `before` (its ancestors' spans, root first) and its own."""

    start: int
    end: int
    before: tuple[Span, ...]

    @property
    def prefix(self) -> int:
        """How many keys come before its own."""
        return sum(end - start for start, end in self.before)


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """A pack as attention needs it; `needed[i]` bounds the queries of segment i that are read at the end.

    A class of its own, opaque to torch.compile: a bare tuple would be guarded by value, and each pack recompiled.
    """

    runs: tuple[Run, ...]
    needed: tuple[Span, ...]
    reach: Tensor
    positions: Tensor
    is_tree: bool
    cache: dict[Any, Any] = field(default_factory=dict)
    ring: Ring | None = None

    @classmethod
    def of(cls, pack: Pack, device: torch.device | str = "cpu", group: ProcessGroup | None = None) -> Layout:
        """The layout of a pack; of a shard, whose other tokens the other ranks of `group` have, a ring and no runs."""
        ring = Ring.of(pack, group, device) if isinstance(pack, Shard) else None
        runs: list[Run] = []
        needed: list[Span] = []
        for segment in pack.segments:
            before: tuple[Span, ...] = ()
            if segment.parent >= 0:
                parent = runs[segment.parent]
                before = _joined(*parent.before, (parent.start, parent.end))
            runs.append(Run(segment.start, segment.end, before))
            kept = pack.rows_kept[(pack.rows_kept >= segment.start) & (pack.rows_kept < segment.end)]
            needed.append((int(kept[0]), int(kept[-1]) + 1) if len(kept) else (segment.start, segment.start))
        return cls(
            tuple(runs),
            tuple(needed),
            torch.from_numpy(pack.reach).to(device),
            torch.from_numpy(pack.position_ids).to(device),
            pack.is_tree,
            ring=ring,
        )

    def visible(self, window: int | None = None) -> Tensor:
        """The rule as a dense mask `(T, T)`, true where a query (row) sees a key (column)."""
        index = torch.arange(len(self.reach), device=self.reach.device)
        seen = (index[None, :] <= index[:, None]) & (index[:, None] < self.reach[None, :])
        if window is not None:
            seen &= self.positions[:, None] - self.positions[None, :] < window
        return seen


def _joined(*spans: Span) -> tuple[Span, ...]:
    """Spans with neighbours made one."""
    found: list[Span] = []
    for start, end in spans:
        if found and found[-1][1] == start:
            found[-1] = (found[-1][0], end)
        else:
            found.append((start, end))
    return tuple(found)


class Bands:
    """Masks of causal attention, to be added to scores: 0 where a query sees a key, -inf where it does not.

    Row `(i, g)` is query i of group member g; column c is the key c - `offset` places after query 0. One matrix
    per (heads in a group, window, dtype) serves all segments: each takes a slice.
    """

    def __init__(self) -> None:
        self._kept: dict[tuple[int, int | None, torch.dtype], tuple[Tensor, int]] = {}

    def of(
        self, queries: int, prefix: int, wide: int, *, group: int, window: int | None, dtype: torch.dtype
    ) -> Tensor:
        """`(queries * group, wide)`: queries that stand `prefix` keys into their document; later keys are hidden."""
        key = (group, window, dtype)
        band, offset = self._kept.get(key, (None, 0))
        rows = max(queries, wide - prefix)
        if band is None or offset < prefix or band.shape[0] < rows * group:
            had = 0 if band is None else band.shape[0] // group
            offset, rows = _roomy(max(prefix, offset)), _roomy(max(rows, had))
            band = _band(rows, offset, group, window, dtype)
            self._kept[key] = (band, offset)
        return band[: queries * group, offset - prefix : offset - prefix + wide]


def _roomy(length: int) -> int:
    return -(-length // 256) * 256


def _band(rows: int, offset: int, group: int, window: int | None, dtype: torch.dtype) -> Tensor:
    distance = torch.arange(rows)[:, None] - (torch.arange(offset + rows)[None, :] - offset)
    hidden = (distance < 0) | (distance >= (window or offset + rows + 1))
    return torch.zeros(hidden.shape, dtype=dtype).masked_fill_(hidden, -torch.inf).repeat_interleave(group, 0)
