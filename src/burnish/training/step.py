"""One update, and one evaluation: forward, one division, backward, clip, move."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor

from burnish.adapters.audit import audit, watching_experts
from burnish.data.pack import Pack, total_weight
from burnish.errors import DataError, Diverged
from burnish.models.forward import pack_attention
from burnish.models.generate import evaluating
from burnish.parallel.ranks import Ranks
from burnish.parallel.runtime import peak_memory_bytes
from burnish.training.events import Evaluated, Stepped
from burnish.training.session import Session
from burnish.training.shares import Share, num_turns, shares_of, stream

ROWS_NAMED = 8
WEIGHT_OFF = 1e-5
"""How far, relative, the weights of all ranks may be from the batch's: sums of the same numbers in another order."""

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
    denominator = total_weight(packs)
    first = session.audit is None
    with (
        pack_attention(session.model, packed=session.forward.packed),
        watching_experts(session.model) if first else nullcontext() as owed,
    ):
        try:
            summed, source_sums = _backward(session, packs, interrupted)
        except Abandoned:
            session.masters.zero_grad()
            raise
    if session.ranks.size > 1:
        session.masters.gather(session.ranks.sum)
    pull = None if session.anchor is None else session.ranks.total(session.anchor.taken()) / denominator
    norm = session.masters.clip(session.recipe.max_grad_norm, over=denominator)
    # The one wait for the device in a step: what is logged and what says whether to move.
    total, length, *by_source = torch.stack([summed, norm.to(summed.device), *source_sums.values()]).tolist()
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
    """Sum the gradient of sum(weight * nll) over all packs; that sum, and the plain sum of -ln p of each source.

    Of several ranks each does its own packs, and has the gradient of these; the sums are those of all.
    """
    sums: list[Tensor] = []
    by_source: dict[int, Tensor] = {}
    weight = 0.0  # that of an idle share is zero
    for share in _in_turn(packs, session.ranks, interrupted, asks_first=False):
        # Dropout draws from a stream keyed by step and pack: a resumed run draws the same, on any number of ranks.
        torch.manual_seed(stream(session.recipe.seed, session.state.step, share))
        part, nll, objective = session.objective(share.pack)
        objective.backward()  # type: ignore[no-untyped-call]
        sums.append(part.detach())
        weight += share.pack.weight
        for source in np.unique(share.pack.sources).tolist() if share.counts else ():
            mine = torch.from_numpy(share.pack.sources == source).to(nll.device)
            by_source[source] = by_source.get(source, torch.zeros_like(sums[0])) + (nll * mine).sum()
    if session.ranks.size > 1:
        return _of_all_ranks(session, packs, weight, sums, by_source)
    return torch.stack(sums).sum(), dict(sorted(by_source.items()))


def _in_turn(
    packs: Sequence[Pack], ranks: Ranks, interrupted: Callable[[], bool], *, asks_first: bool
) -> Iterator[Share]:
    """This rank's share, pack by pack; Abandoned between two once `interrupted` says so.

    A rank that has fewer packs asks as often as the others, so that all of them give up at the same turn.
    """
    shares = shares_of(packs, ranks)
    for turn in range(num_turns(packs, ranks)):
        if (turn or asks_first) and interrupted():
            raise Abandoned
        if turn < len(shares):
            yield shares[turn]


def _of_all_ranks(
    session: Session, packs: list[Pack], weight: float, sums: list[Tensor], by_source: dict[int, Tensor]
) -> tuple[Tensor, dict[int, Tensor]]:
    """One all-reduce of the loss's two numbers, and of each source's: sum(weight * nll) and sum(weight)."""
    zero = torch.zeros((), device=session.forward.device)
    sources = np.unique(np.concatenate([pack.sources for pack in packs])).tolist()
    parts = [sum(sums, zero), zero + weight, *(by_source.get(source, zero) for source in sources)]
    summed, counted, *of_sources = session.ranks.sum(torch.stack(parts).double()).float()
    expected = total_weight(packs)
    if abs(float(counted) - expected) > WEIGHT_OFF * expected:
        raise DataError(
            f"step {session.state.step + 1}: the ranks' packs weigh {float(counted)}, and the batch {expected}",
            rule="all ranks plan the same batch from the same rows, and share it out",
            remedy="give every node the same data files, and the same version of burnish",
        )
    return summed, dict(zip(sources, of_sources, strict=True))


def evaluate(session: Session, *, interrupted: Callable[[], bool] = lambda: False) -> Evaluated:
    """Held-out loss, one division over the whole set, and the share of graded tokens that are the first choice.

    Given up between two packs (`Abandoned`) once `interrupted` says so.
    """
    loss = 0.0
    sources = SourceSums()
    with evaluating(session.model), pack_attention(session.model, packed=session.forward.packed):
        for share in _in_turn(session.held_out, session.ranks, interrupted, asks_first=True):
            summed, nll, hits = session.forward.judge(share.pack)
            if share.counts:
                loss += float(summed)
                sources.add(share.pack.sources, nll.cpu().numpy(), hits.cpu().numpy())
    weight = sum(pack.weight for pack in session.held_out)
    loss = sources.gather(session.held_out, session.ranks.sum, loss)
    right, graded = sources.totals()
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

    def gather(self, packs: Sequence[Pack], total: Callable[[Tensor], Tensor], loss: float) -> float:
        """Add what the other ranks found of these packs; `loss` of all of them together."""
        known = np.unique(np.concatenate([pack.sources for pack in packs])).tolist()
        mine = [loss]
        for source in known:
            mine += [self.tokens[source], self._loss[source], self._hits[source]]
        loss, *found = total(torch.tensor(mine, dtype=torch.float64)).tolist()
        for source, tokens, nll, hits in zip(known, found[::3], found[1::3], found[2::3], strict=True):
            self.tokens[source], self._loss[source], self._hits[source] = int(tokens), nll, int(hits)
        return loss

    def totals(self) -> tuple[int, int]:
        """First choices, and graded tokens, of all sources."""
        return self._hits.total(), self.tokens.total()

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
