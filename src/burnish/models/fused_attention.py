"""Attention in bf16 on a CPU by our own kernels: scores stay in the cache, and are made again for the gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from burnish.kernels import operations
from burnish.kernels.library import take
from burnish.models.kept_attention import Rotation
from burnish.models.reach import Layout


def fuses(query: Tensor, key: Tensor, value: Tensor, rotation: Rotation | None) -> bool:
    """Whether the kernels take these."""
    return (
        query.shape[-1] == value.shape[-1]
        and query.shape[-1] in operations.DEPTHS
        and take(query, key, value, *(rotation or ()))
    )


def attend_fused(
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
    """What `attend_kept` is, for what `fuses` accepts."""
    cos, sin = (None, None) if rotation is None else (turn.contiguous() for turn in rotation)
    rule = operations.Rule(_runs(layout, only_needed=only_needed), scale, window, cos, sin)
    out: Tensor = _Fused.apply(query, key, value, rule)  # type: ignore[no-untyped-call]
    return out


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, rule: operations.Rule) -> Tensor:
        out, sums = operations.attention(query, key, value, rule)
        ctx.save_for_backward(query, key, value, out, sums)
        ctx.rule = rule
        return out

    @staticmethod
    def backward(ctx: Any, by: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, out, sums = ctx.saved_tensors
        return (*operations.attention_backward(by, out, sums, query, key, value, ctx.rule), None)


def _runs(layout: Layout, *, only_needed: bool) -> operations.Runs:
    """The layout's runs in numbers, made once for all layers."""
    name = ("runs", only_needed)
    if name not in layout.cache:
        asked = layout.needed if only_needed else [(run.start, run.end) for run in layout.runs]
        spans = [span for run in layout.runs for span in run.before]
        counts = np.array([len(run.before) for run in layout.runs])
        rows = [(run.start, run.end, *needed) for run, needed in zip(layout.runs, asked, strict=True)]
        runs = np.column_stack([rows, counts.cumsum() - counts, counts]).astype(np.int64)
        layout.cache[name] = operations.Runs(runs, np.array(spans, dtype=np.int64).reshape(-1, 2))
    found: operations.Runs = layout.cache[name]
    return found
