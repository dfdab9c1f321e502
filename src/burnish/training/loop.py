"""The loop, in the open: a generator of events. Whoever drives it decides what is written and what is shown."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

from burnish.adapters.factors import frozen_factors
from burnish.checkpoint.background import Writer
from burnish.checkpoint.files import Checkpoint, prune, write_checkpoint
from burnish.data.plan import due
from burnish.errors import Diverged
from burnish.models.generate import generate
from burnish.parallel.runtime import computes_on_every_core, host_memory, resident_bytes
from burnish.recipe.choices import NonFinite
from burnish.training.directory import RunDirectory
from burnish.training.events import Audited, Event, Sampled, Saved, Skipped, Stepped, Stopped, Warned
from burnish.training.observe import kept_steps, observed
from burnish.training.session import Session
from burnish.training.step import Abandoned, evaluate, take_step
from burnish.training.watch import Watch

SAMPLE_TOKENS = 128
EVALUATIONS_PER_RUN = 10
MOST_SKIPPED = 8
"""So many batches in a row may be skipped before the weights, not the rows, are taken for the cause."""
ROOM_FOR_A_COPY = 0.9
"""The share of the host's memory that a save in the background may fill; past it, saving waits for the disk."""


def training_loop(session: Session, run: RunDirectory, *, interrupted: Callable[[], bool]) -> Iterator[Event]:
    """Train from `session.state.step` to the end of the plan, or until patience or the user says stop."""
    busy = computes_on_every_core(session.forward.device.type, processes=session.ranks.of_node)
    writer = Writer(run.checkpoints, paced=busy)
    try:
        # Asked of all ranks, so that all of them stop before the same pack.
        yield from _train(session, run, writer, lambda: session.ranks.any(interrupted()))
    finally:
        writer.close()


def _train(
    session: Session, run: RunDirectory, writer: Writer, interrupted: Callable[[], bool]
) -> Iterator[Event]:
    recipe, state, last = session.recipe, session.state, session.plan.num_steps
    eval_every = evaluation_interval(recipe.eval_steps, last)
    watch = Watch(line["loss"] for line in run.lines("metrics.jsonl") if line["kind"] == "train")
    while (state.step < last or state.owes_evaluation) and state.stopped_by is None:
        judged_best = False
        try:
            # A run that begins owes one, and so does one that was stopped within one.
            if not state.owes_evaluation:
                yield from _update(session, watch, interrupted)
            yield from _audited(session)
            if (written := writer.done()) is not None:
                yield Saved(*written)
            if state.owes_evaluation or due(state.step, eval_every, last):
                state.owes_evaluation = True
                yield from _judge(session, interrupted)
                state.owes_evaluation = False
                judged_best = state.step > 0 and state.step in kept_steps(session)
        except Abandoned:  # asked to stop within an update or an evaluation: nothing was moved
            state.stopped_by = "interrupted"
            yield from _save(session, run, writer, ends=True)
            break
        state.stopped_by = state.stopped_by or _why_stop(session, last=last, interrupted=interrupted())
        ends = state.stopped_by is not None
        is_due = bool(recipe.save_steps and state.step and state.step % recipe.save_steps == 0)
        if judged_best or ends or is_due:
            yield from _save(session, run, writer, ends=ends)
    yield Stopped(state.step, state.stopped_by or "finished")


def evaluation_interval(eval_steps: float | None, num_steps: int) -> int:
    """`eval_steps` in updates: as given, as a share of the run, or a tenth of it."""
    share = 1 / EVALUATIONS_PER_RUN if eval_steps is None else eval_steps
    return int(share) if share >= 1 else max(1, round(share * num_steps))


def _update(session: Session, watch: Watch, interrupted: Callable[[], bool]) -> Iterator[Event]:
    """The next update; under `on_nonfinite: skip_batch` one that is not finite moves nothing and is passed over."""
    state = session.state
    try:
        stepped = take_step(session, interrupted=interrupted)
    except Diverged as error:
        state.skipped_in_a_row += 1
        if session.recipe.on_nonfinite is not NonFinite.SKIP_BATCH or state.skipped_in_a_row >= MOST_SKIPPED:
            raise
        state.step += 1
        state.skipped += 1
        yield Skipped(state.step, error.saw)
        return
    state.skipped_in_a_row = 0
    yield stepped
    yield from _warned(watch, stepped)


def _warned(watch: Watch, stepped: Stepped) -> Iterator[Warned]:
    why = watch.see(stepped.loss)
    if why is not None:
        yield Warned(stepped.step, why)


def checkpoint_of(session: Session) -> Checkpoint:
    """What a checkpoint of this moment holds: the session's own tensors, not copies."""
    state = session.state
    resting = dataclasses.replace(
        state, stopped_by=None if state.stopped_by == "interrupted" else state.stopped_by
    )
    return Checkpoint(
        state.step,
        weights={**session.masters.parameters, **frozen_factors(session.model)},
        optimizer=session.optimizer.state(),
        state={
            **dataclasses.asdict(resting),
            "template_sha256": session.tokenizer.identity.template_sha256,
        },
    )


def _save(session: Session, run: RunDirectory, writer: Writer, *, ends: bool) -> Iterator[Saved]:
    """Begin a checkpoint, then let old ones go; the best, the newest and the one resumed from stay.

    It is written while training goes on, from a copy; at the end of a run, or where the host has no room for a copy,
    training waits for it.
    """
    if not run.writes and not session.masters.is_sharded:
        return
    if (before := writer.wait()) is not None:
        yield Saved(*before)
    state, made = session.state, checkpoint_of(session)
    if session.masters.is_sharded:  # every rank gathers with the others, now; the first writes
        run.flush()
        yield Saved(state.step, write_checkpoint(run.checkpoints, made, writes=run.writes))
        if run.writes:
            prune(run.checkpoints, keep=session.recipe.save_total_limit, protect=_protected(session))
        return
    copy = not ends and resident_bytes() + made.num_bytes < ROOM_FOR_A_COPY * host_memory()
    protected, limit = _protected(session), session.recipe.save_total_limit
    writer.begin(
        made,
        copy=copy,
        before=run.flush,
        after=lambda: prune(run.checkpoints, keep=limit, protect=protected),
    )
    if not copy and (written := writer.wait()) is not None:
        yield Saved(*written)


def _protected(session: Session) -> set[int]:
    """The steps whose checkpoints stay."""
    return {session.state.step, session.resumed_from, *kept_steps(session)}


def _audited(session: Session) -> Iterator[Event]:
    """What the audit of this process's first update found, once."""
    found = session.audit
    if found is not None and not session.audit_told:
        session.audit_told = True
        yield Audited(session.state.step, found.modules, found.experts, found.of_experts, str(found))


def _judge(session: Session, interrupted: Callable[[], bool]) -> Iterator[Event]:
    if session.held_out:
        yield evaluate(session, interrupted=interrupted)
    if session.recipe.sample_prompts:
        yield _sample(session)
    yield from observed(session)


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
