"""From a pack to the logits of its graded positions, and to nothing else.

Two ways to the same numbers. Models whose attention goes through transformers' registry take the whole pack in
one call. All others (recurrent layers that know no document bounds, older attention classes) get one document
at a time: slower, and right.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from burnish.data.pack import Pack
from burnish.losses.cross_entropy import token_nll
from burnish.models.attention import NAME, Documents, packed_attention

# Layers that carry a state from token to token would carry it across documents.
STATEFUL = ("mamba", "linear_attention", "recurrent", "conv", "rwkv", "ssm", "delta", "xlstm", "minimax")


def why_unpacked(model: PreTrainedModel) -> str | None:
    """Why this model's documents must be computed one by one, in words; None if it takes packs."""
    config = model.config.get_text_config()
    if not model._can_set_attn_implementation():
        return f"{type(model).__name__} does not use transformers' attention registry"
    kinds = [str(kind) for kind in getattr(config, "layer_types", None) or []]
    for word in STATEFUL:
        if word in config.model_type or any(word in kind for kind in kinds):
            return f"{type(model).__name__} has layers ({word}) that carry state across documents"
    if any("chunked" in kind for kind in kinds):
        return f"{type(model).__name__} has chunked attention layers"
    return None


@contextmanager
def pack_attention(model: nn.Module, *, packed: bool) -> Iterator[None]:
    """The block in which packs go through `model`, forward *and* backward.

    Backward too, for gradient checkpointing computes attention again there.
    """
    with packed_attention(_unwrapped(model)) if packed else nullcontext():
        yield


def graded_nll(model: PreTrainedModel, pack: Pack, *, packed: bool) -> Tensor:
    """-ln p(target) for each graded token of a pack, fp32 `(G,)`, in the pack's order."""
    targets = torch.from_numpy(pack.targets).to(model.device)
    return token_nll(graded_logits(model, pack, packed=packed), targets)


def graded_logits(model: PreTrainedModel, pack: Pack, *, packed: bool) -> Tensor:
    """Logits `(G, V)` at the positions that predict a graded token; call it within `pack_attention`."""
    if not packed:
        return _one_by_one(model, pack)
    if _unwrapped(model).config._attn_implementation != NAME:
        raise RuntimeError("a pack was fed outside `pack_attention`: its documents would see each other")
    logits: Tensor = model(
        input_ids=torch.from_numpy(pack.input_ids)[None].to(model.device),
        position_ids=torch.from_numpy(pack.position_ids)[None].to(model.device),
        logits_to_keep=torch.from_numpy(pack.predicts).to(model.device),
        documents=Documents(pack.bounds),
        use_cache=False,
    ).logits
    return logits[0]


def _one_by_one(model: PreTrainedModel, pack: Pack) -> Tensor:
    pieces = []
    ids = torch.from_numpy(pack.input_ids).to(model.device)
    predicts = torch.from_numpy(pack.predicts).to(model.device)
    keeps = "logits_to_keep" in inspect.signature(_unwrapped(model).forward).parameters
    for start, stop in pack.bounds:
        local = predicts[(predicts >= start) & (predicts < stop)] - start
        extra = {"logits_to_keep": local} if keeps else {}
        logits = model(input_ids=ids[None, start:stop], use_cache=False, **extra).logits[0]
        pieces.append(logits if keeps else logits[local])
    return torch.cat(pieces)


def _unwrapped(model: PreTrainedModel) -> PreTrainedModel:
    """The transformers model inside PEFT's or torch.compile's wrapper."""
    inner = getattr(model, "_orig_mod", model)
    return inner.get_base_model() if hasattr(inner, "get_base_model") else inner
