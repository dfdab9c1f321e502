"""The base as an anchor: KL(base || tuned) on graded positions, as a second term of the loss.

    sum(weight * -ln p(target))  +  strength * sum(weight * KL(base || tuned))      whoever has the batch divides, once

`weight` is that of the target which a position predicts, so that both terms share their denominator. The divergence
runs from the base: what the base would choose costs where the tuned model no longer would. The base is the same model
with its adapter off; it costs one more forward pass of each pack, and no second set of weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from burnish.adapters.off import adapter_off
from burnish.data.pack import Pack
from burnish.losses.cross_entropy import Grading, chunks, weighted_sum
from burnish.models.forward import Forward, open_forward, token_losses
from burnish.models.generate import evaluating
from burnish.models.head import Head


@dataclass(slots=True)
class Anchor:
    """The loss of a model that is held near its base with `strength`."""

    forward: Forward
    strength: float
    _base: Forward = field(init=False)
    _taken: list[Tensor] = field(default_factory=list)

    def __post_init__(self) -> None:
        # Another forward, for its head may be another: rows of new tokens are off with the adapter.
        self._base = open_forward(self.forward.model, packed=self.forward.packed)

    def loss(self, pack: Pack) -> tuple[Tensor, Tensor, Tensor]:
        """sum(weight * nll), -ln p of each target (no gradient), and strength * sum(weight * KL)."""
        weights = torch.from_numpy(_row_weights(pack)).to(self.forward.device)
        with self._asking_base():
            base, head = self._read(self._base, pack)
        mine, my_head = self._read(self.forward, pack)
        if my_head is not None:
            summed, nll = my_head.loss(mine, Grading.of(
                pack.row_of, pack.targets, pack.weights, num_rows=len(pack.rows_kept), device=mine.device
            ))  # fmt: skip
        else:
            nll = token_losses(mine, pack)
            summed = weighted_sum(nll, torch.from_numpy(pack.weights).to(nll))
        parts = [
            checkpoint(_divergence, mine[a:b], my_head, base[a:b], head, weights[a:b], use_reentrant=False)
            for a, b in chunks(mine)
        ]
        apart = torch.stack(parts).sum()
        self._taken.append(apart.detach())
        return summed, nll.detach(), self.strength * apart

    def taken(self) -> float:
        """sum(weight * KL) of the packs since this was last asked."""
        apart, self._taken = self._taken, []
        return float(torch.stack(apart).sum()) if apart else 0.0  # a rank may have had no pack

    def _read(self, forward: Forward, pack: Pack) -> tuple[Tensor, Head | None]:
        """Hidden rows and the head that reads them; logits and None where the head is the model's own affair."""
        if forward.ready(pack) and forward.head is not None:
            return forward.hidden(pack), forward.head
        return forward.logits(pack), None

    @contextmanager
    def _asking_base(self) -> Iterator[None]:
        with evaluating(self.forward.model), adapter_off(self.forward.model):
            yield


def divergence(logits: Tensor, base: Tensor) -> Tensor:
    """KL(base || tuned) of each row `(R,)`, in nats, fp32 or better."""
    exact = torch.promote_types(logits.dtype, torch.float32)
    ours, theirs = logits.to(exact).log_softmax(-1), base.to(exact).log_softmax(-1)
    return F.kl_div(ours, theirs, reduction="none", log_target=True).sum(-1)


def _divergence(
    mine: Tensor, my_head: Head | None, base: Tensor, head: Head | None, weights: Tensor
) -> Tensor:
    """One chunk's weighted sum; computed again in the backward pass, so that only a chunk's logits are held."""
    logits = mine if my_head is None else my_head.logits(mine)
    with torch.no_grad():
        of_base = base if head is None else head.logits(base)
    return (divergence(logits, of_base) * weights.to(logits.device)).sum()


def _row_weights(pack: Pack) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """What each row's targets weigh together."""
    found = np.bincount(pack.row_of, weights=pack.weights, minlength=len(pack.rows_kept))
    return found.astype(np.float32)
