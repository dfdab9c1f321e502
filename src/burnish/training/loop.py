"""The loop, in the open: a generator of events. Whoever drives it decides what is written and what is shown."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

from burnish.adapters.factors import frozen_factors
from burnish.checkpoint.files import prune, save_checkpoint
from burnish.data.plan import due
from burnish.models.generate import generate
from burnish.training.directory import RunDirectory
from burnish.training.events import Audited, Event, Sampled, Saved, Stopped
from burnish.training.session import Session
from burnish.training.step import evaluate, take_step

SAMPLE_TOKENS = 128
EVALUATIONS_PER_RUN = 10


def training_loop(session: Session, run: RunDirectory, *, interrupted: Callable[[], bool]) -> Iterator[Event]:
    """Train from `session.state.step` to the end of the plan, or until patience or the user says stop."""
    recipe, state, last = session.recipe, session.state, session.plan.num_steps
    eval_every = evaluation_interval(recipe.eval_steps, last)
    if state.step == 0:
        yield from _judge(session)
    while state.step < last and state.stopped_by is None:
        yield take_step(session)
        yield from _audited(session)
        judged_best = False
        if due(state.step, eval_every, last):
            yield from _judge(session)
            judged_best = bool(session.held_out) and state.best_step == state.step
        state.stopped_by = _why_stop(session, last=last, interrupted=interrupted())
        ends = state.stopped_by is not None
        if judged_best or ends or (recipe.save_steps is not None and state.step % recipe.save_steps == 0):
            yield save(session, run)
    yield Stopped(state.step, state.stopped_by or "finished")


def evaluation_interval(eval_steps: float | None, num_steps: int) -> int:
    """`eval_steps` in updates: as given, as a share of the run, or a tenth of it."""
    share = 1 / EVALUATIONS_PER_RUN if eval_steps is None else eval_steps
    return int(share) if share >= 1 else max(1, round(share * num_steps))


def save(session: Session, run: RunDirectory) -> Saved:
    """Write a checkpoint, then let old ones go; the best and the newest stay."""
    state = session.state
    resting = dataclasses.replace(
        state, stopped_by=None if state.stopped_by == "interrupted" else state.stopped_by
    )
    path = save_checkpoint(
        run.checkpoints,
        state.step,
        weights={**session.masters.parameters, **frozen_factors(session.model)},
        optimizer=session.optimizer.state(),
        state={
            **dataclasses.asdict(resting),
            "template_sha256": session.tokenizer.identity.template_sha256,
        },
    )
    prune(run.checkpoints, keep=session.recipe.save_total_limit, protect={state.step, state.best_step})
    return Saved(state.step, path)


def _audited(session: Session) -> Iterator[Event]:
    """What the audit of this process's first update found, once."""
    found = session.audit
    if found is not None and not session.audit_told:
        session.audit_told = True
        yield Audited(session.state.step, found.modules, found.experts, found.of_experts, str(found))


def _judge(session: Session) -> Iterator[Event]:
    if session.held_out:
        yield evaluate(session)
    if session.recipe.sample_prompts:
        yield _sample(session)


def _sample(session: Session) -> Sampled:
    """Greedy answers to the recipe's sample prompts."""
    tokenizer = session.tokenizer
    asked = session.recipe.sample_prompts
    answers = generate(
        session.model,
        [tokenizer.prompt_ids(prompt) for prompt in asked],
        stop_ids=tokenizer.stop_ids,
        max_new_tokens=SAMPLE_TOKENS,
    )
    return Sampled(
        session.state.step,
        tuple(
            {
                "prompt": prompt,
                "text": tokenizer.decode_answer(answer.completion_ids),
                "finish_reason": answer.finish_reason,
            }
            for prompt, answer in zip(asked, answers, strict=True)
        ),
    )


def _why_stop(session: Session, *, last: int, interrupted: bool) -> str | None:
    patience = session.recipe.early_stopping_patience
    if session.state.step == last:
        return "finished"
    if patience is not None and session.state.evaluations_without_better >= patience:
        return "early_stopping"
    return "interrupted" if interrupted else None
