"""The reach rule on CUDA, by torch's own kernels: varlen FlashAttention for plain packs, FlexAttention for trees.

Written against torch 2.11 to 2.13. The names are imported where they are used: no CPU build needs them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from burnish.models.reach import Layout


def varlen_fits(query: Tensor, layout: Layout) -> bool:
    """Whether FlashAttention's varlen kernel takes these: a plain pack, 16-bit numbers, a head of at most 256."""
    return not layout.is_tree and query.dtype in (torch.float16, torch.bfloat16) and query.shape[-1] <= 256


def attend_varlen(
    query: Tensor, key: Tensor, value: Tensor, layout: Layout, *, scale: float, window: int | None
) -> Tensor:
    """`(T, H, D)` over `(T, H_kv, D)`, each document by itself."""
    from torch.nn.attention.varlen import varlen_attn

    starts, longest = _starts(layout, query.device)
    extra: dict[str, Any] = {"enable_gqa": True} if query.shape[1] != key.shape[1] else {}
    left = -1 if window is None else window - 1  # the kernel's window does not count the query itself
    out = varlen_attn(
        query.contiguous(),
        key.contiguous(),
        value.contiguous(),
        starts,
        starts,
        longest,
        longest,
        scale=scale,
        window_size=(left, 0),
        **extra,
    )
    assert isinstance(out, Tensor)  # a pair only where return_aux is asked for
    return out


def attend_flex(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: Layout,
    *,
    scale: float,
    window: int | None,
    softcap: float | None,
) -> Tensor:
    """`(T, H, D)` over `(T, H_kv, D)` under the rule itself, blocks that nobody sees skipped."""

    def cap(score: Tensor, *_: Tensor) -> Tensor:
        return limit * torch.tanh(score / limit)

    limit = softcap or 1.0

    out = _flex()(
        *(x.transpose(0, 1)[None] for x in (query, key, value)),
        score_mod=cap if softcap is not None else None,
        block_mask=_block_mask(layout, window, query.device),
        scale=scale,
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return out[0].transpose(0, 1)  # type: ignore[no-any-return]


def _starts(layout: Layout, device: torch.device) -> tuple[Tensor, int]:
    if "starts" not in layout.cache:
        ends = [0, *(run.end for run in layout.runs)]
        longest = max(run.end - run.start for run in layout.runs)
        layout.cache["starts"] = (torch.tensor(ends, dtype=torch.int32, device=device), longest)
    found: tuple[Tensor, int] = layout.cache["starts"]
    return found


def _block_mask(layout: Layout, window: int | None, device: torch.device) -> Any:
    """Made once a pack and window, for all layers."""
    from torch.nn.attention.flex_attention import create_block_mask

    if ("blocks", window) not in layout.cache:
        reach, positions, length = layout.reach, layout.positions, len(layout.reach)

        def sees(_batch: Tensor, _head: Tensor, q: Tensor, k: Tensor) -> Tensor:
            seen = (k <= q) & (q < reach[k])
            return seen if window is None else seen & (positions[q] - positions[k] < window)

        layout.cache["blocks", window] = create_block_mask(sees, None, None, length, length, device=device)
    return layout.cache["blocks", window]


_compiled: list[Any] = []


def _flex() -> Any:
    """FlexAttention compiled, once a process: uncompiled it would make the T x T scores."""
    from torch.nn.attention.flex_attention import flex_attention

    if not _compiled:
        _compiled.append(torch.compile(flex_attention, dynamic=True))
    return _compiled[0]
