"""One update, and one evaluation: forward, one division, backward, clip, move."""

from __future__ import annotations

import time
from collections import defaultdict

import torch
from torch import Tensor

from burnish.data.pack import Pack, total_weight
from burnish.errors import Diverged
from burnish.losses.cross_entropy import token_nll, weighted_sum
from burnish.models.forward import graded_logits, graded_nll, pack_attention
from burnish.models.generate import evaluating
from burnish.parallel.runtime import peak_memory_bytes
from burnish.training.events import Evaluated, Stepped
from burnish.training.session import Session

ROWS_NAMED = 8


def take_step(session: Session) -> Stepped:
    """Make the next update of the plan; Diverged if its loss or gradient is not finite (nothing is moved then)."""
    started = time.perf_counter()
    step = session.state.step
    rows = session.plan.rows_of(step)
    packs = session.packs([example for row in rows for example in session.data.train[row]])
    # Dropout draws from a stream keyed by the step, so that a resumed run draws the same.
    torch.manual_seed(session.recipe.seed * 1_000_003 + step)
    with pack_attention(session.model, packed=session.why_unpacked is None):
        loss, source_loss = _backward(session, packs)
    norm = session.masters.clip(session.recipe.max_grad_norm)
    if not (torch.isfinite(loss) and torch.isfinite(norm)):
        session.masters.zero_grad()
        raise _diverged(session, step, float(loss), float(norm), packs)
    rate = session.schedule.rate(step)
    session.optimizer.step(rate)
    session.masters.refresh()
    session.masters.zero_grad()
    state = session.state
    state.step += 1
    state.tokens += sum(len(pack) for pack in packs)
    state.graded_tokens += sum(len(pack.targets) for pack in packs)
    state.train_loss = float(loss)
    return Stepped(
        step=state.step,
        num_steps=session.plan.num_steps,
        epoch=session.plan.epoch_of(state.step),
        loss=float(loss),
        learning_rate=rate,
        grad_norm=float(norm),
        graded_tokens=sum(len(pack.targets) for pack in packs),
        tokens=sum(len(pack) for pack in packs),
        seconds=time.perf_counter() - started,
        memory_bytes=peak_memory_bytes(),
        source_loss=source_loss,
    )


def _backward(session: Session, packs: list[Pack]) -> tuple[Tensor, dict[int, float]]:
    """Sum the gradient of sum(weight * nll) / sum(weight) over all packs; that mean, and each source's own."""
    denominator = total_weight(packs)
    total = torch.zeros((), device=session.model.device)
    sums: dict[int, Tensor] = {}
    counts: dict[int, int] = defaultdict(int)
    for pack in packs:
        nll = graded_nll(session.forward, pack, packed=session.why_unpacked is None)
        weights = torch.from_numpy(pack.weights).to(nll.device)
        part = weighted_sum(nll, weights) / denominator
        part.backward()  # type: ignore[no-untyped-call]
        total += part.detach()
        sources = torch.from_numpy(pack.sources).to(nll.device)
        for source in set(pack.sources.tolist()):
            mine = nll.detach()[sources == source]
            sums[source] = sums.get(source, torch.zeros_like(total)) + mine.sum()
            counts[source] += len(mine)
    return total, {source: float(value) / counts[source] for source, value in sorted(sums.items())}


def evaluate(session: Session) -> Evaluated:
    """Held-out loss, one division over the whole set, and the share of graded tokens that are the first choice."""
    loss = weight = 0.0
    right = graded = 0
    with evaluating(session.model), pack_attention(session.model, packed=session.why_unpacked is None):
        for pack in session.held_out:
            logits = graded_logits(session.forward, pack, packed=session.why_unpacked is None)
            targets = torch.from_numpy(pack.targets).to(logits.device)
            weights = torch.from_numpy(pack.weights).to(logits.device)
            nll = token_nll(logits, targets)
            loss += float(weighted_sum(nll, weights))
            weight += pack.weight
            right += int((logits.argmax(-1) == targets).sum())
            graded += len(targets)
    state = session.state
    state.eval_loss = loss / weight
    best = state.best_loss is None or state.eval_loss < state.best_loss
    if best:
        state.best_loss, state.best_step, state.evaluations_without_better = state.eval_loss, state.step, 0
    else:
        state.evaluations_without_better += 1
    return Evaluated(state.step, state.eval_loss, right / graded, graded, best)


def _diverged(session: Session, step: int, loss: float, norm: float, packs: list[Pack]) -> Diverged:
    rows = sorted({row for pack in packs for row in pack.rows})
    named = ", ".join(str(session.data.origins[row]) for row in rows[:ROWS_NAMED])
    more = f" and {len(rows) - ROWS_NAMED} more" if len(rows) > ROWS_NAMED else ""
    return Diverged(
        f"step {step + 1}: loss {loss}, gradient norm {norm}; the batch held {named}{more}",
        rule="a loss and a gradient are finite numbers; the weights were left as they were before this step",
        remedy=f"lower learning_rate (it was {session.schedule.rate(step):.3g}), or look at those rows",
    )
