"""One update, and one evaluation: forward, one division, backward, clip, move."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor

from burnish.adapters.audit import audit, watching_experts
from burnish.data.pack import Pack, total_weight
from burnish.errors import Diverged
from burnish.models.forward import pack_attention
from burnish.models.generate import evaluating
from burnish.parallel.runtime import peak_memory_bytes
from burnish.training.events import Evaluated, Stepped
from burnish.training.session import Session

ROWS_NAMED = 8

Array = np.ndarray[tuple[int], np.dtype[Any]]


class Abandoned(Exception):
    """The user asked to stop while an update or an evaluation was being computed; nothing was moved."""


def take_step(session: Session, *, interrupted: Callable[[], bool] = lambda: False) -> Stepped:
    """Make the next update of the plan; Diverged if its loss or gradient is not finite (nothing is moved then).

    An update of many packs is given up between two of them (`Abandoned`) once `interrupted` says so.
    """
    started = time.perf_counter()
    step = session.state.step
    packs = session.ahead.take(step)
    # Dropout draws from a stream keyed by the step, so that a resumed run draws the same.
    torch.manual_seed(session.recipe.seed * 1_000_003 + step)
    denominator = total_weight(packs)
    first = session.audit is None
    with (
        pack_attention(session.model, packed=session.forward.packed),
        watching_experts(session.model) if first else nullcontext() as owed,
    ):
        summed, source_sums = _backward(session, packs, interrupted)
    pull = None if session.anchor is None else session.anchor.taken() / denominator
    norm = session.masters.clip(session.recipe.max_grad_norm, over=denominator)
    # The one wait for the device in a step: what is logged and what says whether to move.
    total, length, *by_source = torch.stack([summed, norm, *source_sums.values()]).tolist()
    loss = total / denominator
    if not (math.isfinite(loss) and math.isfinite(length)):
        session.masters.zero_grad()
        raise _diverged(session, step, loss, length, packs)
    if owed is not None:
        session.audit = audit(session.model, session.masters.parameters, owed)
    rate = session.schedule.rate(step)
    session.optimizer.step(rate)
    session.masters.refresh()
    session.masters.zero_grad()
    state = session.state
    state.step += 1
    state.tokens += sum(len(pack) for pack in packs)
    state.graded_tokens += sum(len(pack.targets) for pack in packs)
    state.train_loss = loss
    graded = np.concatenate([pack.sources for pack in packs])
    return Stepped(
        step=state.step,
        num_steps=session.plan.num_steps,
        epoch=session.plan.epoch_of(state.step),
        loss=loss,
        learning_rate=rate,
        grad_norm=length,
        graded_tokens=len(graded),
        tokens=sum(len(pack) for pack in packs),
        seconds=time.perf_counter() - started,
        memory_bytes=peak_memory_bytes(),
        source_loss={
            source: value / int((graded == source).sum())
            for source, value in zip(source_sums, by_source, strict=True)
        },
        source_tokens={source: int((graded == source).sum()) for source in source_sums},
        stage=session.stages[session.plan.stage_of(step)[0]].name,
        kl_to_base=pull,
    )


def _backward(
    session: Session, packs: list[Pack], interrupted: Callable[[], bool]
) -> tuple[Tensor, dict[int, Tensor]]:
    """Sum the gradient of sum(weight * nll) over all packs; that sum, and the plain sum of -ln p of each source."""
    sums: list[Tensor] = []
    by_source: dict[int, Tensor] = {}
    for pack in packs:
        if sums and interrupted():
            session.masters.zero_grad()
            raise Abandoned
        part, nll, objective = session.objective(pack)
        objective.backward()  # type: ignore[no-untyped-call]
        sums.append(part.detach())
        for source in np.unique(pack.sources).tolist():
            mine = torch.from_numpy(pack.sources == source).to(nll.device)
            by_source[source] = by_source.get(source, torch.zeros_like(sums[0])) + (nll * mine).sum()
    return torch.stack(sums).sum(), dict(sorted(by_source.items()))


def evaluate(session: Session, *, interrupted: Callable[[], bool] = lambda: False) -> Evaluated:
    """Held-out loss, one division over the whole set, and the share of graded tokens that are the first choice.

    Given up between two packs (`Abandoned`) once `interrupted` says so.
    """
    loss = weight = 0.0
    right = graded = 0
    sources = SourceSums()
    with evaluating(session.model), pack_attention(session.model, packed=session.forward.packed):
        for pack in session.held_out:
            if interrupted():
                raise Abandoned
            summed, nll, hits = session.forward.judge(pack)
            loss += float(summed)
            weight += pack.weight
            right += int(hits.sum())
            graded += len(pack.targets)
            sources.add(pack.sources, nll.cpu().numpy(), hits.cpu().numpy())
    state = session.state
    state.eval_loss = loss / weight
    best = state.best_loss is None or state.eval_loss < state.best_loss
    if best:
        state.best_loss, state.best_step, state.evaluations_without_better = state.eval_loss, state.step, 0
    else:
        state.evaluations_without_better += 1
    return Evaluated(
        state.step,
        state.eval_loss,
        right / graded,
        graded,
        best,
        source_loss=sources.losses(),
        source_accuracy=sources.accuracies(),
        source_tokens=dict(sources.tokens),
    )


class SourceSums:
    """What the held-out tokens of each source come to."""

    def __init__(self) -> None:
        self.tokens: Counter[int] = Counter()
        self._loss: Counter[int] = Counter()
        self._hits: Counter[int] = Counter()

    def add(self, sources: Array, nll: Array, hits: Array) -> None:
        """Take in one pack: of each graded token its source, -ln p, and whether it was the first choice."""
        for source in np.unique(sources).tolist():
            mine = sources == source
            self.tokens[source] += int(mine.sum())
            self._loss[source] += float(nll[mine].sum(dtype=np.float64))  # type: ignore[assignment]
            self._hits[source] += int(hits[mine].sum())

    def losses(self) -> dict[int, float]:
        """The mean -ln p of each source."""
        return {source: self._loss[source] / count for source, count in sorted(self.tokens.items())}

    def accuracies(self) -> dict[int, float]:
        """The share of first choices of each source."""
        return {source: self._hits[source] / count for source, count in sorted(self.tokens.items())}


def _diverged(session: Session, step: int, loss: float, norm: float, packs: list[Pack]) -> Diverged:
    rows = sorted({row for pack in packs for row in pack.rows})
    named = ", ".join(str(session.data.origins[row]) for row in rows[:ROWS_NAMED])
    more = f" and {len(rows) - ROWS_NAMED} more" if len(rows) > ROWS_NAMED else ""
    return Diverged(
        f"step {step + 1}: loss {loss}, gradient norm {norm}; the batch held {named}{more}",
        rule="a loss and a gradient are finite numbers; the weights were left as they were before this step",
        remedy=f"lower learning_rate (it was {session.schedule.rate(step):.3g}), or look at those rows",
    )
