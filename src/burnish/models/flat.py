"""Our own forward for Llama-shaped families: one `(T, H)` stream from ids to the hidden rows that the head reads.

It uses the parameters and the small modules (embedding, rotary) of the transformers model it is given, so there
is nothing to keep in step: state dict, adapters and export stay those of transformers and PEFT. What it spares
is work: no batch dimension to move around, fewer passes between matrix products (`models.flat_operations`), and
in the last layer all that follows the keys and values is done for the graded rows only.

`why_not_flat` says of any model whether it is taken. It is believed only after `models.forward` has compared logits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from burnish.losses.sums import GradientSum, gradient_sum
from burnish.models.attention import Rule, attend
from burnish.models.flat_operations import gated_project, project, project_normed, rms_norm
from burnish.models.head import trained_rows
from burnish.models.kept_attention import Rotation
from burnish.models.quantized import is_exact_norm_hook
from burnish.models.reach import Layout
from burnish.models.shard import is_sharding_hook, through


@dataclass(frozen=True, slots=True)
class Family:
    """How a family departs from Llama: norms before or after its blocks, and norms of queries and keys."""

    norms_after: bool = False
    query_norm: str | None = None  # "head": over each head's numbers; "all": over all heads' at once


FAMILIES = {
    "LlamaModel": Family(),  # also SmolLM2, Yi, TinyLlama, Vicuna, ...
    "MistralModel": Family(),
    "Qwen2Model": Family(),
    "Qwen3Model": Family(query_norm="head"),
    "Olmo2Model": Family(norms_after=True, query_norm="all"),
}


def why_not_flat(model: PreTrainedModel) -> str | None:
    """Why a model does not go through this forward, in words; None if it does."""
    backbone, config = model.base_model, model.config.get_text_config()
    name = type(backbone).__name__
    if name not in FAMILIES or not type(backbone).__module__.startswith("transformers.models."):
        return f"{name} is not in the table of families"
    if config.hidden_act != "silu":
        return f"its activation is {config.hidden_act}"
    hooked = [m for m in backbone.modules() if isinstance(m, nn.Module) and _surprising(m)]
    if hooked:
        return f"{type(hooked[0]).__name__} carries hooks"
    probe = torch.zeros(1, 1, dtype=torch.long, device=model.device)
    cos, _ = backbone.rotary_emb(torch.zeros(1, 1, 1, device=model.device), position_ids=probe)
    if cos.shape[-1] != backbone.layers[0].self_attn.head_dim:
        return "it rotates a part of each head only"
    return None


def _surprising(module: nn.Module) -> bool:
    kind = type(module).__name__
    watched = kind.endswith(("RMSNorm", "Attention", "MLP", "DecoderLayer"))
    hooks = [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]
    return watched and not all(is_exact_norm_hook(hook) or is_sharding_hook(hook) for hook in hooks)


def flat_hidden(
    model: PreTrainedModel, input_ids: Tensor, position_ids: Tensor, layout: Layout, rows: Tensor
) -> Tensor:
    """Hidden states `(R, H)` after the last norm, at `rows`."""
    backbone: Any = model.base_model
    family = FAMILIES[type(backbone).__name__]
    x = _embedded(backbone.embed_tokens, input_ids)
    cos, sin = backbone.rotary_emb(x[None], position_ids=position_ids[None])
    rotation = Rotation(cos[0], sin[0])
    layers = backbone.layers[: model.config.get_text_config().num_hidden_layers]
    for layer in layers:
        kept = rows if layer is layers[-1] else None
        computed = partial(_layer, layer, family)
        if getattr(layer, "gradient_checkpointing", False) and layer.training:
            computed = partial(checkpoint, computed, use_reentrant=False)
        x = through(layer, computed, x, rotation, layout, kept)
    if not len(layers):
        x = x.index_select(0, rows)
    return rms_norm(x, backbone.norm)


def _embedded(module: nn.Module, input_ids: Tensor) -> Tensor:
    """Embeddings `(T, H)`, wherever it can be without a gradient as large as the table."""
    found = trained_rows(module)
    embedded: Tensor
    if found is None or type(found[0]) is not nn.Embedding:
        into = _summed_apart(module)
        if into is None:
            embedded = module(input_ids)
        else:
            embedded = _Embedded.apply(input_ids, module.weight, module.padding_idx, into)  # type: ignore[no-untyped-call]
        return embedded
    table, rows = found
    place = torch.full((table.num_embeddings,), -1, device=input_ids.device)
    place[rows.index] = torch.arange(len(rows.index), device=input_ids.device)
    theirs = place[input_ids]
    where = (theirs >= 0).nonzero()[:, 0]
    embedded = table(input_ids)
    return embedded.index_copy(0, where, rows.values[theirs[where]].to(embedded.dtype))


def _summed_apart(module: nn.Module) -> GradientSum | None:
    """Where a plain table's gradient is summed; on a CPU only, elsewhere rows that repeat are added in any order."""
    if type(module) is not nn.Embedding or module._forward_hooks or module._forward_pre_hooks:
        return None
    if module.max_norm is not None or module.scale_grad_by_freq or module.weight.device.type != "cpu":
        return None
    return gradient_sum(module.weight)


class _Embedded(torch.autograd.Function):
    """Rows of a table whose gradient is summed apart, where it is added row by row."""

    @staticmethod
    def forward(
        ctx: Any, input_ids: Tensor, weight: Tensor, padding_idx: int | None, into: GradientSum
    ) -> Tensor:
        ctx.save_for_backward(input_ids)
        ctx.padding_idx, ctx.into = padding_idx, into
        return F.embedding(input_ids, weight)

    @staticmethod
    def backward(ctx: Any, by: Tensor) -> tuple[None, ...]:
        (input_ids,) = ctx.saved_tensors
        if ctx.padding_idx is not None:
            by = by.masked_fill((input_ids == ctx.padding_idx)[:, None], 0.0)
        ctx.into.add_rows(input_ids, by)
        return (None,) * 4


def _layer(
    layer: Any, family: Family, x: Tensor, rotation: Rotation, layout: Layout, kept: Tensor | None
) -> Tensor:
    """One decoder layer; with `kept`, only those rows come out."""
    attention, mlp = layer.self_attn, layer.mlp
    inner = [attention.q_proj, attention.k_proj, attention.v_proj]
    heads: Sequence[Tensor]
    if family.norms_after:
        heads = project(x, inner)
    else:
        x, *heads = project_normed(x, layer.input_layernorm, inner)
    attended = _attention(attention, family, heads, rotation, layout, only_needed=kept is not None)
    if kept is not None:
        attended, x = attended.index_select(0, kept), x.index_select(0, kept)
    if family.norms_after:
        x = x + rms_norm(project(attended, [attention.o_proj])[0], layer.post_attention_layernorm)
        gate, up = project(x, [mlp.gate_proj, mlp.up_proj])
        down = gated_project(gate, up, mlp.down_proj)
        return x + rms_norm(down, layer.post_feedforward_layernorm)
    (x,) = project(attended, [attention.o_proj], residual=x)
    x, gate, up = project_normed(x, layer.post_attention_layernorm, [mlp.gate_proj, mlp.up_proj])
    return gated_project(gate, up, mlp.down_proj, residual=x)


def _attention(
    module: Any,
    family: Family,
    projected: Sequence[Tensor],
    rotation: Rotation,
    layout: Layout,
    *,
    only_needed: bool,
) -> Tensor:
    query, key, value = projected
    if family.query_norm == "all":
        query, key = rms_norm(query, module.q_norm), rms_norm(key, module.k_norm)
    query, key, value = (y.view(len(y), -1, module.head_dim) for y in (query, key, value))
    if family.query_norm == "head":
        query, key = rms_norm(query, module.q_norm), rms_norm(key, module.k_norm)
    rule = Rule(
        scale=module.scaling,
        dropout=module.attention_dropout if module.training else 0.0,
        window=_window(module),
    )
    out = attend(query, key, value, layout, rule, only_needed=only_needed, rotation=rotation)
    return out.flatten(1)


def _window(module: Any) -> int | None:
    """Qwen's layers say which of them slide; in Mistral all do, or none."""
    if hasattr(module, "sliding_window"):
        found: int | None = module.sliding_window
        return found
    return getattr(module.config, "sliding_window", None)
