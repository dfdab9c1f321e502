"""Sums in fp32 of what is computed in less."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

AT_ONCE = 2**19
"""Numbers that are widened at a time on a CPU: 2 MiB, which stay in its cache."""


def add_up(total: Tensor, part: Tensor) -> None:
    """Add `part` to `total` of the same shape, in place and in `total`'s precision.

    torch widens the whole of a part first: for a table of 32,768 x 384 a copy of 50 MB, and twice the time.
    """
    if total.dtype == part.dtype or total.device.type != "cpu" or total.ndim < 2 or not total.numel():
        total.add_(part)
        return
    rows = max(1, AT_ONCE * len(total) // total.numel())
    for first in range(0, len(total), rows):
        total[first : first + rows].add_(part[first : first + rows])


class GradientSum:
    """The gradient of a weight that is computed with in bf16, summed in fp32 over the packs of a step.

    Autograd would round each part to the weight's dtype and make it as large as the weight. Who has a part in
    fp32 (the head's, added up chunk by chunk) or of few rows (an embedding's) brings it here, and gives autograd
    none. The memory stays from step to step: given back, it would leave a hole that something smaller takes.
    """

    def __init__(self, master: nn.Parameter) -> None:
        self._master = master
        self._memory: Tensor | None = None
        self._is_lent = False

    def room(self) -> Tensor | None:
        """Memory of the weight's shape, fp32, for a part that is then added without a copy; None while in use."""
        if self._is_lent or self._master.grad is not None:
            return None
        self._is_lent = True
        return self._own()

    def add(self, part: Tensor) -> None:
        """Add a part of the weight's shape."""
        if part is self._memory:
            self._is_lent = False
        if self._master.grad is not None:
            add_up(self._master.grad, part)
            return
        own = self._free()
        self._master.grad = own if part is own else own.copy_(part)

    def add_rows(self, index: Tensor, rows: Tensor) -> None:
        """Add `rows` `(N, H)` to the weight's rows `index` `(N,)`, which may repeat."""
        if self._master.grad is None:
            self._master.grad = self._free().zero_()
        self._master.grad.index_add_(0, index, rows.to(self._master.dtype))

    def forget(self) -> None:
        """Begin anew; what room was given for will not come."""
        self._master.grad = None
        self._is_lent = False

    def _own(self) -> Tensor:
        if self._memory is None:
            self._memory = torch.empty_like(self._master)
        return self._memory

    def _free(self) -> Tensor:
        return torch.empty_like(self._master) if self._is_lent else self._own()


def sum_gradient_of(weight: nn.Parameter, master: nn.Parameter) -> GradientSum:
    """The sum of `weight`'s gradient, which becomes `master`'s; from here on `gradient_sum` finds it."""
    found = GradientSum(master)
    weight.gradient_sum = found  # type: ignore[attr-defined]
    return found


def gradient_sum(weight: Any) -> GradientSum | None:
    """Where a weight's gradient is summed; None where autograd does that."""
    return getattr(weight, "gradient_sum", None) if getattr(weight, "requires_grad", False) else None
