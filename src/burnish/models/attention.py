"""Attention for packed documents, entered through transformers' own registry; no model class is patched.

The rule: a token sees the tokens before it *in its own document*. A pack is one row of many documents, so
each document is attended to by itself, which is exact and, on a CPU, faster than a T x T mask.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel

from burnish.errors import UsageError

NAME = "burnish"


@dataclass(frozen=True, slots=True, eq=False)
class Documents:
    """Where each document of a pack starts and ends.

    A class of its own, opaque to torch.compile: a bare tuple would be guarded by value, and each pack recompiled.
    """

    bounds: tuple[tuple[int, int], ...]


@torch.compiler.disable  # type: ignore[untyped-decorator]
def attend_documents(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    documents: Documents | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    position_bias: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention of query `(1, H, T, D)` over key and value `(1, H_kv, T, D)`, document by document."""
    if documents is None or position_bias is not None:
        lack = "hands no `documents` down to its attention" if documents is None else "uses a position bias"
        raise UsageError(
            f"{type(module).__name__} {lack}",
            rule="packed documents need attention that follows their bounds",
            remedy="train one document at a time: packing=false",
        )
    rule = Rule(
        scale=query.shape[-1] ** -0.5 if scaling is None else scaling,
        dropout=dropout,
        window=sliding_window,
        softcap=softcap,
        sinks=s_aux,
    )
    attend = _attend_fused if softcap is None and s_aux is None else _attend_plain
    pieces = [attend(query[:, :, i:j], key[:, :, i:j], value[:, :, i:j], rule) for i, j in documents.bounds]
    return torch.cat(pieces, dim=2).transpose(1, 2).contiguous(), None  # (1, T, H, D)


@dataclass(frozen=True, slots=True)
class Rule:
    """What a layer adds to plain causal attention; `sinks` are `(H,)`."""

    scale: float
    dropout: float
    window: int | None
    softcap: float | None
    sinks: Tensor | None


def _attend_fused(query: Tensor, key: Tensor, value: Tensor, rule: Rule) -> Tensor:
    """One document of L tokens, `(1, H, L, D)`, through torch's fused attention."""
    length = query.shape[2]
    windowed = rule.window is not None and length > rule.window
    return F.scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=_visible(length, rule.window, query.device) if windowed else None,
        is_causal=not windowed,
        dropout_p=rule.dropout,
        scale=rule.scale,
        enable_gqa=query.shape[1] != key.shape[1],
    )


def _attend_plain(query: Tensor, key: Tensor, value: Tensor, rule: Rule) -> Tensor:
    """One document in plain operations, for what the fused kernels lack: soft-capping (Gemma 2), sinks (gpt-oss)."""
    repeats = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(repeats, dim=1), value.repeat_interleave(repeats, dim=1)
    scores = query @ key.transpose(2, 3) * rule.scale
    if rule.softcap is not None:
        scores = rule.softcap * torch.tanh(scores / rule.softcap)
    length = query.shape[2]
    scores = scores.masked_fill(~_visible(length, rule.window, query.device), -torch.inf)
    if rule.sinks is not None:
        # One more column per head, which takes a share of the attention and has no value to give for it.
        column = rule.sinks.reshape(1, -1, 1, 1).expand(1, -1, length, 1)
        scores = torch.cat([scores, column], dim=-1)
    shares = F.softmax(scores, dim=-1, dtype=torch.float32)[..., :length].to(query.dtype)
    return F.dropout(shares, p=rule.dropout) @ value


def _visible(length: int, window: int | None, device: torch.device) -> Tensor:
    """`(L, L)`, true where a query may see a key: not after it, and nearer than the window."""
    position = torch.arange(length, device=device)
    distance = position[:, None] - position[None, :]
    return (distance >= 0) & (distance < (window or length))


AttentionInterface.register(NAME, attend_documents)


@contextmanager
def packed_attention(model: PreTrainedModel) -> Iterator[None]:
    """Within the block, the model's attention follows the documents of a pack; after it, it is as it was."""
    before = model.config._attn_implementation
    model.set_attn_implementation(NAME)
    try:
        yield
    finally:
        model.set_attn_implementation(before)
