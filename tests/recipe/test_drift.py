"""A resumed run is the same run: every changed key is named."""

from __future__ import annotations

from typing import Any

import pytest

from burnish.errors import UsageError
from burnish.recipe.drift import refuse_drift
from burnish.recipe.schema import Recipe

OTHER: dict[str, Any] = {
    "model": "other", "tokenizer": "t", "chat_template": "c.jinja", "chat_template_kwargs": {"a": 1},
    "datasets": "other", "val_set_size": 5, "val_datasets": ["v"], "mixture": "weights",
    "mixture_temperature": 3.0, "group_mix": {"g": 2.0}, "on_exhausted": "drop",
    "replay": {"path": "r", "share": 0.5}, "stages": [{"num_epochs": 2}], "train_on": "last", "reasoning": "off",
    "max_length": 9, "on_too_long": "error", "on_bad_row": "drop", "packing": False,
    "share_prefixes": False, "adapter": "lora", "lora_r": 1,
    "lora_alpha": 1, "lora_dropout": 0.1, "lora_target_modules": "q", "lora_plus_ratio": 2.0,
    "bottleneck_size": 1, "layers_to_transform": [0], "modules_to_save": ["lm_head"],
    "trainable_token_indices": [1], "freeze": ["embed"], "merge_into": "4bit", "learning_rate": 1,
    "lr_scheduler": "wsd",
    "warmup_steps": 1, "warmup_ratio": 0.5, "optimizer": "muon", "weight_decay": 1, "max_grad_norm": None,
    "max_steps": 1, "num_epochs": 1, "global_batch_size": 1, "micro_batch_size": 1, "shuffle": False,
    "dtype": "float32", "gradient_checkpointing": True, "compile": True, "eval_steps": 1, "save_steps": 1,
    "save_total_limit": 1, "early_stopping_patience": 1, "sample_prompts": ["x"], "output_dir": "o",
    "on_nonfinite": "skip_batch", "run_name": "n", "seed": 1, "report_to": ["wandb"],
    "sharpening_rows": 5, "forgetting": {"budget": 0.5},
    "rope_scaling": {"rope_type": "linear", "factor": 2.0}, "data_parallel": "shard", "cpu_offload": True,
    "context_parallel": 2,
}  # fmt: skip


def recipe(**values: Any) -> Recipe:
    return Recipe(**{"model": "m", "datasets": "d", **values})


def test_the_cases_cover_every_key() -> None:
    assert OTHER.keys() == Recipe.model_fields.keys()


@pytest.mark.parametrize("key", OTHER)
def test_a_changed_key_is_named_and_may_be_allowed_by_name(key: str) -> None:
    saved = recipe()
    held_out = {"val_set_size": 5} if key == "early_stopping_patience" else {}
    asked = saved.model_copy(update={key: getattr(recipe(**{key: OTHER[key], **held_out}), key)})
    with pytest.raises(UsageError) as caught:
        refuse_drift(saved, asked)
    assert caught.value.saw.startswith(f"{key}: ")
    assert f"--allow-change={key}" in caught.value.remedy
    assert [change.key for change in refuse_drift(saved, asked, allow=[key])] == [key]


def test_the_same_recipe_passes() -> None:
    assert refuse_drift(recipe(), recipe()) == []


def test_a_default_that_follows_another_key_is_named_with_it() -> None:
    with pytest.raises(UsageError) as caught:
        refuse_drift(recipe(), recipe(adapter="lora"))
    assert "adapter: 'lora', was 'full'" in caught.value.saw
    assert "learning_rate: 0.0002, was 2e-05" in caught.value.saw
