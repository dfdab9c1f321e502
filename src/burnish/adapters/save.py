"""A trained adapter out of a model: folded into plain LoRA and saved, merged into the base, and taken out again.

lora, dora, rslora    PEFT's own files as they are
pissa                 scale (B A - B0 A0): plain LoRA of rank 2r
lora_xs               B R for B: plain LoRA of the same rank
bottleneck            `adapters.bottleneck`'s own files; it is in no way a LoRA, and merges into nothing
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel
from peft.tuners.trainable_tokens.layer import TrainableTokensLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from transformers import PreTrainedModel

from burnish.adapters.bottleneck import CHILD, plain_name, remove_bottleneck, save_bottleneck
from burnish.adapters.factors import ADAPTER, lora_layers
from burnish.adapters.lora_xs import Core
from burnish.adapters.pissa import Beside


def has_adapter(model: nn.Module) -> bool:
    """Whether something beside the weights of the base is trained."""
    return isinstance(model, PeftModel) or has_bottleneck(model)


def has_bottleneck(model: nn.Module) -> bool:
    """Whether bottlenecks are in the model."""
    return any(CHILD in module._modules for module in model.modules())


@torch.no_grad()
def save_adapter(model: PreTrainedModel | PeftModel, directory: Path) -> None:
    """Write the adapter so that stock PEFT loads it on the base; a bottleneck in its own format."""
    if has_bottleneck(model):
        save_bottleneck(model, directory, rows=_token_rows(model), whole=_trained_whole(model))
        return
    assert isinstance(model, PeftModel)
    config = model.peft_config[ADAPTER]
    try:
        model.peft_config[ADAPTER] = _plain_config(model, config)
        # Rows of new tokens are in it by themselves; PEFT would add the whole resized table, base and all.
        model.save_pretrained(directory, state_dict=_folded(model), save_embedding_layers=False)
    finally:
        model.peft_config[ADAPTER] = config


def merged(model: PreTrainedModel | PeftModel) -> PreTrainedModel:
    """The model with its adapter folded into the weights: a plain transformers model. Consumes the argument.

    A bottleneck cannot be folded in and is taken off: what is left is the base with its trained token rows.
    """
    plain: PreTrainedModel = model.merge_and_unload() if isinstance(model, PeftModel) else model
    remove_bottleneck(plain)
    return plain


@contextmanager
@torch.no_grad()
def merged_in_place(model: PeftModel) -> Iterator[None]:
    """Within the block the adapter is in the weights; after it the base is what it was, bit for bit.

    PEFT's own unmerge subtracts what was added, and (w + d) - d is not w in floating point: here the base's bits are
    kept meanwhile.
    """
    layers = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
    kept = {
        id(p): (p, p.detach().clone())
        for layer in layers
        for p in layer.get_base_layer().parameters(recurse=False)
    }
    model.merge_adapter()
    try:
        yield
    finally:
        model.unmerge_adapter()
        for parameter, before in kept.values():
            parameter.data.copy_(before)


def _plain_config(model: PeftModel, config: Any) -> LoraConfig:
    plain = copy.deepcopy(config)
    if any(isinstance(module, Beside) for module in model.modules()):
        plain.r, plain.lora_alpha = 2 * plain.r, 2 * plain.lora_alpha
        plain.rank_pattern = {name: 2 * rank for name, rank in plain.rank_pattern.items()}
        plain.alpha_pattern = {name: 2 * alpha for name, alpha in plain.alpha_pattern.items()}
    return plain


def _folded(model: PeftModel) -> dict[str, Tensor]:
    """The state dict as plain LoRA has it."""
    state: dict[str, Tensor] = model.state_dict()
    for name, layer in lora_layers(model):
        for part in ("lora_A", "lora_B"):
            matrix, key = getattr(layer, part)[ADAPTER], f"{name}.{part}.{ADAPTER}"
            if isinstance(matrix, (Core, Beside)):
                for own in matrix.state_dict():
                    del state[f"{key}.{own}"]
                state[f"{key}.weight"] = copy.deepcopy(matrix).float().weight
    return state


def _token_rows(model: nn.Module) -> dict[str, tuple[Tensor, Tensor]]:
    """Trained token rows by table: ids, rows."""
    return {
        plain_name(name): (torch.tensor(layer.token_indices[ADAPTER]), layer.trainable_tokens_delta[ADAPTER])
        for name, layer in model.named_modules()
        if isinstance(layer, TrainableTokensLayer) and layer.tied_adapter is None
    }


def _trained_whole(model: nn.Module) -> dict[str, Tensor]:
    """Parameters of the base that are trained as they are."""
    return {
        plain_name(name).replace(".base_layer", ""): parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and f".{CHILD}." not in name and "trainable_tokens" not in name
    }
