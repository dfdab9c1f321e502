"""The base's leading singular parts under PEFT's LoRA layers: what PiSSA and LoRA-XS start from, and count from.

Both keep frozen matrices beside what they train. A checkpoint keeps these too: another machine's SVD may choose other
signs, and what was trained would mean something else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from peft.tuners.lora.layer import LoraLayer, ParamWrapper
from torch import Tensor, nn

from burnish.errors import DataError

ADAPTER = "default"
LARGEST_EXACT = 2048
"""Matrices whose shorter side is longer are decomposed by random projection: seconds, where it would be minutes."""


def lora_layers(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """PEFT's LoRA layers by name."""
    for name, module in model.named_modules():
        if isinstance(module, LoraLayer) and ADAPTER in module.lora_A:
            yield name, module


def frozen_factors(model: nn.Module) -> dict[str, Tensor]:
    """The frozen matrices beside trained ones, by parameter name."""
    return {
        name: parameter
        for name, parameter in model.named_parameters()
        if ".lora_" in name and not parameter.requires_grad
    }


@torch.no_grad()
def load_factors(model: nn.Module, saved: Mapping[str, Tensor]) -> None:
    """Take a checkpoint's frozen matrices over."""
    for name, parameter in frozen_factors(model).items():
        if name not in saved or saved[name].shape != parameter.shape:
            raise DataError(
                f"the checkpoint has no {name} of shape {list(parameter.shape)}",
                rule="a resumed run has the frozen matrices that it began with",
                remedy="resume with the recipe of the run: adapter and lora_r decide names and shapes",
            )
        parameter.copy_(saved[name])


def base_matrices(layer: Any) -> Iterator[Tensor]:
    """The base's matrices `(N, K)` under a LoRA layer: one, or one for each expert."""
    if isinstance(layer, ParamWrapper):
        weight = layer.get_param()
        if weight.dim() == 3:
            flipped = layer._did_swap_in_out_features  # then experts lie as (E, out, in)
            yield from (one if flipped else one.t() for one in weight)
            return
        yield weight
        return
    weight = layer.get_base_layer().weight
    yield weight.t() if layer.fan_in_fan_out else weight


def leading_parts(weight: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """U S `(N, r)` and V' `(r, K)` of the r largest singular values; the largest number of a row of V' is positive."""
    exact = weight.detach().float()
    if min(exact.shape) <= LARGEST_EXACT:
        u, s, vt = torch.linalg.svd(exact, full_matrices=False)
    else:
        u, s, v = torch.svd_lowrank(exact, q=min(rank + 16, *exact.shape), niter=4)
        vt = v.t()
    u, s, vt = u[:, :rank], s[:rank], vt[:rank]
    sign = vt.gather(1, vt.abs().argmax(dim=1, keepdim=True)).sign()
    # LAPACK's matrices lie by columns: an optimiser's state, saved and loaded, would lie otherwise than its parameter.
    return (u * s * sign.t()).contiguous(), (vt * sign).contiguous()
