"""All that can be known of a run before its first step: every row is read and encoded, no weight is loaded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from burnish.data.workers import Progress
from burnish.models.load import context_length, count_parameters
from burnish.recipe.advice import Finding, advise
from burnish.recipe.load import LoadedRecipe, fit_to_size
from burnish.recipe.schema import Recipe
from burnish.training.certificate import Certificate, Certified, certify
from burnish.training.counsel import counsel
from burnish.training.oracle import settle
from burnish.training.session import open_session
from burnish.training.stages import describe_sources, stage_of

MANY_TIMES = 8
"""How often a row is met in a run before it is worth a word."""


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What a run would feed, and what is amiss: what the certificate says, and what follows from it."""

    certificate: Certificate
    place: Path
    reused: bool
    lengths: dict[str, int]
    steps: int
    sources: list[dict[str, Any]]
    num_parameters: int
    chat_template: str
    oracle: str | None
    findings: list[Finding]

    @property
    def ok(self) -> bool:
        """Whether no example breaks a rule."""
        return not self.certificate.violations

    def as_dict(self) -> dict[str, Any]:
        """The report as `--json` prints it."""
        told = {name: getattr(self.certificate, name) for name in CERTIFIED}
        own = {name: getattr(self, name) for name in self.__slots__ if name not in ("certificate", "place")}
        findings = [{"key": f.key, "saw": f.saw, "advice": f.advice} for f in self.findings]
        return {"ok": self.ok, **told, **own, "certificate": str(self.place), "findings": findings}


CERTIFIED = [
    "rows",
    "kept",
    "held_out",
    "views",
    "tokens",
    "graded_tokens",
    "violations",
    "examples",
    "refused",
    "cut",
    "changes",
    "unusual",
    "rows_per_second",
    "formats",
    "stop_tokens",
]
"""What of a certificate the report repeats."""


def check_stages(
    loaded: LoadedRecipe, *, progress: Progress = lambda done, total: None, oracle: bool = False
) -> dict[str, CheckReport]:
    """Certify every stage's rows as training would, and report by its name; BurnishError where it would not start.

    A recipe without stages is its only one. With `oracle` the model is loaded, and its fast path compared with plain
    transformers on the first batch.
    """
    num_parameters = count_parameters(loaded.recipe.model)
    return {
        name: _check(recipe, num_parameters, progress, oracle=oracle)
        for name, recipe in fit_to_size(loaded, num_parameters).recipe.in_stages()
    }


def stages_to_check(loaded: LoadedRecipe) -> Sequence[tuple[str, Recipe]]:
    """Every stage's name and recipe, with the values that follow from the model's size."""
    return fit_to_size(loaded, count_parameters(loaded.recipe.model)).recipe.in_stages()


def _check(recipe: Recipe, num_parameters: int, progress: Progress, *, oracle: bool) -> CheckReport:
    certified = certify(recipe, progress=progress)
    data = certified.data
    stage = stage_of(recipe, data.train)
    lengths = np.concatenate([data.train.lengths, data.held_out.lengths])
    return CheckReport(
        certificate=certified.certificate,
        place=certified.path,
        reused=certified.reused,
        lengths={f"p{share}": int(np.percentile(lengths, share)) for share in (5, 50, 95, 100)},
        steps=stage.plan.num_steps,
        sources=describe_sources(stage, data.train),
        num_parameters=num_parameters,
        chat_template=certified.tokenizer.template_origin,
        oracle=_ask(recipe, certified) if oracle else None,
        findings=[
            *advise(recipe, num_rows=len(data.train), num_parameters=num_parameters),
            *_findings(recipe, certified),
            *counsel(certified.certificate),
            *_repeats(describe_sources(stage, data.train)),
        ],
    )


def _ask(recipe: Recipe, certified: Certified) -> str:
    return str(settle(open_session(recipe, certified.tokenizer, certified.data)))


def _repeats(sources: list[dict[str, Any]]) -> Iterator[Finding]:
    for source in sources:
        if source["times"] > MANY_TIMES:
            yield Finding(
                "datasets",
                f"each row of {source['name']} {source['times']:g} times",
                "a row met so often is learnt by heart; lower its share, or the number of updates",
            )
        if not source["rows"]:
            yield Finding("datasets", f"{source['name']}: no rows", "it has no part in the mixture")


def _findings(recipe: Recipe, certified: Certified) -> Iterator[Finding]:
    tokenizer, train = certified.tokenizer, certified.data.train
    limit = context_length(recipe.model, recipe.rope_scaling)
    if limit is not None and recipe.max_length > limit:
        yield Finding(
            "max_length",
            str(recipe.max_length),
            f"the model has positions for {limit} tokens; longer examples are outside what it was built for "
            f"(rope_scaling: {{rope_type: yarn, factor: {max(2, -(-recipe.max_length // limit))}}} makes more)",
        )
    if tokenizer.new_ids:
        names = ", ".join(tokenizer.tokenizer.convert_ids_to_tokens(list(tokenizer.new_ids)))
        yield Finding(
            "chat_template",
            tokenizer.template_origin,
            f"the base never saw {names}: their rows start from known ones and are trained",
        )
    share = train.num_graded / train.num_tokens
    if share < 0.05:
        yield Finding("datasets", f"{share:.1%} of tokens graded", "almost all the work is on context")
