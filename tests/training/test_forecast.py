"""Arithmetic that can be done on paper, done on paper."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import transformers

from burnish.models.anatomy import anatomy_of
from burnish.parallel.hardware import ACCELERATORS
from burnish.parallel.mesh import Mesh
from burnish.recipe.schema import Recipe
from burnish.training.cluster import Cluster, on_cluster
from burnish.training.forecast import (
    GB,
    Work,
    memory_of,
    operations,
    what_to_change,
)
from burnish.training.holding import with_checkpointing

LLAMA_70B = {
    "hidden_size": 8192,
    "intermediate_size": 28672,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "tie_word_embeddings": False,
}
WORK = Work(steps=100, computed_tokens=1e6, graded_tokens=4e5, mean_context=256, pack_tokens=4096)


@pytest.fixture
def seventy(tmp_path: Path) -> str:
    transformers.LlamaConfig(**LLAMA_70B).save_pretrained(tmp_path)
    return str(tmp_path)


def asked(**more: Any) -> Recipe:
    return Recipe(model="m", datasets="d", **more)  # type: ignore[arg-type]


def test_70b_in_bf16_is_140_gb_of_weights_and_no_adapter_makes_it_less(seventy: str) -> None:
    anatomy = anatomy_of(seventy)
    assert anatomy.parameters == pytest.approx(70.55e9, rel=1e-3)
    recipe = asked(adapter="lora")
    forecast = on_cluster(
        Cluster(ACCELERATORS["T4"], 1), recipe, anatomy, trained=anatomy.lora_parameters(16), work=WORK
    )
    assert forecast.memory.weights == pytest.approx(141.1 * GB, rel=1e-3)
    said = "\n".join(what_to_change(forecast, recipe))
    assert not forecast.fits and "the weights alone, in bf16, are 141.1 GB" in said
    assert "sharded over at least 11 such devices" in said


def test_full_tuning_in_bf16_holds_sixteen_bytes_and_two_for_a_parameter(seventy: str) -> None:
    anatomy = anatomy_of(seventy)
    memory = memory_of(asked(), anatomy, trained=anatomy.parameters, pack_tokens=1)
    states = memory.weights + memory.masters + memory.gradients + memory.optimizer
    assert states == pytest.approx((2 + 4 + 4 + 8) * anatomy.parameters)
    exact = memory_of(asked(dtype="float32"), anatomy, trained=anatomy.parameters, pack_tokens=1)
    assert exact.masters == 0 and exact.weights == 4 * anatomy.parameters


def test_lora_counts_the_parameters_that_peft_makes(tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    config = transformers.LlamaConfig(
        hidden_size=64,
        intermediate_size=160,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=100,
    )
    config.save_pretrained(tmp_path)
    model = get_peft_model(
        transformers.LlamaForCausalLM(config),
        LoraConfig(task_type="CAUSAL_LM", r=8, target_modules="all-linear"),
    )
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert anatomy_of(str(tmp_path)).lora_parameters(8) == trained


def test_operations_are_six_times_parameters_times_tokens_where_attention_and_head_are_small(
    seventy: str,
) -> None:
    anatomy = anatomy_of(seventy)
    work = Work(steps=1, computed_tokens=1e6, graded_tokens=0, mean_context=0, pack_tokens=1)
    assert operations(asked(), anatomy, work) == pytest.approx(6 * anatomy.layer_parameters * 1e6)
    assert operations(asked(adapter="lora"), anatomy, work) == pytest.approx(
        4 * anatomy.layer_parameters * 1e6
    )
    assert operations(asked(gradient_checkpointing=True), anatomy, work) == pytest.approx(
        8 * anatomy.layer_parameters * 1e6
    )


def test_checkpointing_keeps_one_number_of_a_layer_where_it_kept_all(seventy: str) -> None:
    anatomy = anatomy_of(seventy)
    usual = memory_of(asked(), anatomy, trained=0, pack_tokens=4096)
    less = memory_of(asked(gradient_checkpointing=True), anatomy, trained=0, pack_tokens=4096)
    assert less.activations < 0.15 * usual.activations


def test_auto_recomputes_where_a_step_that_keeps_all_does_not_fit_and_what_is_said_is_left(
    seventy: str,
) -> None:
    anatomy = anatomy_of(seventy)

    def decided(room: float, **keys: object) -> object:
        return with_checkpointing(
            asked(**keys), anatomy, Mesh(), trained=0, pack_tokens=4096, room=room
        ).gradient_checkpointing

    needed = memory_of(asked(), anatomy, trained=0, pack_tokens=4096).total
    assert asked().gradient_checkpointing == "auto"
    assert decided(0.99 * needed) is True
    assert decided(1.01 * needed) is False
    assert decided(0.1 * needed, gradient_checkpointing=False) is False
    assert decided(9.9 * needed, gradient_checkpointing=True) is True
