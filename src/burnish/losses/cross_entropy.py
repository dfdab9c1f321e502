"""Cross-entropy over graded tokens, as a sum and a weight: whoever has the whole batch divides, once.

The classic example of the field, a four-token answer before and after fine-tuning:

    p(target) = .05 .4 .1 .3      -ln p = 3.00 0.92 2.30 1.20     mean = 1.85
    p(target) = .85 .92 .95 .9    -ln p = 0.16 0.08 0.05 0.11     mean = 0.10

`head_loss` goes from hidden states straight to that sum. For R rows and a vocabulary of V it never holds R x V
logits, only a chunk's rows x V: each chunk's gradient is taken while its softmax is at hand, in the forward pass.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from burnish.kernels import operations
from burnish.kernels.library import take
from burnish.losses.sums import GradientSum, add_up, gradient_sum

CHUNK = {"cpu": 256, "cuda": 2048}
"""Rows of logits held at once, by device: enough for the matrix products to run at full speed."""
BLOCK_LOGITS = 2**20
"""Logits whose fp32 softmax is made at once on a CPU: 4 MiB, which stay in its cache."""
HEAD_NUMBERS = 3 * 2**20
"""Numbers of the head's gradient that a CPU makes of one chunk at once."""
TINY = 1e-30
"""Below this a probability is near the end of fp32's range, and -ln p is taken from the logits instead."""


@dataclass(frozen=True, slots=True)
class LogitRule:
    """What a model does to its head's output: times `scale`, then `softcap * tanh(. / softcap)`."""

    scale: float = 1.0
    softcap: float | None = None


@dataclass(frozen=True, slots=True)
class Grading:
    """What is asked of R rows, targets ordered by row: row r owns targets `[starts[r], starts[r + 1])`.

    `row_of`, `targets`, `weights` are `(G,)` tensors; `order` says where each stood when it was given. `plain`
    means one target of weight 1 for every row. `label_smoothing` mixes in the mean of -ln p over the
    vocabulary, `z_loss` adds its multiple of logsumexp squared; both count per target, with the target's
    weight.
    """

    row_of: Tensor
    targets: Tensor
    weights: Tensor
    starts: tuple[int, ...]
    order: Tensor | None
    plain: bool
    label_smoothing: float = 0.0
    z_loss: float = 0.0

    @classmethod
    def of(
        cls,
        row_of: np.ndarray[Any, Any],
        targets: np.ndarray[Any, Any],
        weights: np.ndarray[Any, Any],
        *,
        num_rows: int,
        device: torch.device | str = "cpu",
        label_smoothing: float = 0.0,
        z_loss: float = 0.0,
    ) -> Grading:
        """From arrays in any order; nothing here waits for the device."""
        starts = np.concatenate([[0], np.cumsum(np.bincount(row_of, minlength=num_rows))])
        order = np.argsort(row_of, kind="stable")
        sorted_already = bool((order == np.arange(len(order))).all())
        single = len(row_of) == num_rows and bool((np.diff(starts) == 1).all())
        return cls(
            torch.from_numpy(row_of[order]).to(device),
            torch.from_numpy(targets[order]).to(device),
            torch.from_numpy(weights[order]).to(device),
            tuple(starts.tolist()),
            None if sorted_already else torch.from_numpy(order).to(device),
            single and bool((weights == 1).all()) and not label_smoothing and not z_loss,
            label_smoothing,
            z_loss,
        )

    def as_given(self, values: Tensor) -> Tensor:
        """Values of the targets in the order in which these were given."""
        return values if self.order is None else torch.empty_like(values).index_copy_(0, self.order, values)

    def rows(self, first: int, stop: int) -> Grading:
        """What is asked of the rows `[first, stop)`, counted from `first`."""
        mine = slice(self.starts[first], self.starts[stop])
        return Grading(
            self.row_of[mine] - first,
            self.targets[mine],
            self.weights[mine],
            tuple(start - mine.start for start in self.starts[first : stop + 1]),
            None,
            self.plain,
            self.label_smoothing,
            self.z_loss,
        )


PLAIN = LogitRule()


def chunks(rows: Tensor) -> list[tuple[int, int]]:
    """The `[first, stop)` of the rows whose logits are held at once."""
    size = CHUNK["cpu" if rows.device.type == "cpu" else "cuda"]
    return [(first, min(first + size, len(rows))) for first in range(0, len(rows), size)]


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of a head that are trained where the others are frozen: `index` `(N,)`, `values` `(N, H)`."""

    index: Tensor
    values: Tensor

    def written_into(self, weight: Tensor) -> Tensor:
        """The head with these rows in it, which a gradient reaches."""
        return weight.index_copy(0, self.index, self.values.to(weight.dtype))

    def laid_over(self, weight: Tensor) -> Tensor:
        """The head `(V, H)` with these rows in it, without gradient; good until the next call."""
        whole = workspace("whole", weight.shape, weight).copy_(weight.detach())
        return whole.index_copy_(0, self.index, self.values.detach().to(whole.dtype))


def head_loss(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    grading: Grading,
    rule: LogitRule = PLAIN,
    rows: Rows | None = None,
) -> tuple[Tensor, Tensor]:
    """sum(weight * nll) of hidden rows `(R, H)` under a head `(V, H)`; and -ln p of each target, without gradient.

    The sum is not divided by anything: a gradient of 1 flows in, and whoever has the whole batch divides. With
    `rows` the head is frozen but for these.
    """
    index, values = (None, None) if rows is None else (rows.index, rows.values)
    whole = weight if rows is None else rows.laid_over(weight)
    into = gradient_sum(weight) if rows is None else None
    summed, nll = _HeadLoss.apply(  # type: ignore[no-untyped-call]
        hidden, whole, bias, values, index, grading, rule, torch.is_grad_enabled(), into
    )
    nll = grading.as_given(nll)
    return summed, nll


class _HeadLoss(torch.autograd.Function):
    """One chunk of logits at a time: forward, softmax, and the gradient while it is at hand."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        values: Tensor | None,
        index: Tensor | None,
        grading: Grading,
        rule: LogitRule,
        graded: bool,
        into: GradientSum | None,
    ) -> tuple[Tensor, Tensor]:
        needs = [graded and need for need in ctx.needs_input_grad[:4]]
        nll, sums = [], []
        gradients = _Gradients(hidden, weight, bias, needs, index, into)
        for first, stop in chunks(hidden):
            logits = _linear(hidden[first:stop], weight, bias)
            part, found = grade_logits(logits, grading.rows(first, stop), rule, keep=any(needs))
            nll.append(found)
            sums.append(part)
            if any(needs):
                gradients.add(first, stop, logits)
        gradients.finish()
        ctx.present = [one is not None for one in gradients.all]
        ctx.save_for_backward(*(one for one in gradients.all if one is not None))
        ctx.into, ctx.summed = into, gradients.summed
        exact = torch.float64 if hidden.dtype == torch.float64 else torch.float32
        empty = torch.zeros(0, dtype=exact, device=hidden.device)
        every = torch.cat([empty, *nll])
        ctx.mark_non_differentiable(every)
        return torch.stack([empty.sum(), *sums]).sum(), every

    @staticmethod
    def backward(ctx: Any, by: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        saved = iter(ctx.saved_tensors)
        grads = [next(saved) if present else None for present in ctx.present]
        scaled = by.device.type != "cpu" or float(by) != 1.0
        if scaled:
            grads = [None if one is None else one * by.to(one.dtype) for one in grads]
        if ctx.summed is not None:
            ctx.into.add(ctx.summed.mul_(by) if scaled else ctx.summed)
        return (*grads, *(None,) * 5)


_kept: dict[tuple[Any, ...], Tensor] = {}


def workspace(purpose: str, shape: torch.Size, like: Tensor, *, dtype: torch.dtype | None = None) -> Tensor:
    """Uninitialised memory that is used again by the next caller with the same purpose.

    Chunks of logits are the largest blocks of a step, and their last one differs in size from step to step:
    taken from the allocator and given back, they leave holes that nothing fits (docs/lab_notes.md). On CUDA,
    torch's own cache serves.
    """
    dtype = dtype or like.dtype
    if like.device.type != "cpu":
        return torch.empty(shape, dtype=dtype, device=like.device)
    key = (purpose, shape[1:], dtype)
    found = _kept.get(key)
    if found is None or len(found) < shape[0]:
        found = _kept[key] = torch.empty(shape, dtype=dtype)
    return found[: shape[0]]


def _linear(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Logits of a chunk, in memory that the next chunk takes over."""
    logits = workspace("logits", torch.Size([len(rows), len(weight)]), rows)
    if bias is None:
        return torch.mm(rows, weight.t(), out=logits)
    return torch.addmm(bias, rows, weight.t(), out=logits)


def _slices(weight: Tensor) -> list[tuple[int, int]]:
    """The rows of a head `(V, H)` whose gradient is made at once: on a CPU a few MiB, added up from its cache."""
    size = len(weight) if weight.device.type != "cpu" else max(1, HEAD_NUMBERS // weight.shape[1])
    return [(begin, min(begin + size, len(weight))) for begin in range(0, len(weight), size)]


class _Gradients:
    """The gradients of hidden rows, head, bias and trained rows, filled chunk by chunk; weights' in fp32 or better."""

    def __init__(
        self,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        needs: list[bool],
        index: Tensor | None,
        into: GradientSum | None = None,
    ) -> None:
        self._hidden, self._weight, self._index, self._into = hidden, weight, index, into
        exact = torch.promote_types(hidden.dtype, torch.float32)
        self._values = (
            hidden.new_zeros(len(index), hidden.shape[1], dtype=exact)
            if index is not None and needs[3]
            else None
        )
        self._rows = torch.empty_like(hidden, memory_format=torch.contiguous_format) if needs[0] else None
        self._head = torch.zeros_like(weight) if needs[1] and not len(hidden) else None
        self._total: Tensor | None = None  # of the head's parts, where there are several
        self.summed: Tensor | None = None
        self._needs_head = needs[1]
        self._bias = torch.zeros_like(bias) if bias is not None and needs[2] else None

    def add(self, first: int, stop: int, by_logits: Tensor) -> None:
        """Take in d loss / d logits of the rows `[first, stop)`, in the compute dtype."""
        if self._rows is not None:
            torch.mm(by_logits, self._weight, out=self._rows[first:stop])
        if self._bias is not None:
            self._bias += by_logits.sum(0)
        if self._values is not None and self._index is not None:
            self._values += by_logits[:, self._index].t() @ self._hidden[first:stop]
        if self._needs_head:
            by_head, rows = by_logits.t(), self._hidden[first:stop]
            if first == 0 and stop == len(self._hidden):
                self._head = by_head @ rows
                return
            is_first = self._total is None
            total = self._total = self._room() if self._total is None else self._total
            for begin, end in _slices(self._weight):
                room = workspace("head", self._weight[begin:end].shape, self._weight)
                part = torch.mm(by_head[begin:end], rows, out=room)
                if is_first:
                    total[begin:end].copy_(part)
                else:
                    add_up(total[begin:end], part)

    @property
    def all(self) -> list[Tensor | None]:
        """In the order of the function's arguments."""
        return [self._rows, self._head, self._bias, self._values]

    def finish(self) -> None:
        """Round the head's gradient, out of what is used again and into a tensor of its own.

        Or leave it as `summed` where it is, in fp32, if that is the weight's own sum.
        """
        if self._total is not None and self.summed is None:
            self._head = self._total.to(self._weight.dtype, copy=True)
        if self._values is not None:
            self._values = self._values.to(self._weight.dtype)

    def _room(self) -> Tensor:
        """Memory for the head's parts to be added up in, in fp32 or better."""
        self.summed = None if self._into is None else self._into.room()
        if self.summed is not None:
            return self.summed
        exact = torch.promote_types(self._weight.dtype, torch.float32)
        return workspace("sum", self._weight.shape, self._weight, dtype=exact)


def grade_logits(logits: Tensor, grading: Grading, rule: LogitRule, *, keep: bool) -> tuple[Tensor, Tensor]:
    """Loss sum and -ln p of each target; with `keep` the gradient takes the place of `logits` `(R, V)`."""
    if logits.device.type != "cpu":
        scratch = logits.to(torch.promote_types(logits.dtype, torch.float32), copy=True)
        return _grade_block(logits, scratch, grading, rule, keep=keep)
    if (
        rule == PLAIN
        and not grading.label_smoothing
        and not grading.z_loss
        and logits.is_contiguous()
        and take(logits)
    ):
        starts, weights = torch.tensor(grading.starts), grading.weights.float()
        surprise = operations.grade(logits, starts, grading.targets, weights, keep=keep)
        return weighted_sum(surprise, weights), surprise
    size = min(len(logits), max(1, BLOCK_LOGITS // logits.shape[1]))
    exact = torch.promote_types(logits.dtype, torch.float32)
    scratch = workspace("block", torch.Size([size, logits.shape[1]]), logits, dtype=exact)
    if grading.plain and rule == PLAIN:
        return _grade_plainly(logits, scratch, grading, keep=keep)
    sums, nll = [], []
    for first in range(0, len(logits), size):
        stop = min(first + size, len(logits))
        part = logits[first:stop]
        found = _grade_block(
            part, scratch[: stop - first].copy_(part), grading.rows(first, stop), rule, keep=keep
        )
        sums.append(found[0])
        nll.append(found[1])
    return torch.stack(sums).sum(), torch.cat(nll)


def _grade_plainly(logits: Tensor, scratch: Tensor, grading: Grading, *, keep: bool) -> tuple[Tensor, Tensor]:
    """One target of weight 1 a row: to fp32, softmax in place, back; the targets' part for all rows at once."""
    targets = grading.targets[:, None]
    shares = torch.empty(len(logits), 1, dtype=scratch.dtype)
    nll = torch.empty(len(logits), dtype=scratch.dtype)
    for first in range(0, len(logits), len(scratch)):
        rows = slice(first, min(first + len(scratch), len(logits)))
        part, p = logits[rows], scratch[: rows.stop - first]
        torch.softmax(p.copy_(part), -1, out=p)
        torch.gather(p, 1, targets[rows], out=shares[rows])
        torch.log(shares[rows, 0], out=nll[rows]).neg_()
        if float(shares[rows].min()) <= TINY:
            nll[rows] = F.cross_entropy(part.to(p.dtype), targets[rows, 0], reduction="none")
        if keep:
            part.copy_(p)
    if keep:
        # Not scatter_: on a CPU it copies all of `logits` first.
        logits.index_put_((grading.row_of, grading.targets), (shares[:, 0] - 1).to(logits.dtype))
    return nll.sum(), nll


def _grade_block(
    logits: Tensor, z: Tensor, grading: Grading, rule: LogitRule, *, keep: bool
) -> tuple[Tensor, Tensor]:
    """Every case: branch points, weights, smoothing, z-loss, scaled and capped logits. `z`, a copy, is used up."""
    rows, targets, weights = grading.row_of, grading.targets, grading.weights.to(z.dtype)
    smoothing, zeta = grading.label_smoothing, grading.z_loss
    _apply(rule, z)
    at_target = z[rows, targets]
    above_mean = at_target - z.mean(-1)[rows] if smoothing else 0.0
    slope = (1 - (z / rule.softcap) ** 2) * rule.scale if rule.softcap is not None and keep else None
    on_device = None if z.device.type == "cpu" else torch.logsumexp(z, -1)[rows] - at_target
    p = torch.softmax(z, -1, out=z)
    nll = _surprise(p, logits, grading, rule) if on_device is None else on_device
    lse = nll + at_target
    summed = weighted_sum(nll + zeta * lse**2 + smoothing * above_mean, weights)
    if not keep:
        return summed, nll
    # d/dz: the softmax counts once per target, the target itself is taken away, smoothing spreads that over all.
    none = p.new_zeros(len(p))
    counts = none.index_add(0, rows, weights * (1 + 2 * zeta * lse) if zeta else weights)
    if p.device.type != "cpu" or not bool((counts == 1).all()):
        p *= counts[:, None]
    p.index_put_((rows, targets), (smoothing - 1) * weights, accumulate=True)
    if smoothing:
        p -= none.index_add(0, rows, weights * (smoothing / p.shape[1]))[:, None]
    if slope is not None:
        p *= slope
    elif rule.scale != 1.0:
        p *= rule.scale
    logits.copy_(p)
    return summed, nll


def _apply(rule: LogitRule, z: Tensor) -> Tensor:
    """What the model does to its head's output, in place."""
    if rule.scale != 1.0:
        z *= rule.scale
    return z if rule.softcap is None else z.div_(rule.softcap).tanh_().mul_(rule.softcap)


def _surprise(p: Tensor, logits: Tensor, grading: Grading, rule: LogitRule) -> Tensor:
    """-ln of each target's probability in `p`, from `logits` where it is too small to be taken from there."""
    shares = p[grading.row_of, grading.targets]
    nll = -shares.log()
    tiny = (shares <= TINY).nonzero()[:, 0]
    if len(tiny):
        z = _apply(rule, logits[grading.row_of[tiny]].to(p.dtype))
        nll[tiny] = F.cross_entropy(z, grading.targets[tiny], reduction="none")
    return nll


def token_nll(logits: Tensor, targets: Tensor) -> Tensor:
    """-ln p(target) of each graded token, in fp32 or better: `(G, V)` logits and `(G,)` targets to `(G,)`."""
    exact = logits if logits.dtype == torch.float64 else logits.float()
    return F.cross_entropy(exact, targets, reduction="none")


def weighted_sum(nll: Tensor, weights: Tensor) -> Tensor:
    """sum(weight * nll), a scalar; a target of weight 0 adds nothing even where its nll is infinite."""
    return torch.where(weights == 0, torch.zeros_like(nll), nll * weights).sum()
