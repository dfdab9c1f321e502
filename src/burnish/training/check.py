"""All that can be known of a run before its first step: every row is read and encoded, no weight is loaded."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from burnish.data.prepare import Prepared, describe_formats
from burnish.models.load import context_length, count_parameters
from burnish.models.tokenizer import ChatTokenizer
from burnish.recipe.advice import Finding, advise
from burnish.recipe.load import LoadedRecipe, fit_to_size
from burnish.recipe.schema import Recipe
from burnish.training.session import encode_recipe, plan_of
from burnish.types import Example


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What a run would feed, and what is amiss. `violations` are rows that break a rule of grading, by rule."""

    rows: int
    kept: int
    held_out: int
    views: int
    tokens: int
    graded_tokens: int
    violations: dict[str, int]
    refused: dict[str, int]
    cut: dict[str, int]
    unusual: dict[str, int]
    rows_per_second: float
    lengths: dict[str, int]
    formats: list[str]
    steps: int
    num_parameters: int
    chat_template: str
    stop_tokens: list[str]
    findings: list[Finding]

    @property
    def ok(self) -> bool:
        """Whether no example breaks a rule."""
        return not self.violations

    def as_dict(self) -> dict[str, Any]:
        """The report as `--json` prints it."""
        fields = {name: getattr(self, name) for name in self.__slots__ if name != "findings"}
        findings = [{"key": f.key, "saw": f.saw, "advice": f.advice} for f in self.findings]
        return {"ok": self.ok, **fields, "findings": findings}


def check_recipe(loaded: LoadedRecipe) -> CheckReport:
    """Read and encode every row as training would; BurnishError where training would not start."""
    num_parameters = count_parameters(loaded.recipe.model)
    recipe = fit_to_size(loaded, num_parameters).recipe
    started = time.perf_counter()
    tokenizer, data = encode_recipe(recipe)
    seconds = time.perf_counter() - started
    counts = data.ledger.counts()
    views = [view for group in [*data.train, *data.held_out] for view in group]
    lengths = np.array([len(view) for view in views])
    return CheckReport(
        rows=counts["read"],
        kept=counts["used"],
        held_out=len(data.held_out),
        views=len(views),
        tokens=int(lengths.sum()),
        graded_tokens=sum(view.num_graded for view in views),
        violations=dict(Counter(rule for view in views for rule in broken_rules(view, tokenizer))),
        refused=counts["dropped"],
        cut=counts["cut"],
        unusual=dict(tokenizer.encoder.counts),
        rows_per_second=round(counts["read"] / seconds, 1),
        lengths={f"p{share}": int(np.percentile(lengths, share)) for share in (5, 50, 95, 100)},
        formats=describe_formats(recipe),
        steps=plan_of(recipe, len(data.train)).num_steps,
        num_parameters=num_parameters,
        chat_template=tokenizer.template_origin,
        stop_tokens=[str(tokenizer.tokenizer.convert_ids_to_tokens(i)) for i in tokenizer.stop_ids],
        findings=[
            *advise(recipe, num_rows=len(data.train), num_parameters=num_parameters),
            *_findings(recipe, tokenizer, data),
        ],
    )


def broken_rules(view: Example, tokenizer: ChatTokenizer) -> Iterator[str]:
    """The rules of grading that a sequence breaks, looking only at its ids and weights."""
    bos = tokenizer.tokenizer.bos_token_id
    stops = frozenset(tokenizer.stop_ids)
    spans = list(graded_spans(view.weights))
    if not spans:
        yield "nothing graded"
    if view.weights[0] != 0.0:
        yield "first token graded"
    if bos is not None and bos not in stops and list(view.input_ids[:2]) == [bos, bos]:
        yield "two BOS"
    if view.turns and view.cut == 0:
        if any(view.input_ids[end - 1] not in stops for _, end in spans):
            yield "turn without its stop token"
        if any(view.input_ids[k] in stops for start, end in spans for k in range(start, end - 1)):
            yield "stop token inside a turn"


def graded_spans(weights: Sequence[float]) -> Iterator[tuple[int, int]]:
    """Runs of graded tokens as (start, end): `0 1 1 0 1` has (1, 3) and (4, 5)."""
    start = None
    for k, weight in enumerate([*weights, 0.0]):
        if weight and start is None:
            start = k
        elif not weight and start is not None:
            yield start, k
            start = None


def _findings(recipe: Recipe, tokenizer: ChatTokenizer, data: Prepared) -> Iterator[Finding]:
    limit = context_length(recipe.model)
    if limit is not None and recipe.max_length > limit:
        yield Finding(
            "max_length",
            str(recipe.max_length),
            f"the model has positions for {limit} tokens; longer examples are outside what it was built for",
        )
    if tokenizer.new_ids:
        names = ", ".join(tokenizer.tokenizer.convert_ids_to_tokens(list(tokenizer.new_ids)))
        yield Finding(
            "chat_template",
            tokenizer.template_origin,
            f"the base never saw {names}: their rows start from known ones and are trained",
        )
    examples = [view for group in data.train for view in group]
    share = sum(view.num_graded for view in examples) / sum(map(len, examples))
    if share < 0.05:
        yield Finding("datasets", f"{share:.1%} of tokens graded", "almost all the work is on context")
