"""The stages of a run: each is the run's recipe with other values, and all of them are one plan over one set of rows.

    stages:
      - {name: read, datasets: textbook.jsonl, max_steps: 300, learning_rate: 1e-3}
      - {name: answer, datasets: questions.jsonl, num_epochs: 2, replay: {path: books.jsonl, share: 0.2}}

Rows and sources are numbered on from stage to stage. Whatever any stage holds out is measured over the whole run, so
what a later stage forgets of an earlier one is seen. A recipe without `stages` is its only stage.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Protocol

import numpy as np

from burnish.data.ledger import Ledger
from burnish.data.mixture import Ask, Mixture, asked_shares, mix, with_replay
from burnish.data.plan import Plan
from burnish.data.prepare import Prepared
from burnish.data.rows import replay_source
from burnish.data.store import Array, EncodedRows, RowsWriter, StoredOrigins, join_rows
from burnish.data.workers import Progress
from burnish.errors import DataError
from burnish.models.tokenizer import ChatTokenizer
from burnish.optim.schedule import Schedule, warmup_length
from burnish.recipe.choices import MixtureRule
from burnish.recipe.schema import DatasetSource, Recipe
from burnish.training.apart import require_apart
from burnish.training.certificate import Certified, certify


@dataclass(frozen=True, slots=True)
class Stage:
    """One part of a run: its recipe, its updates over its own rows, its learning rate."""

    name: str
    recipe: Recipe
    plan: Plan
    schedule: Schedule


class Sized(Protocol):
    """Rows of which only the source and the number of targets are asked."""

    @property
    def row_sources(self) -> Array:
        """The source of each row."""

    @property
    def row_graded(self) -> Array:
        """The targets of each row."""


@dataclass(frozen=True, slots=True)
class Slice:
    """A stage's part of the rows of a run."""

    row_sources: Array
    row_graded: Array


@dataclass(frozen=True, slots=True)
class Readied:
    """The rows of all stages, read, encoded and proved, end to end."""

    tokenizer: ChatTokenizer
    data: Prepared
    stages: tuple[Stage, ...]
    certified: tuple[Certified, ...]

    @property
    def sources(self) -> list[DatasetSource]:
        """All sources of all stages, as they are numbered in the rows."""
        return [source for stage in self.stages for source in stage.recipe.sources]


def ready(
    recipe: Recipe, *, date: datetime.date | None = None, progress: Progress = lambda done, total: None
) -> Readied:
    """Certify the rows of every stage, and lay them end to end."""
    recipes = recipe.in_stages()
    certified = [certify(own, date=date, progress=progress) for _, own in recipes]
    if len(recipes) > 1:
        require_apart([name for name, _ in recipes], [each.path.parent for each in certified])
    stages = tuple(
        stage_of(own, each.data.train, name=name)
        for (name, own), each in zip(recipes, certified, strict=True)
    )
    asked = [each for each in certified if each.certificate.has_conversations]
    tokenizer = (asked or certified)[0].tokenizer
    for each in asked[1:]:
        tokenizer.take_in(each.certificate.graded_stop_ids, {})
    data = _joined([each.data for each in certified], [own for _, own in recipes])
    return Readied(tokenizer, data, stages, tuple(certified))


def stage_of(recipe: Recipe, rows: EncodedRows, *, name: str = "") -> Stage:
    """A recipe over its training rows."""
    plan = plan_of(recipe, rows)
    warmup = warmup_length(
        plan.num_steps, warmup_steps=recipe.warmup_steps, warmup_ratio=recipe.warmup_ratio or 0.0
    )
    schedule = Schedule(recipe.lr_scheduler.value, recipe.learning_rate, plan.num_steps, warmup)
    return Stage(name, recipe, plan, schedule)


def plan_of(recipe: Recipe, rows: EncodedRows) -> Plan:
    """The updates that a recipe makes over its training rows."""
    return Plan(
        num_rows=len(rows),
        batch_size=recipe.global_batch_size,
        num_epochs=recipe.num_epochs or 1,
        max_steps=recipe.max_steps,
        seed=recipe.seed,
        shuffle=recipe.shuffle,
        mixture=mixture_of(recipe, rows),
    )


def mixture_of(recipe: Recipe, rows: EncodedRows) -> Mixture:
    """What an epoch of a recipe holds of each of its sources."""
    mixture = mix(
        asks_of(recipe, rows),
        recipe.mixture,
        recipe.on_exhausted,
        temperature=recipe.mixture_temperature,
        groups=recipe.group_mix,
    )
    number = replay_source(recipe)
    if recipe.replay is None or number is None:
        return mixture
    graded, of = rows.row_graded, rows.row_sources
    replayed = graded[of == number]
    if not len(replayed):
        raise DataError(
            f"replay {recipe.replay.path}: no row of text is left",
            rule="replay mixes in text that is there, and that no dataset holds already",
            remedy="give another path, or leave replay out",
        )
    beside = sum(part.count * float(graded[of == part.source].mean()) for part in mixture.parts if part.count)
    return with_replay(
        mixture,
        source=number,
        rows=len(replayed),
        share=recipe.replay.share,
        graded=beside,
        replayed=float(replayed.mean()),
    )


def asks_of(recipe: Recipe, rows: Sized) -> list[Ask]:
    """What the recipe says of each source that is trained on, in the order of the rows."""
    sizes = np.bincount(rows.row_sources, minlength=len(recipe.sources)).tolist()
    asks = []
    for number, source in enumerate(recipe.sources):
        if number < len(recipe.held_out_sources) or number == replay_source(recipe):
            continue
        size = sizes[number]
        limit = max(1, round(size * source.epochs)) if size else 0
        limit = limit if source.cap is None else min(limit, source.cap)
        asks.append(Ask(number, size, limit, source.mix, source.group))
    return asks


def describe_sources(stage: Stage, rows: Sized, *, first_source: int = 0) -> list[dict[str, Any]]:
    """Each source of a stage over its whole length: rows, repeats, and its shares, asked and realised.

    `asked` is a share of rows; that of replay a share of graded tokens. Under `concat` nothing is asked.
    """
    recipe, used = stage.recipe, stage.plan.times_used()
    graded, of = used * rows.row_graded, rows.row_sources
    asks = asks_of(recipe, rows)
    shares = asked_shares(
        asks, recipe.mixture, temperature=recipe.mixture_temperature, groups=recipe.group_mix
    )
    asked = {ask.source: float(share) for ask, share in zip(asks, shares, strict=True)}
    if recipe.mixture == MixtureRule.CONCAT:
        asked = {}
    told = []
    for number in range(len(recipe.held_out_sources), len(recipe.sources)):
        mine, source = of == number, recipe.sources[number]
        is_replay = number == replay_source(recipe)
        told.append(
            {
                "source": first_source + number,
                "name": source.title,
                "group": source.group,
                "stage": stage.name,
                "rows": int(mine.sum()),
                "rows_used": int(used[mine].sum()),
                "times": round(float(used[mine].mean()), 4) if mine.any() else 0.0,
                "asked": recipe.replay.share if is_replay and recipe.replay else asked.get(number),
                "asked_of": "graded tokens" if is_replay else "rows",
                "share_of_rows": _share(used[mine].sum(), used.sum()),
                "graded_tokens": int(graded[mine].sum()),
                "share_of_graded_tokens": _share(graded[mine].sum(), graded.sum()),
            }
        )
    return told


def describe_all(stages: Sequence[Stage], rows: EncodedRows) -> list[dict[str, Any]]:
    """`describe_sources` of every stage, from the rows of all of them."""
    used, of, graded = [], rows.row_sources, rows.row_graded
    first_row = first_source = 0
    for stage in stages:
        part = slice(first_row, first_row + stage.plan.num_rows)
        used += describe_sources(
            stage, Slice(of[part] - first_source, graded[part]), first_source=first_source
        )
        first_row, first_source = part.stop, first_source + len(stage.recipe.sources)
    return used


def sources_in_words(sources: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the updates take from each source, beside what was asked of it."""
    lines = []
    for source in sources:
        asked = "" if source["asked"] is None else f" (asked {source['asked']:.1%} of {source['asked_of']})"
        lines.append(
            f"source  {source['name']}: {source['rows_used']:,} rows ({source['times']:g} x {source['rows']:,}), "
            f"{source['share_of_rows']:.1%} of rows, {source['share_of_graded_tokens']:.1%} of graded tokens{asked}"
        )
    return lines


def _share(part: Any, whole: Any) -> float:
    return round(float(part) / float(whole), 6) if whole else 0.0


def _joined(parts: Sequence[Prepared], recipes: Sequence[Recipe]) -> Prepared:
    """The data of all stages as that of one run; what several hold out by the same words is held out once."""
    if len(parts) == 1:
        return parts[0]
    read = [part.ledger.counts()["read"] for part in parts]
    first_rows = list(accumulate(read, initial=0))[:-1]
    first_sources = list(accumulate((len(recipe.sources) for recipe in recipes), initial=0))[:-1]
    known: set[DatasetSource] = set()
    held_out = []
    for part, recipe in zip(parts, recipes, strict=True):
        again = {number for number, source in enumerate(recipe.held_out_sources) if source in known}
        known |= set(recipe.held_out_sources)
        held_out.append(_without(part.held_out, again))
    return Prepared(
        join_rows([part.train for part in parts], first_rows=first_rows, first_sources=first_sources),
        join_rows(held_out, first_rows=first_rows, first_sources=first_sources),
        StoredOrigins.joined([part.origins for part in parts], first_rows),
        Ledger.joined([part.ledger for part in parts]),
    )


def _without(rows: EncodedRows, sources: set[int]) -> EncodedRows:
    if not sources:
        return rows
    kept = RowsWriter()
    for views in rows:
        if views[0].source not in sources:
            kept.append(views)
    return kept.finish()
