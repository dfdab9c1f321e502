"""Puts the bottleneck adapter of this folder on its base, with torch and transformers alone.

    from load_bottleneck import load_bottleneck
    model = load_bottleneck(AutoModelForCausalLM.from_pretrained(BASE), "THIS_FOLDER")

Behind each place that bottleneck.json names: h + up(gelu(down(h))). Rows of new tokens go into the tables, which get
room for them first. burnish writes this file beside every exported bottleneck; it imports nothing of burnish.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

FORMAT = 1


@torch.no_grad()
def load_bottleneck(model: Any, folder: str | Path) -> Any:
    """The model, changed in place; ValueError or KeyError where folder and model do not fit."""
    said = json.loads((Path(folder) / "bottleneck.json").read_text())
    if said["format"] != FORMAT:
        raise ValueError(f"bottleneck format {said['format']}, and this loader reads {FORMAT}")
    tensors = load_file(Path(folder) / "bottleneck.safetensors")
    tables = [key.removeprefix("ids:") for key in tensors if key.startswith("ids:")]
    wanted = 1 + max((int(tensors[f"ids:{table}"].max()) for table in tables), default=-1)
    if wanted > model.get_input_embeddings().weight.shape[0]:
        model.resize_token_embeddings(wanted, mean_resizing=False)
    for table in tables:
        weight = model.get_submodule(table).weight
        weight[tensors.pop(f"ids:{table}")] = tensors.pop(f"rows:{table}").to(weight.dtype)
    for key in [key for key in tensors if key.startswith("whole:")]:
        model.get_parameter(key.removeprefix("whole:")).copy_(tensors.pop(key))
    for place in said["places"]:
        parts = {part: tensors.pop(f"{place}.{part}") for part in PARTS}
        model.get_submodule(place).register_forward_hook(behind(parts))
    if tensors:
        raise ValueError(f"tensors that belong nowhere: {', '.join(sorted(tensors)[:4])}")
    return model


PARTS = ("down.weight", "down.bias", "up.weight", "up.bias")


def behind(parts: dict[str, Tensor]) -> Callable[..., Any]:
    """A forward hook that sends what a module returns through one bottleneck."""

    def through(hidden: Tensor) -> Tensor:
        down_weight, down_bias, up_weight, up_bias = (parts[name].to(hidden) for name in PARTS)
        narrow = functional.gelu(functional.linear(hidden, down_weight, down_bias))
        return hidden + functional.linear(narrow, up_weight, up_bias)

    def hook(module: Any, given: Any, output: Any) -> Any:
        return (through(output[0]), *output[1:]) if isinstance(output, tuple) else through(output)

    return hook
