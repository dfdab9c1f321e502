"""The step-0 oracle: the fast path asked for the loss and gradient of a few rows, and plain transformers asked too.

    fast    packed, attention by reach, prefixes once, the head without its logits, in the run's precision
    truth   one document at a time, transformers' own attention, all logits, fp32

In fp32 both must agree to 1e-5. In bf16 the slow path itself is off by some amount; the fast one may be by three
times that. Where they do not agree, parts of the fast path are switched off one by one until one is found without
which they do.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from burnish.data.pack import Pack, pack_all
from burnish.errors import UsageError
from burnish.kernels.library import switch_off, why_none, without_kernels
from burnish.models.forward import Forward, pack_attention
from burnish.models.generate import without_dropout
from burnish.models.quantized import compute_in_fp32
from burnish.optim.masters import whole
from burnish.training.session import Session
from burnish.types import Example

EXACT = 1e-5
"""How far the loss may be off in fp32, relative."""

EXACT_GRADIENT = 1e-4
"""How far the gradient may be: its sums are longer, and taken in another order (marble: 5e-6)."""

ROUNDING = 3.0
"""How many times the slow path's own bf16 error the fast path may have."""

LEAST_BF16 = 4e-3
"""An error in bf16 below this says nothing: one part in 256 is a rounding step of a single number."""

BOTH_ROUND = 5e-2
"""How far two paths in bf16 may lie apart: of sharded weights there is no copy in fp32 to compare both with."""

MOST_TOKENS = {"cpu": 128, "cuda": 2048}
LARGEST_COPY = 8e9
"""Weights of which an fp32 copy would be larger are compared in the run's own precision."""


@dataclass(frozen=True, slots=True)
class Truth:
    """The loss that is right, and its gradient by parameter name, in fp32."""

    loss: float
    gradient: Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class Verdict:
    """How far the fast path is off, relative: `loss` and `gradient` (the norm of the difference over the norm)."""

    loss: float
    gradient: float
    allowed: tuple[float, float]
    rows: int
    tokens: int
    seconds: float
    culprit: str | None = None

    @property
    def ok(self) -> bool:
        """Whether both are within the tolerance."""
        return self.loss <= self.allowed[0] and self.gradient <= self.allowed[1]

    def __str__(self) -> str:
        return (
            f"loss off by {self.loss:.1e} (at most {self.allowed[0]:.1e}), gradient by {self.gradient:.1e} (at most "
            f"{self.allowed[1]:.1e}) from plain transformers, on {self.tokens} tokens of {self.rows} rows"
        )


def consult(session: Session) -> Verdict:
    """Ask both paths about the shortest rows of the first batch; nothing of the session changes."""
    started = time.perf_counter()
    examples = _few(session)
    with without_dropout(session.model):
        truth = _truth(session, examples)
        allowed = (EXACT, EXACT_GRADIENT)
        if _rounds(session):
            computed = _compare(
                session, lambda: _slow(session.model, examples, session.forward.device), truth
            )
            allowed = (max(LEAST_BF16, ROUNDING * max(computed)),) * 2
            if session.masters.is_sharded:
                allowed = (BOTH_ROUND, BOTH_ROUND)
        loss, gradient = _compare(session, lambda: _fast(session, examples), truth)
        verdict = Verdict(
            loss=loss,
            gradient=gradient,
            allowed=allowed,
            rows=len({example.row for example in examples}),
            tokens=sum(map(len, examples)),
            seconds=time.perf_counter() - started,
        )
        if verdict.ok:
            return verdict
        culprit = next(_culprits(session, examples, truth, allowed), "no single part of the fast path")
    return replace(verdict, culprit=culprit)


def settle(session: Session) -> Verdict:
    """Consult the oracle, give up a part that can be done without, and refuse to start with any other.

    UsageError names the part and the key that switches it off.
    """
    verdict = consult(session)
    forward = session.forward
    if verdict.culprit in (KERNELS, FLAT, HEAD):
        why = f"it is not the model's own: {verdict}"
        if verdict.culprit == KERNELS:
            switch_off(why)
        elif verdict.culprit == FLAT:
            forward.flat, forward.why_not_flat = False, why
        else:
            forward.flat, forward.head, forward.why_no_head = False, None, why
        verdict = consult(session)
    if not verdict.ok:
        raise _refusal(verdict)
    return verdict


def _refusal(verdict: Verdict) -> UsageError:
    return UsageError(
        f"{verdict}; without {verdict.culprit} it is right",
        rule="the first batch's loss and gradient are those of plain transformers, one document at a time, in fp32",
        remedy=_REMEDIES.get(verdict.culprit or "", "train one document at a time: packing=false"),
    )


KERNELS = "the CPU kernels"
FLAT = "our own forward"
HEAD = "grading the head without its logits"
_REMEDIES = {
    "sharing prefixes": "share_prefixes=false",
    KERNELS: "BURNISH_KERNELS=off in the environment",
    "torch.compile": "compile=false",
}


def _rounds(session: Session) -> bool:
    return session.recipe.dtype.value != "float32"


def _few(session: Session) -> list[Example]:
    """The shortest sequences of the first batch, at least two where there are two, within a bound on their tokens.

    Of a row that became several, the two shortest: they begin alike, and go the way of a shared prefix.
    """
    batch = (session.data.train[row] for row in session.plan.rows_of(0))
    rows = sorted((sorted(views, key=len)[:2] for views in batch), key=lambda views: sum(map(len, views)))
    limit = MOST_TOKENS.get(session.forward.device.type, 128)
    taken: list[Example] = []
    for views in rows:
        if len(taken) >= 2 and sum(map(len, [*taken, *views])) > limit:
            break
        taken += views
    return taken


def _truth(session: Session, examples: Sequence[Example]) -> Truth:
    """The slow path in fp32: on a copy of the model where it computes in anything less."""
    device = session.forward.device
    exact = _exact(session)
    if exact is not session.model:
        loss = _slow(exact, examples, device)
        return Truth(loss, {n: p.grad for n, p in exact.named_parameters() if p.grad is not None})
    session.masters.zero_grad()
    loss = _slow(exact, examples, device)
    grads = {name: grad.clone() for name, grad in _gradients(session)}
    session.masters.zero_grad()
    return Truth(loss, grads)


@torch.no_grad()
def _exact(session: Session) -> nn.Module:
    """The model in fp32, its trained weights from their masters; the model itself where it is that already.

    A copy, not torch.func.functional_call with other weights: that leaves a model changed in which one ParameterDict
    is reached by two ways, as PEFT's trainable tokens of tied embeddings are.
    """
    count = sum(parameter.numel() for parameter in session.model.parameters())
    model: nn.Module = session.model
    if not _rounds(session) or 4 * count > LARGEST_COPY or session.masters.is_sharded:
        return model
    exact = copy.deepcopy(model).float()
    compute_in_fp32(exact)  # the base in 4 bits stays: that base is what is trained on
    for name, parameter in exact.named_parameters():
        if name in session.masters.parameters:
            parameter.copy_(session.masters.parameters[name])
    return exact


def _slow(model: nn.Module, examples: Sequence[Example], device: torch.device) -> float:
    """Plain transformers: a document at a time, every logit, cross-entropy on the graded ones; and backward."""
    total = 0.0
    for example in examples:
        ids = torch.tensor([example.input_ids], device=device)
        logits = model(input_ids=ids, use_cache=False).logits[0, :-1]
        nll = F.cross_entropy(logits.float(), ids[0, 1:], reduction="none")
        loss = nll @ torch.tensor(example.weights[1:], device=nll.device)
        loss.backward()  # type: ignore[no-untyped-call]
        total += float(loss.detach())
    return total


def _fast(
    session: Session,
    examples: Sequence[Example],
    *,
    packs: list[Pack] | None = None,
    forward: Forward | None = None,
) -> float:
    """The session's own path, forward and backward."""
    forward = forward or session.forward
    total = 0.0
    with pack_attention(session.model, packed=forward.packed):
        for pack in packs or session.packs(examples):
            loss, _ = forward.loss(pack)
            loss.backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
    return total


def _gradients(session: Session) -> Iterator[tuple[str, Tensor]]:
    """What the masters have gathered."""
    for name, parameter in session.masters.parameters.items():
        if parameter.grad is not None:
            yield name, parameter.grad


def _compare(session: Session, run: Callable[[], float], truth: Truth) -> tuple[float, float]:
    """How far a run is from the truth; its gradient is looked at where the masters gather it, and not kept."""
    session.masters.zero_grad()
    distance = _apart(run(), dict(_gradients(session)), truth)
    session.masters.zero_grad()
    return distance


def _apart(loss: float, gradient: Mapping[str, Tensor], truth: Truth) -> tuple[float, float]:
    """The relative difference of a loss, and of a gradient as one long vector."""
    norm = _squares(truth.gradient.values()) ** 0.5
    squares = _squares(truth.gradient[name] for name in truth.gradient.keys() - gradient.keys())
    for name, mine in gradient.items():
        squares += _squares([mine - truth.gradient[name] if name in truth.gradient else mine])
    return abs(loss - truth.loss) / max(abs(truth.loss), 1e-12), squares**0.5 / max(norm, 1e-12)


def _squares(tensors: Iterable[Tensor]) -> float:
    return sum(float(whole(torch.linalg.vector_norm(tensor))) ** 2 for tensor in tensors)


def _culprits(
    session: Session, examples: Sequence[Example], truth: Truth, allowed: tuple[float, float]
) -> Iterator[str]:
    """The parts of the fast path without which it is right, the smallest part first."""
    for name, run in _without(session, examples):
        try:
            loss, gradient = _compare(session, run, truth)
            if loss <= allowed[0] and gradient <= allowed[1]:
                yield name
        except (RuntimeError, ValueError, TypeError):  # a part that cannot be left out alone is not the one
            continue


def _without_kernels(session: Session, examples: Sequence[Example]) -> float:
    with without_kernels():
        return _fast(session, examples)


def _without(session: Session, examples: Sequence[Example]) -> Iterator[tuple[str, Callable[[], float]]]:
    forward = session.forward

    def plain(**changes: Any) -> Forward:
        settings = {"packed": forward.packed, "backbone": forward.backbone, **changes}
        return Forward(forward.model, **settings)

    longest = max(map(len, examples))
    yield (
        "sharing prefixes",
        lambda: _fast(
            session, examples, packs=pack_all(examples, max_tokens=longest * len(examples)), forward=forward
        ),
    )
    if why_none() is None:
        yield KERNELS, lambda: _without_kernels(session, examples)
    if forward.flat:
        yield FLAT, lambda: _fast(session, examples, forward=plain(flat=False))
    if forward.backbone is not None:
        yield "torch.compile", lambda: _fast(session, examples, forward=plain(backbone=None))
    yield (
        HEAD,
        lambda: _fast(session, examples, forward=plain(why_no_head="switched off", _checked=True)),
    )
    yield (
        "packing",
        lambda: _fast(session, examples, packs=pack_all(examples, max_tokens=longest, max_rows=1)),
    )
    yield (
        "attention by the reach rule",
        lambda: _fast(
            session,
            examples,
            packs=pack_all(examples, max_tokens=longest, max_rows=1),
            forward=plain(packed=False),
        ),
    )
