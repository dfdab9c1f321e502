"""Cross-entropy over graded tokens, as a sum and a weight: whoever has the whole batch divides, once.

The classic example of the field, a four-token answer before and after fine-tuning:

    p(target) = .05 .4 .1 .3      -ln p = 3.00 0.92 2.30 1.20     mean = 1.85
    p(target) = .85 .92 .95 .9    -ln p = 0.16 0.08 0.05 0.11     mean = 0.10
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def token_nll(logits: Tensor, targets: Tensor) -> Tensor:
    """-ln p(target) of each graded token, in fp32: `(G, V)` logits and `(G,)` targets to `(G,)`."""
    return F.cross_entropy(logits.float(), targets, reduction="none")


def weighted_sum(nll: Tensor, weights: Tensor) -> Tensor:
    """sum(weight * nll), a scalar; a target of weight 0 adds nothing even where its nll is infinite."""
    return torch.where(weights == 0, torch.zeros_like(nll), nll * weights).sum()
