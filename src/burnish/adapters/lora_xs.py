"""LoRA-XS (arXiv 2405.17604): W + scale * B R A, where B A are the base's own leading singular parts and only R moves.

    W (N, K) = U S V'     A = V'[:r]  (r, K) frozen     B = U[:, :r] S[:r]  (N, r) frozen     R (r, r) starts at zero

A trained r x r matrix a layer: rank 16 on a 7B model's 224 layers is 57 thousand numbers, where LoRA has 40 million.
PEFT injects plain LoRA; its two matrices are then filled with the factors, and B gives way to `Core`, which to PEFT
looks like a B whose weight is `B R`. So PEFT's forward, our flat one and PEFT's merge all work on it, and what is
saved is plain LoRA.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from burnish.adapters.factors import ADAPTER, base_matrices, leading_parts, lora_layers


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
        lefts, rights = zip(*(leading_parts(w, rank) for w in base_matrices(layer)), strict=True)
        a.copy_(torch.cat(rights).view(a.shape))
        b.copy_(torch.stack(lefts, dim=-1).reshape(b.shape))
        a.requires_grad_(False)
        layer.lora_B[ADAPTER] = Core(b.detach(), experts)
