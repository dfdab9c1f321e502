"""Advice is given outside what works, and only there."""

from __future__ import annotations

from typing import Any

import pytest

from burnish.recipe.advice import advise
from burnish.recipe.choices import Adapter
from burnish.recipe.schema import Recipe


def keys(num_rows: int | None = 1000, num_parameters: int | None = None, **values: Any) -> list[str]:
    recipe = Recipe(**{"model": "m", "datasets": "x", "val_set_size": 0.1, **values})
    return [finding.key for finding in advise(recipe, num_rows, num_parameters=num_parameters)]


@pytest.mark.parametrize("adapter", list(Adapter))
def test_the_defaults_need_no_advice(adapter: str) -> None:
    assert keys(adapter=adapter) == []


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"learning_rate": 1e-3}, "learning_rate"),
        ({"learning_rate": 1e-6}, "learning_rate"),
        ({"adapter": "lora", "learning_rate": 2e-5}, "learning_rate"),
        ({"num_epochs": 6}, "num_epochs"),
        ({"val_set_size": 0}, "val_set_size"),
        ({"val_set_size": 0, "eval_steps": 5}, "eval_steps"),
        ({"adapter": "lora", "lora_alpha": 1000}, "lora_alpha"),
        ({"lora_r": 8}, "lora_r"),
        ({"adapter": "lora", "freeze": ["embed"]}, "freeze"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"adapter": "bottleneck", "lora_r": 8}, "lora_r"),
        ({"adapter": "lora", "bottleneck_size": 8}, "bottleneck_size"),
        ({"adapter": "lora_xs", "lora_plus_ratio": 16}, "lora_plus_ratio"),
        ({"max_length": 64}, "max_length"),
        ({"num_rows": 60}, "datasets"),
        ({"num_rows": 20}, "global_batch_size"),
        ({"num_rows": 150, "num_epochs": 1}, "global_batch_size"),
    ],
)
def test_what_lies_outside_is_named(values: dict[str, Any], key: str) -> None:
    assert key in keys(**values)


def test_learning_rates_of_small_models_are_their_own_matter() -> None:
    assert keys(learning_rate=1e-3, num_parameters=3_700_000) == []
    assert keys(learning_rate=1e-3, num_parameters=7_000_000_000) == ["learning_rate"]
