"""What the field found to work, said where a recipe leaves it. Advice never stops a run.

advise(recipe, num_rows=60)
-> [Finding(key="datasets", saw="60 rows", advice="under about 100 rows a model learns ...")]
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from burnish.recipe.methods import METHODS, Injection, Method
from burnish.recipe.schema import SMALL_MODEL, Recipe

RANK_KEYS = ("lora_r", "lora_alpha", "lora_dropout", "lora_target_modules", "lora_plus_ratio")
BESIDE_KEYS = ("layers_to_transform", "modules_to_save", "trainable_token_indices")


@dataclass(frozen=True)
class Finding:
    """One thing worth a second look: the key, its value, and why."""

    key: str
    saw: str
    advice: str


def advise(
    recipe: Recipe, num_rows: int | None = None, *, num_parameters: int | None = None
) -> list[Finding]:
    """Findings about a recipe, given the number of training rows and of parameters where they are known."""
    findings = [*_rate(recipe, num_parameters), *_lora(recipe), *_length(recipe), *_held_out(recipe)]
    if num_rows is not None:
        findings += _rows(recipe, num_rows)
    return findings


def _rate(recipe: Recipe, num_parameters: int | None) -> Iterator[Finding]:
    if num_parameters is not None and num_parameters < SMALL_MODEL:
        return
    low, high = METHODS[recipe.adapter].usual_rates
    if low <= recipe.learning_rate <= high:
        return
    fault = "forget what the base model knew" if recipe.learning_rate > high else "end before it has learnt"
    about = "" if num_parameters else " (that is for models above 100M parameters; tiny ones want more)"
    yield Finding(
        "learning_rate",
        f"{recipe.learning_rate:g}",
        f"with adapter: {recipe.adapter}, {low:g} to {high:g} works for most{about}; "
        f"outside it a run tends to {fault}",
    )


def _lora(recipe: Recipe) -> Iterator[Finding]:
    method = METHODS[recipe.adapter]
    unused = [key for key in _without_meaning(method) if _was_changed(recipe, key)]
    if unused:
        found = str(getattr(recipe, unused[0]))
        yield Finding(unused[0], found, f"adapter: {recipe.adapter} has no use for it")
    if not method.has_rank:
        return
    scale = method.scale(recipe.lora_r, recipe.lora_alpha)
    if not 0.5 <= scale <= 4:
        yield Finding(
            "lora_alpha",
            f"{recipe.lora_alpha:g} with lora_r: {recipe.lora_r}",
            f"the product of the matrices counts {scale:g} times; 1 to 2 is usual, and the learning rates above "
            "assume it",
        )


def _without_meaning(method: Method) -> Iterator[str]:
    """The keys about what is trained that a method does not read."""
    if method.injects == Injection.NOTHING:
        yield from BESIDE_KEYS
    else:
        yield "freeze"
    if not method.has_rank:
        yield from RANK_KEYS
    if method.injects not in (Injection.LOW_RANK, Injection.PRINCIPAL):
        yield "lora_plus_ratio"
    if method.injects != Injection.BOTTLENECK:
        yield "bottleneck_size"


def _was_changed(recipe: Recipe, key: str) -> bool:
    plain = Recipe(model=recipe.model, datasets=recipe.datasets, adapter=recipe.adapter)
    return bool(getattr(recipe, key) != getattr(plain, key))


def _length(recipe: Recipe) -> Iterator[Finding]:
    if recipe.max_length < 128:
        yield Finding(
            "max_length",
            f"{recipe.max_length} tokens",
            "few conversations are that short: look at the ledger for what was dropped",
        )
    if recipe.num_epochs is not None and recipe.num_epochs > 5:
        yield Finding(
            "num_epochs",
            str(recipe.num_epochs),
            "1 to 5 is usual; beyond it the held-out loss mostly rises while the training loss falls",
        )


def _held_out(recipe: Recipe) -> Iterator[Finding]:
    if not recipe.has_held_out:
        yield Finding(
            "val_set_size",
            "no held-out rows",
            "without them nothing shows when the model starts to memorise; try val_set_size: 0.05",
        )
        if recipe.eval_steps is not None:
            yield Finding("eval_steps", str(recipe.eval_steps), "there is no held-out set to evaluate on")


def _rows(recipe: Recipe, num_rows: int) -> Iterator[Finding]:
    if num_rows < 100:
        yield Finding(
            "datasets",
            f"{num_rows} rows",
            "under about 100 rows a model learns the form of the answers and little else",
        )
    if recipe.global_batch_size > num_rows:
        yield Finding(
            "global_batch_size",
            f"{recipe.global_batch_size} of {num_rows} rows",
            "an epoch is less than one full update: make the batch a tenth of the rows or smaller",
        )
    elif (
        recipe.max_steps is None
        and (steps := num_rows * (recipe.num_epochs or 1) // recipe.global_batch_size) < 20
    ):
        yield Finding(
            "global_batch_size",
            f"{recipe.global_batch_size} rows per update make {steps} updates",
            "that few updates hardly move a model: a smaller batch gives more of them",
        )
