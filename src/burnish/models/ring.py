"""Ring attention for the reach rule: each rank has some tokens of a pack; keys and values go round, queries stay.

    step 0    rank 0: its queries over its own keys        rank 1: its queries over its own keys
    step 1    rank 0: its queries over rank 1's keys       rank 1: its queries over rank 0's keys

Each step yields an output and the logarithm of its denominator; two of them merge into what one softmax over both
would have given. Nothing larger than a tile of scores is held. Backwards the tiles are computed again from that
logarithm, and the gradients of keys and values travel round with them, in fp32 or better, and end at home.

Every rank makes the same calls in the same order: a rank whose tokens nobody grades takes part all the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup

from burnish.data.shard import Shard

QUERIES = 256
KEYS = 1024
ROWS, GRADIENTS = 1, 2
"""What travels: keys with values, and their gradients. (NCCL goes by order, which is the same on all ranks.)"""

IntArray = np.ndarray[Any, np.dtype[np.int64]]


class Tile(NamedTuple):
    """Local queries `[q, q_end)` over keys `[k, k_end)` of the rank visited; `whole`: each query sees every key."""

    q: int
    q_end: int
    k: int
    k_end: int
    whole: bool


class Places(NamedTuple):
    """Of one rank's tokens: where they stand in the pack, how far they are seen, their positions."""

    held: IntArray
    reach: IntArray
    positions: IntArray


@dataclass(frozen=True, slots=True, eq=False)
class Ring:
    """Who has which tokens of a pack. `group`'s ranks hold `places`, in order; None: nobody else is there."""

    group: ProcessGroup | None
    rank: int
    places: tuple[Places, ...]
    device: torch.device
    tiles: dict[Any, list[Tile]] = field(default_factory=dict)

    @classmethod
    def of(cls, shard: Shard, group: ProcessGroup | None, device: torch.device | str = "cpu") -> Ring:
        """The ring of a shard, whose rank is this process's in `group`."""
        size = 1 if group is None else dist.get_world_size(group)
        rank = 0 if group is None else dist.get_rank(group)
        if (size, rank) != (len(shard.holdings), shard.rank):
            raise ValueError(f"shard {shard.rank} of {len(shard.holdings)} on rank {rank} of {size}")
        whole = shard.whole
        places = tuple(Places(held, whole.reach[held], whole.position_ids[held]) for held in shard.holdings)
        return cls(group, rank, places, torch.device(device))

    @property
    def size(self) -> int:
        """The number of ranks."""
        return len(self.places)

    def tiles_of(self, owner: int, window: int | None) -> list[Tile]:
        """The tiles of this rank's queries over `owner`'s keys in which anything is seen, found once a pack."""
        if (owner, window) not in self.tiles:
            self.tiles[owner, window] = list(_tiles(self.places[self.rank], self.places[owner], window))
        return self.tiles[owner, window]

    def hidden(self, tile: Tile, owner: int, window: int | None) -> Tensor:
        """True `(queries, keys)` where a query does not see a key."""
        mine, theirs = self.places[self.rank], self.places[owner]
        q, k = slice(tile.q, tile.q_end), slice(tile.k, tile.k_end)
        place = self._on_device(mine.held[q])[:, None]
        seen = self._on_device(theirs.held[k])[None] <= place
        seen &= place < self._on_device(theirs.reach[k])[None]
        if window is not None:
            seen &= (
                self._on_device(mine.positions[q])[:, None] - self._on_device(theirs.positions[k])[None]
                < window
            )
        return ~seen

    def _on_device(self, values: IntArray) -> Tensor:
        return torch.from_numpy(values).to(self.device, non_blocking=True)

    def pass_on(self, tensor: Tensor, length: int, *, tag: int) -> tuple[Tensor, list[dist.Work]]:
        """Send a tensor to the next rank, and begin to receive the previous rank's, of `length` rows."""
        assert self.group is not None
        received = tensor.new_empty(length, *tensor.shape[1:])
        after = dist.get_global_rank(self.group, (self.rank + 1) % self.size)
        before = dist.get_global_rank(self.group, (self.rank - 1) % self.size)
        works = dist.batch_isend_irecv(
            [
                dist.P2POp(dist.isend, tensor, after, self.group, tag),
                dist.P2POp(dist.irecv, received, before, self.group, tag),
            ]
        )
        return received, works

    def visits(self, mine: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Whose rows are here at each step, and the rows `(T_owner, ...)`; the next are fetched meanwhile."""
        here = mine.contiguous()
        for step in range(self.size):
            owner = (self.rank - step) % self.size
            works: list[dist.Work] = []
            if step + 1 < self.size:
                coming = len(self.places[(owner - 1) % self.size].held)
                there, works = self.pass_on(here, coming, tag=ROWS)
            yield owner, here
            for work in works:
                work.wait()
            if works:
                here = there


def _tiles(mine: Places, theirs: Places, window: int | None) -> Iterator[Tile]:
    """Blocks of queries times blocks of keys; those in which nothing is seen are left out."""
    keys = [(k, end, _bounds(theirs, k, end)) for k, end in _blocks(theirs.held, KEYS)]
    for q, q_end in _blocks(mine.held, QUERIES):
        at = _bounds(mine, q, q_end)
        for k, k_end, there in keys:
            if there.first > at.last or there.longest <= at.first:
                continue
            if window is not None and at.low - there.high >= window:
                continue
            whole = there.last <= at.first and there.shortest > at.last
            yield Tile(q, q_end, k, k_end, whole and (window is None or at.high - there.low < window))


class _Bounds(NamedTuple):
    first: int
    last: int
    shortest: int  # reach
    longest: int
    low: int  # position
    high: int


def _bounds(places: Places, start: int, stop: int) -> _Bounds:
    part = slice(start, stop)
    reach, positions = places.reach[part], places.positions[part]
    return _Bounds(
        int(places.held[start]),
        int(places.held[stop - 1]),
        int(reach.min()),
        int(reach.max()),
        int(positions.min()),
        int(positions.max()),
    )


def _blocks(index: IntArray, size: int) -> list[tuple[int, int]]:
    """A rank's tokens in blocks that are one stretch of the pack each."""
    cuts = [0, *(np.flatnonzero(np.diff(index) != 1) + 1).tolist(), len(index)]
    return [
        (first, min(first + size, stop))
        for start, stop in pairwise(cuts)
        for first in range(start, stop, size)
    ]


def attend_ring(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    ring: Ring,
    *,
    scale: float,
    window: int | None = None,
    softcap: float | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
    """This rank's queries `(T, H, D)` over the keys and values `(T, H_kv, D)` of all ranks, to `(T, H, D)`.

    `sinks` `(H,)` get the gradient of this rank's queries alone, as every other parameter does.
    """
    out: Tensor = _Ring.apply(query, key, value, sinks, ring, _Scores(scale, window, softcap))  # type: ignore[no-untyped-call]
    return out


class _Scores(NamedTuple):
    """How scores come from queries and keys."""

    scale: float
    window: int | None
    softcap: float | None

    def of(self, q: Tensor, k: Tensor, ring: Ring, tile: Tile, owner: int) -> tuple[Tensor, Tensor | None]:
        """Scores `(H_kv, G, queries, keys)`, -inf where hidden, in fp32 or better; and the slope of soft-capping."""
        heads, group, length, _ = q.shape
        raw = torch.bmm(q.flatten(1, 2), k.transpose(1, 2)).view(heads, group, length, -1)
        scores, slope = raw.to(torch.promote_types(raw.dtype, torch.float32)) * self.scale, None
        if self.softcap is not None:
            bent = torch.tanh(scores / self.softcap)
            scores, slope = self.softcap * bent, 1 - bent**2
        if not tile.whole:
            scores = scores.masked_fill(ring.hidden(tile, owner, self.window), -torch.inf)
        return scores, slope


class _Ring(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, sinks: Tensor | None, ring: Ring, rule: _Scores
    ) -> Tensor:
        q = _by_group(query, key.shape[1])
        exact = torch.promote_types(q.dtype, torch.float32)
        out = q.new_zeros(*q.shape[:-1], value.shape[-1], dtype=exact)
        lse = q.new_full(q.shape[:-1], -torch.inf, dtype=exact)
        for owner, there in ring.visits(_joined(key, value)):
            k, v = _parted(there, key.shape[-1])
            for tile in ring.tiles_of(owner, rule.window):
                rows, part = slice(tile.q, tile.q_end), slice(tile.k, tile.k_end)
                scores, _ = rule.of(q[:, :, rows], k[:, part], ring, tile, owner)
                found = torch.logsumexp(scores, -1)
                shares = torch.exp(scores - _finite(found)[..., None]).to(v.dtype)
                weighed = torch.bmm(shares.flatten(1, 2), v[:, part]).view(*found.shape, -1)
                _merge(out[:, :, rows], lse[:, :, rows], weighed, found)
        if sinks is not None:
            total = torch.logaddexp(lse, sinks.to(exact).view(q.shape[0], q.shape[1], 1))
            out *= torch.exp(lse - total)[..., None]
            lse = total
        result = out.to(query.dtype)
        ctx.save_for_backward(query, key, value, sinks, result, lse)
        ctx.rule = (ring, rule)
        return _by_head(result)

    @staticmethod
    def backward(ctx: Any, by: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, sinks, out, lse = ctx.saved_tensors
        ring, rule = ctx.rule
        q, by = _by_group(query, key.shape[1]), _by_group(by, key.shape[1])
        # What all shares of a query have in common in the softmax's gradient: sum over keys of p x dp.
        common = (by.to(lse.dtype) * out.to(lse.dtype)).sum(-1)
        dq = torch.zeros(q.shape, dtype=lse.dtype, device=q.device)
        home = _Home(ring, key.shape, value.shape, dq)
        for owner, there in ring.visits(_joined(key, value)):
            k, v = _parted(there, key.shape[-1])
            dk, dv = home.arriving(len(there))
            for tile in ring.tiles_of(owner, rule.window):
                rows, part = slice(tile.q, tile.q_end), slice(tile.k, tile.k_end)
                mine = by[:, :, rows].flatten(1, 2)
                scores, slope = rule.of(q[:, :, rows], k[:, part], ring, tile, owner)
                p = torch.exp(scores - lse[:, :, rows, None])
                dp = torch.bmm(mine, v[:, part].transpose(1, 2)).view(p.shape)
                ds = p * (dp - common[:, :, rows, None]) * rule.scale
                ds = (ds if slope is None else ds * slope).to(q.dtype).flatten(1, 2)
                dq[:, :, rows] += torch.bmm(ds, k[:, part]).view(dq[:, :, rows].shape)
                dk[part] += torch.bmm(ds.transpose(1, 2), q[:, :, rows].flatten(1, 2)).transpose(0, 1)
                dv[part] += torch.bmm(p.to(q.dtype).flatten(1, 2).transpose(1, 2), mine).transpose(0, 1)
        dk, dv = home.come()
        to_sinks = None
        if sinks is not None:
            share = torch.exp(sinks.to(lse.dtype).view(*lse.shape[:2], 1) - lse)
            to_sinks = -(share * common).sum(-1).flatten().to(sinks.dtype)
        return _by_head(dq.to(query.dtype)), dk.to(key.dtype), dv.to(value.dtype), to_sinks, None, None


class _Home:
    """The gradients of keys and values, which travel one step behind the keys and values themselves."""

    def __init__(self, ring: Ring, key: Sequence[int], value: Sequence[int], like: Tensor) -> None:
        self._ring, self._width = ring, key[-1]
        self._sums: Tensor = like.new_zeros(key[0], key[1], key[2] + value[2])
        self._first = True

    def arriving(self, length: int) -> tuple[Tensor, Tensor]:
        """What ranks before this one found for the rows that are here now, to be added to: `(T_owner, H_kv, D)`."""
        if not self._first:
            self._sums = self._moved(length)
        self._first = False
        return self._split()

    def come(self) -> tuple[Tensor, Tensor]:
        """The gradients of this rank's own rows, after a full round."""
        if self._ring.size > 1:
            self._sums = self._moved(len(self._ring.places[self._ring.rank].held))
        return self._split()

    def _moved(self, length: int) -> Tensor:
        received, works = self._ring.pass_on(self._sums, length, tag=GRADIENTS)
        for work in works:
            work.wait()
        return received

    def _split(self) -> tuple[Tensor, Tensor]:
        return self._sums[..., : self._width], self._sums[..., self._width :]


def _merge(out: Tensor, lse: Tensor, part: Tensor, found: Tensor) -> None:
    """Take a tile's output and the logarithm of its denominator into those of the tiles before, in place."""
    total = torch.logaddexp(lse, found)
    base = _finite(total)
    out.mul_(torch.exp(lse - base)[..., None]).add_(part * torch.exp(found - base)[..., None])
    lse.copy_(total)


def _finite(lse: Tensor) -> Tensor:
    """A query that has seen nothing yet has a denominator of 0: its shares are 0, not 0 / 0."""
    return torch.where(torch.isneginf(lse), torch.zeros_like(lse), lse)


def _joined(key: Tensor, value: Tensor) -> Tensor:
    return torch.cat([key, value], dim=-1)


def _parted(joined: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """`(T, H_kv, D + D_v)` to keys and values `(H_kv, T, .)`."""
    heads = joined.transpose(0, 1)
    return heads[..., :width], heads[..., width:]


def _by_group(x: Tensor, kv_heads: int) -> Tensor:
    """`(T, H, D)` to `(H_kv, G, T, D)`."""
    return x.reshape(len(x), kv_heads, -1, x.shape[-1]).permute(1, 2, 0, 3)


def _by_head(x: Tensor) -> Tensor:
    """`(H_kv, G, T, D)` to `(T, H, D)`."""
    return x.flatten(0, 1).transpose(0, 1).contiguous()
