"""Out of memory: the one setting to change, by the same arithmetic that forecasts a run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from burnish.errors import BurnishError, MemoryExhausted
from burnish.models.anatomy import Anatomy, anatomy_of
from burnish.parallel.runtime import device_memory
from burnish.recipe.schema import Recipe
from burnish.training.forecast import GB, memory_of
from burnish.training.planning import estimate_trained

LESS = 0.8
"""What fails at a need of 10 GB is not mended by one of 9.5: a remedy needs at most this share of it."""


@contextmanager
def memory_errors(recipe: Recipe) -> Iterator[None]:
    """Turn what torch and Python raise without memory into MemoryExhausted, with the setting to change."""
    try:
        yield
    except BurnishError:
        raise
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "memory" not in str(error):
            raise
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise MemoryExhausted(
            f"out of memory with micro_batch_size {recipe.micro_batch_size}, max_length {recipe.max_length}: {first}",
            rule="weights, optimiser and the activations of one micro-batch fit in memory together",
            remedy=what_would_fit(recipe, anatomy_of(recipe.model), room=float(device_memory())),
        ) from error


def what_would_fit(recipe: Recipe, anatomy: Anatomy, *, room: float) -> str:
    """The change that costs least of those that fit into `room`, and well below what was tried; else the smallest."""
    tried = _needed(recipe, anatomy)
    room = min(room, LESS * tried)
    best: tuple[float, str] | None = None
    for words, changed in changes(recipe):
        needed = _needed(changed, anatomy)
        if needed <= room:
            return f"{words}: {needed / GB:,.2f} GB by the forecast, where this took {tried / GB:,.2f}"
        if best is None or needed < best[0]:
            best = (needed, words)
    if best is None:
        return "take a smaller model, or a machine with more memory: there is no smaller setting"
    return f"{best[1]}: {best[0] / GB:,.2f} GB by the forecast, the least there is; else take a smaller model"


def changes(recipe: Recipe) -> Iterator[tuple[str, Recipe]]:
    """Settings to change, those first that change nothing about the result, then the method, then the data."""
    whole: dict[str, Any] = {}
    if recipe.gradient_checkpointing is not True:
        whole["gradient_checkpointing"] = True
        yield _changed(recipe, whole)
    size = recipe.global_batch_size if recipe.micro_batch_size == "auto" else recipe.micro_batch_size
    for smaller in (1 << power for power in range(max(0, size - 1).bit_length() - 1, -1, -1)):
        if smaller < size:
            yield _changed(recipe, {**whole, "micro_batch_size": smaller})
    whole["micro_batch_size"] = 1
    for method in ("lora", "qlora"):
        if recipe.adapter == "full" or (recipe.adapter == "lora" and method == "qlora"):
            yield _changed(recipe, {**whole, "adapter": method})
    length = recipe.max_length // 2
    while length >= 128:
        yield _changed(recipe, {**whole, "max_length": length})
        length //= 2


def _changed(recipe: Recipe, keys: dict[str, Any]) -> tuple[str, Recipe]:
    words = " ".join(f"{key}={str(value).lower()}" for key, value in keys.items())
    return f"say {words}", recipe.__class__.model_validate({**recipe.model_dump(mode="json"), **keys})


def _needed(recipe: Recipe, anatomy: Anatomy) -> float:
    rows = 1 if recipe.micro_batch_size == "auto" else recipe.micro_batch_size
    trained = estimate_trained(recipe, anatomy)
    return memory_of(recipe, anatomy, trained=trained, pack_tokens=recipe.max_length * rows).total
