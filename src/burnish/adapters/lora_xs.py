"""LoRA-XS (arXiv 2405.17604): W + scale * B R A, where B A are the base's own leading singular parts and only R moves.

    W (N, K) = U S V'     A = V'[:r]  (r, K) frozen     B = U[:, :r] S[:r]  (N, r) frozen     R (r, r) starts at zero

A trained r x r matrix a layer: rank 16 on a 7B model's 224 layers is 57 thousand numbers, where LoRA has 40 million.
PEFT injects plain LoRA; its two matrices are then filled with the factors, and B gives way to `Core`, which to PEFT
looks like a B whose weight is `B R`. So PEFT's forward, our flat one and PEFT's merge all work on it, and what is
saved is plain LoRA.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from peft.tuners.lora.layer import LoraLayer, ParamWrapper
from torch import Tensor, nn

ADAPTER = "default"
LARGEST_EXACT = 2048
"""Matrices whose shorter side is longer are decomposed by random projection: seconds, where it would be minutes."""


class Core(nn.Module):
    """`B (R x)`: B `(N, r)` frozen, R `(r, r)` trained. Experts lie side by side in B as in PEFT; R is `(E, r, r)`."""

    bias = None

    def __init__(self, frozen: Tensor, num_experts: int = 1) -> None:
        super().__init__()
        rank = frozen.shape[1] // num_experts
        shape = (rank, rank) if num_experts == 1 else (num_experts, rank, rank)
        self.frozen = nn.Parameter(frozen, requires_grad=False)
        self.core = nn.Parameter(frozen.new_zeros(shape))

    @property
    def weight(self) -> Tensor:
        """What a plain LoRA's B would be."""
        if self.core.dim() == 2:
            return self.frozen @ self.core
        experts, rank, _ = self.core.shape
        b = self.frozen.view(-1, rank, experts)  # PEFT's order: the rank outside, the expert inside
        return torch.einsum("nke,ekj->nje", b, self.core).reshape(self.frozen.shape)

    def forward(self, x: Tensor) -> Tensor:
        """The adapter's output before its scale."""
        return F.linear(x, self.weight)


@torch.no_grad()
def take_core(model: nn.Module) -> None:
    """Turn a model's fresh LoRA layers into LoRA-XS."""
    for _, layer in lora_layers(model):
        a, b = layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight
        experts = int(getattr(layer, "num_experts", 1))
        rank = a.shape[0] // experts
        lefts, rights = zip(*(_factors(w, rank) for w in _base_matrices(layer)), strict=True)
        a.copy_(torch.cat(rights).view(a.shape))
        b.copy_(torch.stack(lefts, dim=-1).reshape(b.shape))
        a.requires_grad_(False)
        layer.lora_B[ADAPTER] = Core(b.detach(), experts)


def lora_layers(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """PEFT's LoRA layers by name."""
    for name, module in model.named_modules():
        if isinstance(module, LoraLayer) and ADAPTER in module.lora_A:
            yield name, module


def frozen_factors(model: nn.Module) -> dict[str, Tensor]:
    """What R is relative to, by parameter name: a checkpoint keeps it, for another machine's SVD has other signs."""
    cores = {name for name, module in model.named_modules() if isinstance(module, Core)}
    mine = {f"{name}.frozen" for name in cores}
    mine |= {f"{name}.weight".replace(".lora_B.", ".lora_A.") for name in cores}
    return {name: parameter for name, parameter in model.named_parameters() if name in mine}


@torch.no_grad()
def load_factors(model: nn.Module, saved: Mapping[str, Tensor]) -> None:
    """Take a checkpoint's factors over."""
    for name, parameter in frozen_factors(model).items():
        parameter.copy_(saved[name])


def _base_matrices(layer: Any) -> Iterator[Tensor]:
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


def _factors(weight: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """U S `(N, r)` and V' `(r, K)` of the r largest singular values; the largest number of a row of V' is positive."""
    exact = weight.detach().float()
    if min(exact.shape) <= LARGEST_EXACT:
        u, s, vt = torch.linalg.svd(exact, full_matrices=False)
    else:
        u, s, v = torch.svd_lowrank(exact, q=min(rank + 16, *exact.shape), niter=4)
        vt = v.t()
    u, s, vt = u[:, :rank], s[:rank], vt[:rank]
    sign = vt.gather(1, vt.abs().argmax(dim=1, keepdim=True)).sign()
    return u * s * sign.t(), vt * sign
