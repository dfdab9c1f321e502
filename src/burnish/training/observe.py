"""What a run is asked beside its held-out loss, at step 0 and at each evaluation: sharpening, and forgetting.

`open_observers` asks the base, while the model still is the base: after the oracle, before a checkpoint is taken over.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from burnish.data.replay import share_at
from burnish.parallel.ranks import Ranks
from burnish.recipe.choices import Act
from burnish.training.directory import RunDirectory
from burnish.training.events import Drifted, Event, Looked, Warned
from burnish.training.forgetting import MOST_REPLAY, Guard, Measure, Point, asked, choose, point_of, raised
from burnish.training.probes import Probed, read_probe
from burnish.training.session import Session
from burnish.training.sharpening import Sharpening, choose_rows

PROBES = "probes.json"
NAMED_ROWS = 5


def open_observers(session: Session, run: RunDirectory, *, keep: bool = True) -> list[str]:
    """Ask the base what training will be measured against; says what is not looked at.

    `keep` writes down what must be the same after a resume. Of several ranks each asks, and the first writes.
    """
    recipe, notes = session.recipe, []
    if recipe.sharpening_rows and len(session.data.held_out) and session.ranks.holds_part:
        notes.append(
            f"sharpening_rows: not looked at, for it takes several ranks to read a row ({session.ranks.mesh})"
        )
    elif recipe.sharpening_rows and len(session.data.held_out):
        rows = choose_rows(session.data.held_out, recipe.sharpening_rows)
        if rows:
            place_of = session.data.origins
            session.sharpening = Sharpening(
                rows, session.tokenizer, session.packs, lambda row: str(place_of[row])
            )
            session.sharpening.ask_base(session.forward)
    if recipe.forgetting is not None and recipe.forgetting.probes:
        session.guard = _guard(session, run, keep=keep)
    return notes


def observed(session: Session) -> Iterator[Event]:
    """Look and measure at this step; the guard acts where it must."""
    state = session.state
    if session.sharpening is not None:
        line = session.sharpening.look(session.forward, step=state.step, tokens=state.tokens)
        yield Looked(state.step, line)
        if state.step == 0:
            yield from _unknown(session.sharpening)
    if session.guard is not None:
        yield from _guarded(session, session.guard)


def agreed(measures: Sequence[Measure], ranks: Ranks) -> list[Measure]:
    """The first rank's numbers: ranks that act on their own last bits would act apart."""
    said = [ranks.of_first([each.loss, each.base_loss, each.drift, each.low, each.high]) for each in measures]
    return [
        Measure(each.probe, loss, base_loss, drift, low, high, each.budget)
        for each, (loss, base_loss, drift, low, high) in zip(measures, said, strict=True)
    ]


def kept_steps(session: Session) -> set[int]:
    """The steps whose checkpoints may yet be the run's result: they are saved, and stay."""
    best = {session.state.best_step} if session.held_out else set()
    leader = leading(session)
    return best if leader is None else best | {leader.step}


def chosen_step(session: Session) -> int:
    """The step whose weights are the run's: the guard's choice, the best by held-out loss, or the last."""
    state, recipe = session.state, session.recipe
    if leader := leading(session):
        return leader.step
    return state.step if recipe.early_stopping_patience is None else state.best_step


def leading(session: Session) -> Point | None:
    """Under `act: best`, the checkpoint that leads so far."""
    guard = session.guard
    if guard is None or guard.settings.act != Act.BEST:
        return None
    return choose(Point(*point) for point in session.state.points)


def _guard(session: Session, run: RunDirectory, *, keep: bool) -> Guard:
    settings = session.recipe.forgetting
    assert settings is not None
    # Read by the first rank, which may have written it before another looks.
    said: dict[str, Any] = session.ranks.by_first(
        lambda: run.read(PROBES) if (run.path / PROBES).exists() else {}
    )
    known = said.get("probes", []) if said.get("asked") == asked(settings) else []
    probes = [
        Probed.of({**each, "budget": probe.budget or settings.budget})
        for each, probe in zip(known, settings.probes, strict=False)
    ] or [
        read_probe(probe, settings.budget, session.tokenizer, session.model, seed=session.recipe.seed)
        for probe in settings.probes
    ]
    guard = Guard(settings, probes, session.packs, base=[each["base"] for each in known])
    guard.ask_base(session.forward)
    if keep and not known:
        run.write(PROBES, guard.as_dict())
    return guard


def _unknown(sharpening: Sharpening) -> Iterator[Warned]:
    rows = sharpening.unknown()
    if not rows:
        return
    named = "; ".join(f"{row.place} ({''.join(row.tokens)!r})" for row in rows[:NAMED_ROWS])
    more = f"; and {len(rows) - NAMED_ROWS} more" if len(rows) > NAMED_ROWS else ""
    yield Warned(
        0,
        f"{len(rows)} of {sharpening.num_rows} held-out rows say what the base gives less than chance: {named}{more}. "
        "Fine-tuning sharpens what a base knows; asked to teach facts, it mostly teaches to make them up. Put such "
        "facts into the prompt, or train on text that holds them first (stages)",
    )


def _guarded(session: Session, guard: Guard) -> Iterator[Event]:
    state = session.state
    measures = agreed(guard.measure(session.forward), session.ranks)
    task = state.eval_loss if session.held_out else state.train_loss
    if guard.settings.act == Act.BEST and state.step > 0 and state.eval_loss is not None:
        state.points.append(list(point_of(state.step, state.eval_loss, measures)))
    if state.step == 0:
        yield from _strange(session, measures)
    past = [measure for measure in measures if measure.breached]
    act, detail = _act(session, guard, past) if past else (None, None)
    for measure in measures:
        mine = measure.breached
        yield Drifted(
            state.step,
            **asdict(measure),
            breached=mine,
            task_loss=task,
            act=act if mine else None,
            detail=detail if mine else None,
        )
    if past:
        yield Warned(state.step, f"forgetting: {'; '.join(map(str, past))}. {detail}")


def _strange(session: Session, measures: list[Measure]) -> Iterator[Warned]:
    """Probes that the base finds no likelier than chance: what it does not know it can't forget."""
    chance = math.log(len(session.tokenizer))
    strange = [
        f"{measure.probe} ({measure.base_loss:.2f})" for measure in measures if measure.base_loss >= chance
    ]
    if strange:
        yield Warned(
            0,
            f"forgetting: the base gives {', '.join(strange)} no more than chance ({chance:.2f} nats a token): drift "
            "there says nothing of what it knows. Name a probe of the kind of text that it was trained on",
        )


def _act(session: Session, guard: Guard, past: list[Measure]) -> tuple[str, str]:
    """Do what the recipe says, and say it."""
    state, left = session.state, session.state.step < session.plan.num_steps
    match guard.settings.act:
        case Act.REPLAY if left:
            return _raise_replay(session)
        case Act.STOP if left:
            state.stopped_by = "forgetting"
            return Act.STOP.value, f"training stops after step {state.step}"
        case Act.BEST:
            leader = leading(session)
            assert leader is not None
            return Act.BEST.value, (
                f"step {leader.step} leads: held-out loss {leader.task_loss:.4f}, {leader.drift:.2f} of the budget"
                f"{', which no step was within' if leader.breached else ''}"
            )
        case Act.WARN:
            return Act.WARN.value, "a lower learning_rate, fewer epochs, LoRA or replay forget less"
        case _:
            return Act.WARN.value, "this was the last update: nothing is left to be changed"


def _raise_replay(session: Session) -> tuple[str, str]:
    state = session.state
    number, _ = session.plan.stage_of(state.step)
    planned = session.stages[number].recipe.replay
    if planned is None:
        return (
            Act.WARN.value,
            f"stage {session.stages[number].name} has no replay whose share could be raised",
        )
    share = share_at(state.replay_raises, state.step) or planned.share
    if share >= MOST_REPLAY:
        return (
            Act.WARN.value,
            f"replay is {share:.0%} of the graded tokens already, and is not raised further",
        )
    state.replay_raises.append([state.step, raised(share)])
    session.ahead.forget()
    return Act.REPLAY.value, f"replay is raised from {share:.1%} to {raised(share):.1%} of the graded tokens"
