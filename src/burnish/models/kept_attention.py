"""Attention on a CPU as plain matrix products, segment by segment, the probabilities kept for the backward pass.

torch's fused kernel recomputes them there, and in bf16 slowly (docs/lab_notes.md has figures). Kept
probabilities of a document of L tokens are H x L x L numbers, so beyond KEEP keys they are computed again
instead. Queries go BLOCK at a time: of the square that causality leaves half empty, most of the empty half is
not computed.

Heads that share keys are rows of one product: `(H_kv, T * G, D)`, token by token, the G heads of a group side by side.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from burnish.models.reach import Bands, Layout, Run, Span

KEEP = 1024
BLOCK = 256
ALIGN = 32
"""Queries and keys of a tile come in multiples of this, so that a CPU's library compiles a few shapes and not
thousands: each costs it a millisecond and 0.4 MB, for good. (And bf16 softmax over 192 keys takes 0.6 of the
time it takes over 175.)"""

_bands = Bands()


class Rotation(NamedTuple):
    """RoPE for a pack: cos and sin `(T, D)`, whose halves are alike."""

    cos: Tensor
    sin: Tensor

    def apply(self, x: Tensor, out: Tensor, *, back: bool = False) -> Tensor:
        """Rotate `x` `(..., T, n, D)` into `out`, which may not be `x`; `back` turns the other way."""
        half = x.shape[-1] // 2
        cos, sin = self.cos[:, None, :half], self.sin[:, None, :half]
        sign = -1.0 if back else 1.0
        for first, second, turn in ((0, half, -sign), (half, 0, sign)):
            part = out[..., first : first + half]
            torch.mul(x[..., first : first + half], cos, out=part)
            part.addcmul_(x[..., second : second + half], sin, value=turn)
        return out


class Tile(NamedTuple):
    """Queries `[first, stop)` of a run, and the keys that they may see: a slice of `before + own`.

    Both are widened to a multiple of ALIGN with what comes after them in the pack. Later keys are hidden by
    causality. What later queries yield is written over by their own tile, which comes later; no gradient flows
    in through them.
    """

    first: int
    stop: int
    key_first: int
    key_stop: int
    prefix: int  # keys of the slice that stand before the first query

    def rows(self, group: int) -> slice:
        """The widened queries' rows."""
        return slice(self.first * group, (self.first + aligned(self.stop - self.first)) * group)

    @property
    def keys(self) -> slice:
        """The widened keys."""
        return slice(self.key_first, self.key_first + aligned(self.key_stop - self.key_first))


def aligned(length: int) -> int:
    """The next multiple of ALIGN."""
    return -(-length // ALIGN) * ALIGN


def tiles(run: Run, needed: Span, window: int | None) -> Iterator[Tile]:
    """The query blocks of one run."""
    prefix, (start, stop) = run.prefix, needed
    for first in range(start, stop, BLOCK):
        last = min(first + BLOCK, stop)
        at = prefix + first - run.start  # position in the document
        key_first = max(0, at - window + 1) if window is not None else 0
        yield Tile(first, last, key_first, prefix + last - run.start, at - key_first)


def attend_kept(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: Layout,
    *,
    scale: float,
    window: int | None = None,
    only_needed: bool = False,
    rotation: Rotation | None = None,
) -> Tensor:
    """`(T, H, D)` over `(T, H_kv, D)` to `(T, H, D)`; with `only_needed` other rows than the needed ones are zeros.

    `rotation` turns queries and keys first, on the copies that are made anyway.
    """
    out: Tensor = _Kept.apply(query, key, value, layout, scale, window, only_needed, rotation)  # type: ignore[no-untyped-call]
    return out


class _Kept(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        layout: Layout,
        scale: float,
        window: int | None,
        only_needed: bool,
        rotation: Rotation | None,
    ) -> Tensor:
        heads = key.shape[1]
        q, k, v = _by_group(query, heads, rotation), _by_group(key, heads, rotation), _by_group(value, heads)
        group = query.shape[1] // heads
        out = (q.new_zeros if only_needed else q.new_empty)(heads, q.shape[1], v.shape[2])
        kept: list[Tensor] = []
        grad = any(ctx.needs_input_grad)
        spans = layout.needed if only_needed else [(run.start, run.end) for run in layout.runs]
        for run, needed in zip(layout.runs, spans, strict=True):
            if needed[0] == needed[1]:
                continue
            keys, values = _gather(k, run), _gather(v, run)
            for tile in tiles(run, needed, window):
                p = _probabilities(q, keys, tile, group, scale, window)
                torch.bmm(p, values[:, tile.keys], out=out[:, tile.rows(group)])
                if grad and p.shape[2] <= KEEP:
                    kept.append(p)
        ctx.save_for_backward(q, k, v, *kept)
        ctx.rule = (layout, spans, scale, window, group, rotation)
        return _by_head(out, group, len(query))

    @staticmethod
    def backward(ctx: Any, by: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, *kept = ctx.saved_tensors
        layout, spans, scale, window, group, rotation = ctx.rule
        length = len(by)
        by = _by_group(by, k.shape[0])
        remembered = iter(kept)
        dq = torch.zeros_like(q) if _gaps(spans, length) else torch.empty_like(q)
        dk, dv = _Sums(k), _Sums(v)
        for run, needed in zip(layout.runs, spans, strict=True):
            if needed[0] == needed[1]:
                continue
            keys, values = _gather(k, run), _gather(v, run)
            for tile in tiles(run, needed, window):
                rows, part = tile.rows(group), tile.keys
                if part.stop - part.start <= KEEP:
                    p = next(remembered)
                else:
                    p = _probabilities(q, keys, tile, group, scale, window)
                mine = by[:, rows]
                if rows.stop > tile.stop * group:
                    mine = mine.clone()
                    mine[:, (tile.stop - tile.first) * group :] = 0.0
                dp = torch.bmm(mine, values[:, part].transpose(1, 2))
                ds = torch._softmax_backward_data(dp, p, -1, p.dtype)
                torch.bmm(ds, keys[:, part], out=dq[:, rows])
                dk.add(run, tile, torch.bmm(ds.transpose(1, 2), q[:, rows]))
                dv.add(run, tile, torch.bmm(p.transpose(1, 2), mine))
        return (
            _by_head(dq.mul_(scale), group, length, rotation),
            _by_head(dk.total.mul_(scale).to(k.dtype), 1, length, rotation),
            _by_head(dv.total.to(v.dtype), 1, length),
            *(None,) * 5,
        )


class _Sums:
    """A gradient of keys or values `(H_kv, T, D)`, summed over the queries that saw them in fp32 or better."""

    def __init__(self, like: Tensor) -> None:
        self.total = torch.zeros(like.shape, dtype=torch.promote_types(like.dtype, torch.float32))

    def add(self, run: Run, tile: Tile, part: Tensor) -> None:
        """Add the gradient of a tile's keys, each where the pack has it."""
        at = 0
        for start, end in (*run.before, (run.start, run.end)):
            first, stop = max(at, tile.key_first), min(at + end - start, tile.key_stop)
            if first < stop:
                mine = self.total[:, start + first - at : start + stop - at]
                mine += part[:, first - tile.key_first : stop - tile.key_first]
            at += end - start


def _probabilities(
    q: Tensor, keys: Tensor, tile: Tile, group: int, scale: float, window: int | None
) -> Tensor:
    queries, keys = q[:, tile.rows(group)], keys[:, tile.keys]
    length = queries.shape[1] // group
    mask = _bands.of(length, tile.prefix, keys.shape[1], group=group, window=window, dtype=q.dtype)
    scores = torch.baddbmm(mask, queries, keys.transpose(1, 2), alpha=scale)
    return torch.softmax(scores, -1, out=scores)


def _gather(heads: Tensor, run: Run) -> Tensor:
    """The keys or values that a run may see, `(H_kv, P + L + ALIGN, D)`, and some that come after them."""
    own = heads[:, run.start : run.end + ALIGN]
    return torch.cat([*(heads[:, i:j] for i, j in run.before), own], dim=1) if run.before else own


def _gaps(spans: Sequence[Span], length: int) -> bool:
    return sum(end - start for start, end in spans) < length


def _by_group(x: Tensor, kv_heads: int, rotation: Rotation | None = None) -> Tensor:
    """`(T, H, D)` to `(H_kv, (T + ALIGN) * G, D)`, rotated on the way, zeros at the end."""
    length, heads, size = x.shape
    grouped = x.view(length, kv_heads, -1, size).transpose(0, 1)
    out = x.new_empty(kv_heads, length + ALIGN, heads // kv_heads, size)
    out[:, length:] = 0.0
    if rotation is not None:
        rotation.apply(grouped, out[:, :length])
    else:
        out[:, :length] = grouped
    return out.flatten(1, 2)


def _by_head(x: Tensor, group: int, length: int, rotation: Rotation | None = None) -> Tensor:
    """`(H_kv, (T + ALIGN) * G, D)` to `(T, H, D)`, rotated back on the way."""
    heads = x.view(x.shape[0], -1, group, x.shape[-1])[:, :length]
    if rotation is not None:
        out = x.new_empty(length, x.shape[0], group, x.shape[-1])
        rotation.apply(heads, out.transpose(0, 1), back=True)
        return out.flatten(1, 2)
    return heads.transpose(0, 1).flatten(1, 2)
