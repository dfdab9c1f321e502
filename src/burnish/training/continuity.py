"""What a resumed run takes over, and what it must have in common with the run it goes on with."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import orjson
from pydantic import ValidationError

from burnish.adapters.factors import load_factors
from burnish.checkpoint.files import Checkpoint, list_checkpoints, load_checkpoint, newest_good, place_of
from burnish.data.prepare import Prepared
from burnish.errors import UsageError
from burnish.models.identity import short
from burnish.recipe.schema import Recipe
from burnish.training.directory import RunDirectory
from burnish.training.session import Session, TrainState

LENGTHS = ("num_epochs", "max_steps")
_TEMPLATE_KEYS = frozenset({"chat_template", "chat_template_kwargs", "reasoning"})


def recipe_of(environment: Mapping[str, Any], otherwise: Recipe) -> Recipe:
    """The recipe that a run began with, kept apart from `resolved.yaml`, which anyone may edit."""
    try:
        return Recipe.model_validate(environment["recipe"])
    except (KeyError, ValidationError):  # written by an older burnish
        return otherwise


def longer(saved: Recipe, asked: Recipe) -> set[str]:
    """The keys by which a run was made longer: the one difference that needs no permission."""
    both = {key: (getattr(saved, key), getattr(asked, key)) for key in LENGTHS}
    return {key for key, (was, now) in both.items() if was is not None and now is not None and now > was}


def restore(
    session: Session, run: RunDirectory, *, below: int | None = None, moments: bool = True
) -> list[str]:
    """Take the newest whole checkpoint over (of a step before `below`); what is to be said of it.

    Without `below` the run's logs are cut to it. The start again where there is no checkpoint yet. Without `moments`
    the optimiser stays as it is: no more updates will follow.
    """
    checkpoint, complaints = _newest(session, run, below)
    if below is None:
        run.rewind(-1 if checkpoint is None else checkpoint.step)
    if checkpoint is None:
        return [*complaints, "no checkpoint yet: starting again from step 0"]
    fields = {field.name for field in dataclasses.fields(TrainState)}
    known = {key: value for key, value in checkpoint.state.items() if key in fields}
    state = TrainState(
        **{"owes_evaluation": False, **known}
    )  # where an older burnish wrote it, none was owed
    load_factors(session.model, checkpoint.weights)
    session.masters.load(checkpoint.weights)
    if moments:
        session.optimizer.load(checkpoint.optimizer)
    session.state, session.resumed_from = state, checkpoint.step
    notes = [*complaints, f"resuming after step {checkpoint.step}"]
    if state.stopped_by == "finished" and state.step < session.plan.num_steps:
        state.stopped_by = None
        notes.append(
            f"the run was over after {state.step} updates and has {session.plan.num_steps} now: the learning rate "
            "goes on where the longer schedule is"
        )
    return notes


def _newest(session: Session, run: RunDirectory, below: int | None) -> tuple[Checkpoint | None, list[str]]:
    """The checkpoint that the first rank finds, read by each rank, and what was wrong with later ones."""
    ranks, mapped = session.ranks, session.masters.is_sharded
    if ranks.size == 1:
        return newest_good(run.checkpoints, below=below)
    found, complaints = (
        newest_good(run.checkpoints, below=below, mapped=mapped) if ranks.is_first else (None, [])
    )
    step = ranks.tell(None if found is None else found.step)
    if step is None or ranks.is_first:
        return found, complaints
    return load_checkpoint(place_of(run.checkpoints, step), mapped=mapped), []


def refuse_other_template(run: RunDirectory, now: str | None, *, allow: Collection[str]) -> None:
    """UsageError where the run's plan or its newest checkpoint was made with another chat template."""
    if _TEMPLATE_KEYS & set(allow):
        return
    for place, before in _trained_with(run):
        if before != now:
            raise UsageError(
                f"chat_template: {short(now)}, was {short(before)} in {place}",
                rule="a resumed run is the same run: its chat template is the one it was started with",
                remedy="restore the template and its variables, or say --allow-change=chat_template",
            )


def _trained_with(run: RunDirectory) -> Iterator[tuple[str, str | None]]:
    """Where the run says which template it was trained with, and the template's hash."""
    plan = run.path / "plan.json"
    states = [path / "state.json" for path in list_checkpoints(run.checkpoints)[-1:]]
    for path in [plan, *states]:
        if path.is_file():  # no plan: killed while the data was read, and nothing was trained yet
            try:
                said = orjson.loads(path.read_bytes())
            except ValueError:  # a damaged checkpoint, which is passed over when it is read
                continue
            if "template_sha256" in said:
                yield str(path), said["template_sha256"]


def refuse_other_data(run: RunDirectory, data: Prepared, *, allow: Collection[str]) -> None:
    """UsageError where the run began with other rows, or with rows encoded otherwise."""
    if {"data", *_TEMPLATE_KEYS} & set(allow) or not (run.path / "plan.json").exists():
        return
    before, now = run.read("plan.json"), describe_data(data)
    if before.get("data") != now["data"]:
        what = {key: (before.get(key), value) for key, value in now.items() if before.get(key) != value}
        listed = "; ".join(f"{key}: {value}, was {was}" for key, (was, value) in what.items())
        raise UsageError(
            f"{run.path}: other training data than it began with: {listed}",
            rule="a resumed run is the same run: the same rows, encoded the same",
            remedy="restore the data, or say --allow-change=data",
        )


def describe_data(data: Prepared) -> dict[str, Any]:
    """The training data in numbers, and its fingerprint, as plan.json has them."""
    train = data.train
    return {
        "data": data.fingerprint(),
        "rows": len(train),
        "sequences": train.num_views,
        "held_out_rows": len(data.held_out),
        "tokens_per_epoch": train.num_tokens,
        "graded_tokens_per_epoch": train.num_graded,
        "longest": int(train.lengths.max()),
    }
