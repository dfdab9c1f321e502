"""Scaled RoPE is transformers' own, by its names; what would make a row depend on its company is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from pydantic import ValidationError

from burnish.errors import UsageError
from burnish.models.load import context_length, load_model
from burnish.models.rope import fixed_theta, positions_with, read_record, scale_positions, write_record
from burnish.recipe.schema import Recipe, RopeScaling
from burnish.training.run import train
from tests.conftest import GROUPED
from tests.training.test_run import final_weights, recipe

SHORT = {"vocab_size": 64, "max_position_embeddings": 32, **GROUPED}
THETA = 10_000.0


def llama(**more: Any) -> Any:
    torch.manual_seed(0)
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**SHORT, **more))


def scaling(**values: Any) -> RopeScaling:
    return RopeScaling.model_validate(values)


SAID: dict[str, dict[str, Any]] = {
    "linear": {"rope_type": "linear", "factor": 4.0},
    "yarn": {"rope_type": "yarn", "factor": 4.0, "beta_fast": 16.0},
    "llama3": {"rope_type": "llama3", "factor": 8.0},
    "default": {"rope_type": "default", "rope_theta": 5e5},
    "dynamic": {"rope_type": "dynamic", "factor": 2.0},
}
STOCK: dict[str, dict[str, Any]] = {
    "linear": {"rope_type": "linear", "factor": 4.0, "rope_theta": THETA},
    "yarn": {
        "rope_type": "yarn",
        "factor": 4.0,
        "beta_fast": 16.0,
        "rope_theta": THETA,
        "original_max_position_embeddings": 32,
    },
    "llama3": {
        "rope_type": "llama3",
        "factor": 8.0,
        "rope_theta": THETA,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    },
    "default": {"rope_type": "default", "rope_theta": 5e5},
    "dynamic": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": THETA},
}
LINEAR = {"rope_type": "linear", "factor": 2.0}
POSITIONS = {"linear": 128, "yarn": 128, "llama3": 256, "default": 100, "dynamic": 32}


@pytest.mark.parametrize("kind", SAID)
def test_a_scaled_model_is_the_one_that_transformers_makes_from_these_parameters(kind: str) -> None:
    ours = scale_positions(llama(), scaling(**SAID[kind]), max_length=32 if kind == "dynamic" else 100)
    stock = llama(rope_parameters=STOCK[kind])
    stock.load_state_dict(ours.state_dict())
    ids = torch.arange(100)[None] % 64
    with torch.no_grad():
        assert torch.equal(ours(ids).logits, stock(ids).logits)
        if kind not in ("dynamic",):
            plain = llama()
            plain.load_state_dict(ours.state_dict())
            assert not torch.allclose(ours(ids).logits, plain(ids).logits, atol=1e-4)
    assert ours.config.max_position_embeddings == POSITIONS[kind]


def test_what_is_saved_is_scaled_for_whoever_loads_it(tmp_path: Path) -> None:
    ours = scale_positions(llama(), scaling(**SAID["yarn"])).eval()
    ours.save_pretrained(tmp_path)
    loaded = load_model(str(tmp_path), device=torch.device("cpu")).eval()
    ids = torch.arange(100)[None] % 64
    with torch.no_grad():
        assert torch.equal(ours(ids).logits, loaded(ids).logits)
    assert context_length(str(tmp_path)) == 128


def test_dynamic_past_the_positions_is_refused_with_the_base_that_it_comes_to() -> None:
    asked = scaling(**SAID["dynamic"])
    with pytest.raises(UsageError, match="does not depend on its company") as refused:
        scale_positions(llama(), asked, max_length=100)
    theta = fixed_theta(THETA, 8, 2.0, 100, 32)
    assert f"rope_theta: {theta:.6g}" in str(refused.value)
    fixed = scale_positions(llama(), scaling(rope_type="default", rope_theta=theta), max_length=100)
    stock = llama(rope_parameters=STOCK["dynamic"])
    stock.load_state_dict(fixed.state_dict())
    ids = torch.arange(100)[None] % 64
    with torch.no_grad():
        torch.testing.assert_close(fixed(ids).logits, stock(ids).logits)


def test_a_model_that_is_scaled_already_must_be_told_what_to_count_from() -> None:
    with pytest.raises(UsageError, match="original_max_position_embeddings too"):
        scale_positions(llama(rope_parameters=STOCK["llama3"]), scaling(**SAID["yarn"]))
    again = scaling(**SAID["yarn"], original_max_position_embeddings=32)
    model = scale_positions(llama(rope_parameters=STOCK["llama3"]), again)
    assert model.config.rope_parameters == STOCK["yarn"]
    assert positions_with(llama(rope_parameters=STOCK["llama3"]).config, again) == 128


@pytest.mark.parametrize("family", ["gpt2", "gemma3"])
def test_models_without_one_rope_for_all_layers_are_refused(family: str) -> None:
    configs = {
        "gpt2": lambda: transformers.GPT2Config(n_embd=32, n_layer=1, n_head=4, vocab_size=64),
        "gemma3": lambda: transformers.Gemma3TextConfig(**{**SHORT, "num_hidden_layers": 2}, head_dim=8),
    }
    model = transformers.AutoModelForCausalLM.from_config(configs[family]())
    with pytest.raises(UsageError, match="rope_scaling on"):
        scale_positions(model, scaling(**SAID["linear"]))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"rope_type": "yarn"}, "needs factor"),
        ({"rope_type": "linear", "factor": 2, "beta_fast": 3}, "no use for beta_fast"),
        ({"rope_type": "longest", "factor": 2}, "rope_type"),
        ({"rope_type": "linear", "factor": 0.5}, "factor"),
        ({"rope_type": "default"}, "needs rope_theta"),
        ({"rope_type": "llama3", "factor": 2, "low_freq_factor": 9}, "below"),
    ],
)
def test_values_that_a_type_does_not_take_are_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Recipe(model="m", datasets="d", rope_scaling=values)  # type: ignore[arg-type]


def test_an_adapter_says_beside_itself_how_its_rope_was_scaled(tmp_path: Path) -> None:
    write_record(None, tmp_path)
    assert read_record(tmp_path) is None
    write_record(scaling(**SAID["llama3"]), tmp_path)
    assert read_record(tmp_path) == scaling(**SAID["llama3"])


def test_a_run_trains_and_ends_with_the_scaled_model(
    model_directory: Callable[[str], Path], data_file: Path, tmp_path: Path
) -> None:
    keys = {"num_epochs": None, "max_steps": 2, "adapter": "lora"}
    run = train(
        recipe(model_directory("llama"), data_file, tmp_path / "runs", **keys, rope_scaling=LINEAR)
    ).run
    config = transformers.AutoConfig.from_pretrained(run / "final")
    assert (config.rope_parameters["rope_type"], config.rope_parameters["factor"]) == ("linear", 2.0)
    assert read_record(run / "adapter") == scaling(rope_type="linear", factor=2.0)
    assert final_weights(run)
