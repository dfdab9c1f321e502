"""A run from recipe to finished model: prepare, open, loop, export. This page is its table of contents."""

from __future__ import annotations

import dataclasses
import datetime
import platform
import re
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel
from transformers.utils import is_bitsandbytes_available

from burnish.adapters.save import has_adapter, has_bottleneck, merged, save_adapter
from burnish.checkpoint.files import load_checkpoint, place_of, sweep
from burnish.checkpoint.space import require_room
from burnish.errors import UsageError
from burnish.kernels.library import why_none
from burnish.models.load import count_parameters, save_model
from burnish.models.rope import write_record
from burnish.parallel.launch import launched
from burnish.parallel.ranks import ALONE, Ranks
from burnish.parallel.runtime import prepare_process
from burnish.recipe.choices import DType
from burnish.recipe.describe import resolved_yaml
from burnish.recipe.drift import refuse_drift
from burnish.recipe.load import LoadedRecipe, fit_to_size, load_recipe
from burnish.recipe.methods import METHODS
from burnish.recipe.redact import refuse_secrets
from burnish.recipe.schema import Recipe
from burnish.training.continuity import (
    describe_data,
    longer,
    recipe_of,
    refuse_other_data,
    refuse_other_template,
    restore,
)
from burnish.training.directory import RunDirectory, already_a_run, create_run, open_run
from burnish.training.events import Encoding, Event, Ready
from burnish.training.exhaustion import memory_errors
from burnish.training.forecast import MOMENTS
from burnish.training.interrupt import interruptible
from burnish.training.launching import all_ranks, begun_before, forget, remember, require_shared
from burnish.training.loop import training_loop
from burnish.training.merge import as_json, merge_quantized
from burnish.training.observe import chosen_step, open_observers
from burnish.training.oracle import settle
from burnish.training.reckoning import Reckoning
from burnish.training.record import Record
from burnish.training.session import Session, open_session
from burnish.training.stages import Readied, describe_all, ready

Show = Callable[[Event], None]


@dataclass(frozen=True, slots=True)
class RunResult:
    """What a run came to; `final` is a transformers directory, complete.

    `merge` says how far it is from the model that was trained, where the base was in 4 bits (`training.merge.Drift`);
    `reckoning` what it held and took, beside what was expected (`training.reckoning`); `final_step` is the step whose
    weights `final` holds.
    """

    run: Path
    final: Path
    steps: int
    train_loss: float | None
    eval_loss: float | None
    best_eval_loss: float | None
    graded_tokens: int
    rows: dict[str, Any]
    stopped_by: str
    sources: list[dict[str, Any]]
    merge: list[dict[str, Any]] | None = None
    reckoning: dict[str, Any] | None = None
    final_step: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """The result as `--json` prints it."""
        return {
            key: str(value) if isinstance(value, Path) else value
            for key, value in dataclasses.asdict(self).items()
        }


def train(loaded: LoadedRecipe, *, from_scratch: bool = False, show: Show = lambda event: None) -> RunResult:
    """Train by a recipe in a new run directory; BurnishError says what is wrong with recipe, data or model.

    `from_scratch` starts a model that has a config and no weights from random ones: pre-training.
    """
    settings = prepare_process()
    loaded = fit_to_size(loaded, count_parameters(loaded.recipe.model))
    recipe, launch = loaded.recipe, launched()
    with all_ranks(recipe) as ranks, ExitStack() as lock:

        def begin() -> tuple[str, bool]:
            before = begun_before(recipe, launch)
            if before is None:
                run = create_run(recipe.output_dir, recipe.run_name or default_name(recipe))
                remember(recipe, launch, run.path)
            else:
                run = RunDirectory(before)
            lock.enter_context(run.locked())
            begun = before is not None and (before / "resolved.yaml").is_file()
            if not begun:
                _write_start(run, loaded, settings, from_scratch=from_scratch)
            return str(run.path), begun

        path, begun = ranks.by_first(begin)
        require_shared(Path(path), ranks)
        result = _train_in(
            RunDirectory(Path(path), ranks.is_first), recipe, show, ranks=ranks, resuming=begun
        )
        if ranks.is_first:
            forget(recipe, launch)
        return result


def _write_start(
    run: RunDirectory, loaded: LoadedRecipe, settings: Mapping[str, Any], *, from_scratch: bool
) -> None:
    """What a run directory holds before its rows are read."""
    refuse_secrets(loaded)
    if (run.path / "resolved.yaml").exists():  # another process was quicker between the look and the lock
        raise already_a_run(run.path)
    if loaded.path is not None:
        run.replace("recipe.yaml", loaded.path.read_bytes())
    # A template that prints a date prints that of the first day, whenever the run is gone on with.
    today = datetime.date.today().isoformat()
    run.write(
        "environment.json",
        {
            **environment(settings),
            "from_scratch": from_scratch,
            "date": today,
            "recipe": loaded.recipe.model_dump(mode="json"),
        },
    )
    # Last: a directory without it is no run, and one with it can be gone on with.
    run.replace("resolved.yaml", resolved_yaml(loaded).encode())


def resume(
    path: str | Path,
    overrides: Sequence[str] = (),
    *,
    allow_change: Collection[str] = (),
    show: Show = lambda event: None,
) -> RunResult:
    """Go on with an interrupted run from its newest whole checkpoint; a finished run stays finished.

    `overrides` (key=value) change the run's recipe, and only where `allow_change` names the key; `data` there allows
    other rows than the run began with. A larger `num_epochs` or `max_steps` needs no permission.
    """
    prepare_process()
    path = open_run(path).path
    asked = load_recipe(path / "resolved.yaml", overrides)
    with all_ranks(asked.recipe) as ranks, ExitStack() as lock:
        run = RunDirectory(path, ranks.is_first)

        def go_on() -> None:
            lock.enter_context(run.locked())
            began = run.read("environment.json")
            saved = recipe_of(began, asked.recipe)
            if refuse_drift(saved, asked.recipe, allow={*allow_change, *longer(saved, asked.recipe)}):
                run.replace("resolved.yaml", resolved_yaml(asked).encode())
                run.write("environment.json", {**began, "recipe": asked.recipe.model_dump(mode="json")})

        ranks.by_first(go_on)
        return _train_in(run, asked.recipe, show, ranks=ranks, resuming=True, allow=allow_change)


def prepare(recipe: Recipe, *, from_scratch: bool = False) -> Session:
    """All of a run before its first step: rows read, encoded and proved, model loaded, updates planned."""
    readied = ready(recipe)
    for certified in readied.certified:
        certified.certificate.require()
    return open_readied(recipe, readied, from_scratch=from_scratch)


def open_readied(
    recipe: Recipe, readied: Readied, *, from_scratch: bool, ranks: Ranks = ALONE, on_host: bool = False
) -> Session:
    """The session of a recipe whose rows are certified."""
    return open_session(
        recipe,
        readied.tokenizer,
        readied.data,
        stages=readied.stages,
        from_scratch=from_scratch,
        ranks=ranks,
        on_host=on_host,
    )


def _train_in(
    run: RunDirectory,
    recipe: Recipe,
    show: Show,
    *,
    ranks: Ranks,
    resuming: bool = False,
    allow: Collection[str] = (),
) -> RunResult:
    with memory_errors(recipe):
        settings = run.read("environment.json")
        date = datetime.date.fromisoformat(settings["date"]) if "date" in settings else None
        with ranks.one_before_others("rows"):
            readied = ready(recipe, date=date, progress=lambda done, total: show(Encoding(done, total)))
        _keep_certificates(run, readied)
        if resuming:
            refuse_other_template(run, readied.tokenizer.identity.template_sha256, allow=allow)
            refuse_other_data(run, readied.data, allow=allow)
        session = open_readied(recipe, readied, from_scratch=settings["from_scratch"], ranks=ranks)
        # Asked of a resumed run too, of the weights and rows that it began with: what the oracle switched off then is
        # switched off again, and the first pack goes the way that it went.
        found = settle(session)
        unseen = open_observers(session, run)
        if run.writes:
            sweep(run.checkpoints)
        notes = restore(session, run) if resuming else [f"oracle: {found}"]
        if run.writes:
            _require_room(session, run)
            session.data.ledger.write(run.path / "ledger.jsonl")
        notes += [str(ranks.mesh), *unseen] if ranks.size > 1 else []
        notes += [
            f"nothing changed since {certified.path} was made: no row is rendered or tokenised again"
            for certified in readied.certified
            if certified.reused
        ]
        run.write("plan.json", describe_plan(session))
        trackers = [tracker.value for tracker in recipe.report_to if run.writes]
        record = Record(run, trackers, settings=recipe.model_dump(mode="json"))
        reckoning = Reckoning(session)
        try:
            for event in _events(session, run, notes):
                reckoning.watch(event)
                record.write(event)
                show(event)
        finally:
            record.close()
        whole = session if not session.masters.is_sharded else None
        if whole is None and run.writes and session.state.stopped_by != "interrupted":
            whole = _gathered(session, run, readied, from_scratch=settings["from_scratch"])
        return _finish(whole or session, run, reckoning)


def _gathered(session: Session, run: RunDirectory, readied: Readied, *, from_scratch: bool) -> Session:
    """The session of one process, in the host's memory, as which a run with sharded weights ends."""
    whole = open_readied(session.recipe, readied, from_scratch=from_scratch, on_host=True)
    restore(whole, run, below=session.state.step + 1, moments=False)  # the logs are as they should be
    whole.state = session.state
    return whole


def _keep_certificates(run: RunDirectory, readied: Readied) -> None:
    """The last stage's is the run's certificate.json; a run in stages has one for each beside it."""
    for number, certified in enumerate(readied.certified, start=1):
        names = [f"certificate-{number}.json"] if len(readied.certified) > 1 else []
        for name in [*names, "certificate.json"]:
            run.write(name, dataclasses.asdict(certified.certificate))
    for certified in readied.certified:
        certified.certificate.require()


def _events(session: Session, run: RunDirectory, notes: list[str]) -> Iterator[Event]:
    if session.why_unpacked and session.recipe.packing:
        notes = [*notes, f"documents are computed one by one: {session.why_unpacked}"]
    if session.footprint is not None:
        notes = [*notes, str(session.footprint)]
    if (slower := _why_slower(session)) is not None:
        notes = [*notes, slower]
    notes = [*notes, *session.trainable.notes, *session.notes]
    yield Ready(
        run=run.path,
        num_steps=session.plan.num_steps,
        start_step=session.state.step,
        trainable=session.trainable.parameters,
        parameters=session.trainable.of,
        rows=len(session.data.train),
        held_out_rows=len(session.data.held_out),
        notes=tuple(notes),
        adapted=session.trainable.summary,
    )
    with interruptible() as interrupted:
        yield from training_loop(session, run, interrupted=interrupted)


def _why_slower(session: Session) -> str | None:
    """That a CPU's kernels are not used, where they would be."""
    on_cpu, in_bf16 = session.forward.device.type == "cpu", session.recipe.dtype == DType.BFLOAT16
    why = why_none() if on_cpu and in_bf16 else None
    return why and f"the CPU kernels are not used, a step takes longer: {why}"


def _require_room(session: Session, run: RunDirectory) -> None:
    """Refuse to start where the disk could not hold two checkpoints and the finished model."""
    trained = sum(parameter.numel() for parameter in session.masters.parameters.values())
    whole = sum(p.numel() * p.element_size() for p in session.model.parameters())
    checkpoint = trained * (4 + MOMENTS[session.recipe.optimizer])
    require_room(run.path, 2 * checkpoint + whole, for_what="this run (two checkpoints and final/)")


def _finish(session: Session, run: RunDirectory, reckoning: Reckoning) -> RunResult:
    """Export (the guard's choice, the best where early stopping is on, else the last) and write the summary."""
    state = session.state
    finished = state.stopped_by != "interrupted"
    exports = finished and run.writes
    wanted = chosen_step(session) if finished else state.step
    if exports and wanted != state.step:
        best = place_of(run.checkpoints, wanted)
        if best.exists():
            session.masters.load(load_checkpoint(best).weights)
    tokenizer = session.tokenizer
    if exports:
        if has_adapter(session.model):
            with run.filled(run.adapter) as place:
                _save_adapter(session, place)
        with run.filled(run.final) as place:
            # A bottleneck cannot be merged: final/ is the base then, with the bottleneck beside its weights as well.
            if has_bottleneck(session.model):
                _save_adapter(session, place)
            model = _merged(session, run)
            save_model(model, tokenizer.tokenizer, place, stop_ids=tokenizer.stop_ids)
            tokenizer.identity.write(place)
    result = RunResult(
        run=run.path,
        final=run.final,
        steps=state.step,
        train_loss=state.train_loss,
        eval_loss=state.eval_loss,
        best_eval_loss=state.best_loss,
        graded_tokens=state.graded_tokens,
        rows=_row_counts(session),
        stopped_by=state.stopped_by or "finished",
        sources=describe_all(session.stages, session.data.train),
        merge=run.read("merge.json") if exports and METHODS[session.recipe.adapter].quantised else None,
        reckoning=reckoning.result(),
        final_step=wanted if finished else None,
    )
    run.write("summary.json", result.as_dict())
    return result


def _save_adapter(session: Session, place: Path) -> None:
    save_adapter(session.model, place)
    write_record(session.recipe.rope_scaling, place)
    session.tokenizer.tokenizer.save_pretrained(place)
    session.tokenizer.identity.write(place)


def _merged(session: Session, run: RunDirectory) -> PreTrainedModel:
    """The model that `final/` holds; of a base in 4 bits, merge.json says how far it is from the one trained."""
    if not METHODS[session.recipe.adapter].quantised:
        return merged(session.model)
    model, drifts = merge_quantized(session, run)
    run.write("merge.json", as_json(drifts))
    return model


def _row_counts(session: Session) -> dict[str, Any]:
    counts = session.data.ledger.counts()
    return {key: counts[key] for key in ("read", "used", "dropped")}


def describe_plan(session: Session) -> dict[str, Any]:
    """The plan in numbers, as plan.json holds it."""
    return {
        "steps": session.plan.num_steps,
        "steps_per_epoch": session.plan.plans[-1].steps_per_epoch,
        "stages": [
            {"name": stage.name, "first_step": first, "steps": stage.plan.num_steps}
            for stage, first in zip(session.stages, session.plan.first_steps, strict=False)
        ],
        "sources": describe_all(session.stages, session.data.train),
        "held_out_sources": held_out_sources(session),
        **describe_data(session.data),
        "trainable_parameters": session.trainable.parameters,
        "parameters": session.trainable.of,
        "trainable_share": session.trainable.share,
        "adapter_modules": list(session.trainable.modules),
        "quantized": None if session.footprint is None else dataclasses.asdict(session.footprint),
        "new_token_ids": list(session.tokenizer.new_ids),
        "untrained_token_ids": list(session.untrained),
        "stop_ids": session.tokenizer.stop_ids,
        "chat_template": session.tokenizer.template_origin,
        "template_sha256": session.tokenizer.identity.template_sha256,
        "one_by_one": session.why_unpacked,
        "mesh": dataclasses.asdict(session.ranks.mesh),
    }


def held_out_sources(session: Session) -> dict[str, str]:
    """What the sources of held-out rows are called, by the number that metrics have them under."""
    sources = [source for stage in session.stages for source in stage.recipe.sources]
    numbers = np.unique(session.data.held_out.row_sources).tolist()
    return {str(number): sources[number].title for number in numbers}


def environment(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The machine and the versions a run was made with."""
    packages = ("burnish", "torch", "transformers", "peft", "tokenizers", *_quantizers())
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name()
        if torch.cuda.is_available()
        else platform.processor() or "cpu",
        **{package: version(package) for package in packages},
        **settings,
    }


def _quantizers() -> tuple[str, ...]:
    return ("bitsandbytes",) if is_bitsandbytes_available() else ()


def default_name(recipe: Recipe) -> str:
    """A run's name where the recipe has none: model, method, time."""
    model = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(recipe.model).name).strip("-.") or "model"
    return f"{model[:32]}-{recipe.adapter.value}-{time.strftime('%Y%m%d-%H%M%S')}"


def as_recipe(recipe: str | Path | None, overrides: Mapping[str, Any]) -> LoadedRecipe:
    """A recipe from a file, from keyword arguments, or from both."""
    if recipe is None and not overrides:
        raise UsageError(
            "train() was given neither a recipe file nor keys",
            rule="a run needs at least model and datasets",
            remedy='burnish.train("recipe.yaml") or burnish.train(model=..., datasets=[...])',
        )
    return load_recipe(recipe, overrides)
