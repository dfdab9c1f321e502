"""PiSSA (arXiv 2404.02948): LoRA whose matrices start as the base's leading singular parts, B0 A0, taken out of it.

PEFT's own form subtracts scale * B0 A0 from the base's weights, which then are neither the base nor, in bf16, exactly
what is left of it. Here the base stays as it is, and the start counts with the other sign beside the trained half:

    W + scale (B A - B0 A0)     A  (2r, K) = [A; A0]     B  (N, 2r) = [B, -B0]     the second halves frozen

The function and its gradients are PiSSA's. What is saved is plain LoRA of rank 2r, for the base as its maker left it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from burnish.adapters.factors import ADAPTER, base_matrices, leading_parts, lora_layers


class Beside(nn.Module):
    """A linear map whose weight is a trained matrix and, beside it along `dim`, the frozen one that it counts from."""

    bias = None

    def __init__(self, start: Tensor, *, sign: float, dim: int) -> None:
        super().__init__()
        self.moved = nn.Parameter(start.clone(memory_format=torch.contiguous_format))
        self.start = nn.Parameter(sign * start, requires_grad=False)
        self.dim = dim

    @property
    def weight(self) -> Tensor:
        """Both halves, as a plain LoRA of twice the rank has them."""
        return torch.cat([self.moved, self.start], dim=self.dim)

    def forward(self, x: Tensor) -> Tensor:
        """The map."""
        return F.linear(x, self.weight)


@torch.no_grad()
def take_principal(model: nn.Module) -> None:
    """Turn a model's fresh LoRA layers into PiSSA."""
    for _, layer in lora_layers(model):
        a, b = layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight
        (weight,) = base_matrices(layer)
        left, right = leading_parts(weight, len(a))
        size = left.norm(dim=0)  # the singular values, to be shared between both matrices
        root = (size / layer.scaling[ADAPTER]).sqrt()
        layer.lora_A[ADAPTER] = Beside((right * root[:, None]).to(a), sign=1.0, dim=0)
        layer.lora_B[ADAPTER] = Beside((left / size * root).to(b), sign=-1.0, dim=1)
