"""Attention for packs, entered through transformers' own registry; no model class is patched.

The rule is `models.reach`'s; who computes it depends on the device and on what the layer adds to plain attention:

    CPU    our own kernels in bf16 (`fused_attention`), else matrix products, segment by segment (`kept_attention`)
    CUDA   varlen FlashAttention for plain packs, FlexAttention for trees (`cuda_attention`)
    any    plain operations, segment by segment: attention dropout, sinks, soft-capping
    ring   a pack whose tokens several ranks have between them: tiles in plain operations (`ring`)
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel

from burnish.errors import UsageError
from burnish.models.cuda_attention import attend_flex, attend_varlen, varlen_fits
from burnish.models.fused_attention import attend_fused, fuses
from burnish.models.kept_attention import Rotation, attend_kept
from burnish.models.reach import Layout
from burnish.models.ring import Ring, attend_ring

NAME = "burnish"


@dataclass(frozen=True, slots=True)
class Rule:
    """What a layer adds to plain causal attention; `sinks` are `(H,)`."""

    scale: float
    dropout: float = 0.0
    window: int | None = None
    softcap: float | None = None
    sinks: Tensor | None = None


@torch.compiler.disable  # type: ignore[untyped-decorator]
def attend_pack(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    pack_layout: Layout | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    position_bias: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """What transformers' layers call: query `(1, H, T, D)`, key and value `(1, H_kv, T, D)` to `(1, T, H, D)`."""
    if pack_layout is None or position_bias is not None:
        lack = (
            "hands no `pack_layout` down to its attention" if pack_layout is None else "uses a position bias"
        )
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
    query, key, value = (x[0].transpose(0, 1) for x in (query, key, value))
    return attend(query, key, value, pack_layout, rule)[None], None


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: Layout,
    rule: Rule,
    *,
    only_needed: bool = False,
    rotation: Rotation | None = None,
) -> Tensor:
    """`(T, H, D)` over `(T, H_kv, D)`; with `only_needed`, rows that nobody reads may hold anything finite.

    `rotation` is applied to queries and keys first.
    """
    if layout.ring is not None:
        return _attend_with_others(query, key, value, layout.ring, rule, rotation)
    plain = rule.dropout == 0.0 and rule.sinks is None
    if plain and rule.softcap is None and query.device.type != "cuda":
        attends = attend_fused if fuses(query, key, value, rotation) else attend_kept
        return attends(
            query,
            key,
            value,
            layout,
            scale=rule.scale,
            window=rule.window,
            only_needed=only_needed,
            rotation=rotation,
        )
    if rotation is not None:
        query, key = rotate(query, rotation), rotate(key, rotation)
    if not plain or query.device.type != "cuda":
        return _attend_plain(query, key, value, layout, rule)
    try:
        return _attend_by_kernel(query, key, value, layout, rule)
    except (ImportError, AttributeError, TypeError, NotImplementedError) as error:
        # A torch without these kernels, or with other signatures, still trains: slower, and right.
        warnings.warn(f"attention in plain operations: {error}", stacklevel=2)
        return _attend_plain(query, key, value, layout, rule)


def _attend_by_kernel(query: Tensor, key: Tensor, value: Tensor, layout: Layout, rule: Rule) -> Tensor:
    """FlashAttention's varlen kernel where it takes these, else FlexAttention."""
    if rule.softcap is None and varlen_fits(query, layout):
        return attend_varlen(query, key, value, layout, scale=rule.scale, window=rule.window)
    return attend_flex(query, key, value, layout, scale=rule.scale, window=rule.window, softcap=rule.softcap)


def _attend_with_others(
    query: Tensor, key: Tensor, value: Tensor, ring: Ring, rule: Rule, rotation: Rotation | None
) -> Tensor:
    """Where other ranks have the rest of the pack; keys are rotated before they leave."""
    if rule.dropout:
        raise UsageError(
            f"attention dropout of {rule.dropout:g} under context_parallel",
            rule="what attention drops is drawn once for a whole row of scores, which no rank has",
            remedy="attention_dropout: 0 in the model's config.json (lora_dropout may stay), or context_parallel: 1",
        )
    if rotation is not None:
        query, key = rotate(query, rotation), rotate(key, rotation)
    return attend_ring(
        query, key, value, ring, scale=rule.scale, window=rule.window, softcap=rule.softcap, sinks=rule.sinks
    )


def rotate(x: Tensor, rotation: Rotation) -> Tensor:
    """RoPE of `(T, H, D)`, in autograd's own operations."""
    first, second = x.chunk(2, dim=-1)
    turned = torch.cat((-second, first), dim=-1)
    return x * rotation.cos[:, None] + turned * rotation.sin[:, None]


def _attend_plain(query: Tensor, key: Tensor, value: Tensor, layout: Layout, rule: Rule) -> Tensor:
    """In plain operations, for what the backends lack: soft-capping (Gemma 2), sinks (gpt-oss), attention dropout."""
    group = query.shape[1] // key.shape[1]
    out = []
    for run in layout.runs:
        spans = (*run.before, (run.start, run.end))
        keys, values = (
            torch.cat([x[i:j] for i, j in spans]).repeat_interleave(group, dim=1).transpose(0, 1)
            for x in (key, value)
        )
        out.append(
            _attend_run(query[run.start : run.end].transpose(0, 1), keys, values, rule).transpose(0, 1)
        )
    return torch.cat(out)


def _attend_run(query: Tensor, key: Tensor, value: Tensor, rule: Rule) -> Tensor:
    """`(H, L, D)` over the `(H, P + L, D)` keys that end with the queries' own."""
    shares = shares_of(query @ key.transpose(1, 2) * rule.scale, rule)
    return F.dropout(shares, p=rule.dropout) @ value


def shares_of(scores: Tensor, rule: Rule) -> Tensor:
    """What each of the last `L` tokens gives each of `S` up to itself, of scaled scores `(H, L, S)`; no dropout."""
    length, seen = scores.shape[1:]
    given = scores.dtype
    if rule.softcap is not None:
        scores = rule.softcap * torch.tanh(scores / rule.softcap)
    if length > 1 or rule.window is not None:  # the last token alone sees all that is there
        at = torch.arange(seen, device=scores.device)
        distance = at[seen - length :, None] - at[None, :]
        visible = (distance >= 0) & (distance < (rule.window or seen))
        scores = scores.masked_fill(~visible, -torch.inf)
    if rule.sinks is not None:
        # One more column per head, which takes a share of the attention and has no value to give for it.
        column = rule.sinks.to(scores.dtype).reshape(-1, 1, 1).expand(-1, length, 1)
        scores = torch.cat([scores, column], dim=-1)
    exact = torch.promote_types(scores.dtype, torch.float32)
    return F.softmax(scores, dim=-1, dtype=exact)[..., :seen].to(given)


def attend_densely(query: Tensor, key: Tensor, value: Tensor, layout: Layout, rule: Rule) -> Tensor:
    """The reference: one T x T mask, no sinks, no dropout. Slow; every backend is tested against it."""
    group = query.shape[1] // key.shape[1]
    q, k, v = (x.transpose(0, 1) for x in (query, key, value))
    scores = q @ k.repeat_interleave(group, 0).transpose(1, 2) * rule.scale
    if rule.softcap is not None:
        scores = rule.softcap * torch.tanh(scores / rule.softcap)
    shares = scores.masked_fill(~layout.visible(rule.window), -torch.inf).softmax(-1)
    return (shares @ v.repeat_interleave(group, 0)).transpose(0, 1)


AttentionInterface.register(NAME, attend_pack)


@contextmanager
def packed_attention(model: PreTrainedModel) -> Iterator[None]:
    """Within the block, the model's attention follows the reach of a pack's tokens; after it, it is as it was."""
    with attention_named(model, NAME):
        yield


@contextmanager
def attention_named(model: PreTrainedModel, name: str) -> Iterator[None]:
    """Within the block the model's attention is the registry's of that name; after it, it is as it was."""
    before = model.config._attn_implementation
    model.set_attn_implementation(name)
    try:
        yield
    finally:
        model.set_attn_implementation(before)
