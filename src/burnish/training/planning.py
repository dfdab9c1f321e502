"""`burnish plan`: a recipe's data surveyed, its model measured, and the forecast of the run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from burnish.data.survey import Survey, survey
from burnish.data.workers import Progress
from burnish.models.anatomy import Anatomy, anatomy_of
from burnish.models.locate import locate
from burnish.parallel.runtime import device_memory, peak_memory_bytes, prepare_process, resident_bytes
from burnish.recipe.load import LoadedRecipe, fit_to_size
from burnish.recipe.methods import METHODS, Injection
from burnish.recipe.schema import Recipe
from burnish.training.certificate import Certified, certify
from burnish.training.cluster import Choice, Cluster, changes, choices, on_cluster
from burnish.training.forecast import (
    Forecast,
    Measured,
    Work,
    memory_of,
    operations,
    what_to_change,
)
from burnish.training.session import lay_out, open_session
from burnish.training.stages import plan_of
from burnish.training.step import take_step

MEASURED_STEPS = 2
"""One to warm up, one to measure."""


@dataclass(frozen=True, slots=True)
class PlanReport:
    """What a run will compute, hold and take, and what to change where it does not fit.

    `ways`, for devices that are not at hand, are the values of the recipe that share a run out, its own first.
    """

    survey: Survey
    pack_tokens: int
    forecast: Forecast
    changes: list[str]
    ways: list[Choice] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """The report as `--json` prints it."""
        found = self.survey
        return {
            **self.forecast.as_dict(),
            "rows": found.rows,
            "sequences": found.examples,
            "tokens_per_epoch": found.tokens,
            "graded_tokens_per_epoch": found.graded_tokens,
            "fill": round(found.fill(self.pack_tokens), 4),
            "saved_by_prefixes": round(found.saved, 4),
            "is_exact": found.is_exact,
            "changes": self.changes,
            "ways": [{"keys": way.keys, "fits": way.fits, **way.forecast.as_dict()} for way in self.ways],
        }


def plan_stages(
    loaded: LoadedRecipe,
    *,
    cluster: Cluster | None = None,
    measure: bool = True,
    progress: Progress = lambda done, total: None,
) -> dict[str, PlanReport]:
    """Of every stage by its name: survey the data, measure two steps here (unless `cluster` names others), forecast.

    A recipe without stages is its only one.
    """
    prepare_process()
    anatomy = anatomy_of(loaded.recipe.model)
    return {
        name: _plan(own, anatomy, cluster, measure=measure, progress=progress)
        for name, own in fit_to_size(loaded, anatomy.parameters).recipe.in_stages()
    }


def _plan(
    recipe: Recipe,
    anatomy: Anatomy,
    cluster: Cluster | None,
    *,
    measure: bool,
    progress: Progress,
) -> PlanReport:
    certified = certify(recipe, progress=progress)
    vocabulary = len(certified.tokenizer)
    plan = plan_of(recipe, certified.data.train)
    found = survey(
        certified.data.train,
        plan,
        lambda examples: lay_out(examples, recipe, vocab_size=vocabulary, packed=recipe.packing),
    )
    lengths = certified.data.train.lengths.astype(np.float64)
    epochs = plan.num_steps / plan.steps_per_epoch
    work = Work(
        steps=plan.num_steps,
        computed_tokens=found.laid_in_epoch * epochs,
        graded_tokens=found.graded_tokens * epochs,
        mean_context=float((lengths**2).sum() / (2 * lengths.sum())),
        pack_tokens=found.largest,
    )
    trained = estimate_trained(recipe, anatomy)
    if cluster is None:
        forecast = _here(recipe, anatomy, trained, work, certified if measure else None)
        return PlanReport(found, found.largest, forecast, list(what_to_change(forecast, recipe)))
    forecast = on_cluster(cluster, recipe, anatomy, trained=trained, work=work)
    ways = choices(cluster, recipe, anatomy, trained=trained, work=work)
    return PlanReport(found, found.largest, forecast, list(changes(cluster, ways, forecast, recipe)), ways)


def estimate_trained(recipe: Recipe, anatomy: Anatomy) -> int:
    """About how many parameters a recipe's method trains, from the model's measures alone."""
    match METHODS[recipe.adapter].injects:
        case Injection.NOTHING:
            return anatomy.parameters
        case Injection.LOW_RANK | Injection.PRINCIPAL:
            return anatomy.lora_parameters(recipe.lora_r)
        case Injection.CORE:
            return anatomy.core_parameters(recipe.lora_r)
        case Injection.BOTTLENECK:
            return anatomy.bottleneck_parameters(recipe.bottleneck_size)


def _here(
    recipe: Recipe, anatomy: Anatomy, trained: int, work: Work, certified: Certified | None
) -> Forecast:
    """The forecast for this machine, from a measured step where the weights are at hand."""
    measured = None
    process = float(resident_bytes())
    total = operations(recipe, anatomy, work)
    rate = ASSUMED_RATE
    if certified is not None and any(locate(recipe.model).glob("*.safetensors")):
        measured, trained = _measure(recipe, certified)
        step = Work(1, measured.tokens, measured.graded_tokens, work.mean_context, work.pack_tokens)
        rate = operations(recipe, anatomy, step) / measured.seconds
    return Forecast(
        anatomy=anatomy,
        trained=trained,
        work=work,
        memory=memory_of(recipe, anatomy, trained=trained, pack_tokens=work.pack_tokens, process=process),
        operations=total,
        device="this machine",
        device_memory=float(device_memory()),
        devices=1,
        rate=rate,
        measured=measured,
    )


ASSUMED_RATE = 1e11
"""Operations a second of a CPU that nobody has measured."""


def _measure(recipe: Recipe, certified: Certified) -> tuple[Measured, int]:
    """Steps of the real model on the run's own first batches; nothing of it is kept."""
    session = open_session(recipe, certified.tokenizer, certified.data)
    for _ in range(min(MEASURED_STEPS, session.plan.num_steps)):
        stepped = take_step(session)
    measured = Measured(stepped.seconds, stepped.tokens, stepped.graded_tokens, peak_memory_bytes())
    return measured, session.trainable.parameters
