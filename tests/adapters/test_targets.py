"""What gets an adapter is found by name, experts included, and whatever is named and not there is an error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel

from burnish.adapters.apply import apply_adapter, describe_trainable
from burnish.adapters.bottleneck import load_bottleneck
from burnish.adapters.save import merged, save_adapter
from burnish.adapters.targets import find_targets
from burnish.errors import UsageError
from tests.adapters.bench import base, logits, recipe, train, with_room

EXPERTS = ["model.layers.0.mlp.experts.gate_up_proj", "model.layers.0.mlp.experts.down_proj"]


def names(family: str, **keys: Any) -> list[str]:
    found = find_targets(base(family), recipe("lora", **keys))
    return [name for name in [*found.modules, *found.parameters] if ".0." in name]


def test_all_linear_takes_every_linear_layer_but_the_head_and_the_experts_of_a_mixture() -> None:
    assert {name.rpartition(".")[2] for name in names("gpt2")} == {"c_attn", "c_proj", "c_fc"}
    assert len(names("gpt2")) == 4
    assert set(EXPERTS) <= set(names("mixtral"))
    qwen = names("qwen2_moe")
    assert set(EXPERTS) <= set(qwen)
    # PEFT alone takes these three for the old names of experts, and drops them
    assert {f"model.layers.0.mlp.shared_expert.{n}_proj.weight" for n in ("gate", "up", "down")} <= set(qwen)
    assert not any("lm_head" in name or name.endswith("mlp.gate") for name in qwen)


def test_a_name_a_list_an_expression_and_layers_select() -> None:
    one = ["model.layers.0.self_attn.q_proj"]
    assert names("llama", lora_target_modules="q_proj") == one
    assert names("llama", lora_target_modules=["self_attn.q_proj"]) == one
    assert names("llama", lora_target_modules=r".*\.0\..*(q|k)_proj") == [
        *one,
        "model.layers.0.self_attn.k_proj",
    ]
    assert names("mixtral", lora_target_modules="experts.down_proj") == EXPERTS[1:]
    found = find_targets(base("llama"), recipe("lora", layers_to_transform=[1]))
    assert {name.split(".")[2] for name in found.modules} == {"1"}


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"lora_target_modules": ["q_proj", "nope"]}, "'nope' matches no layer"),
        ({"lora_target_modules": "q_("}, "matches no layer"),
        ({"lora_target_modules": "lm_head"}, "shares its matrix with the embedding"),
        ({"layers_to_transform": [2]}, "the model has 2 layers"),
        ({"modules_to_save": ["nope"]}, "'nope' is no module"),
        ({"trainable_token_indices": [64]}, "the vocabulary has 64 rows"),
        ({"adapter": "full", "freeze": ["nope"]}, "in no parameter's name"),
        ({"adapter": "full", "freeze": ["."]}, "nothing is left to train"),
        ({"adapter": "full", "freeze": ["embed"]}, "freezes the embedding"),
        ({"adapter": "qlora"}, "over a base in full precision"),
    ],
)
def test_what_is_named_and_not_there_stops_the_run(keys: dict[str, Any], said: str) -> None:
    asked = recipe(**{"adapter": "lora", **keys})
    with pytest.raises(UsageError) as caught:
        apply_adapter(with_room("llama"), asked, new_tokens=(62, 63))
    assert said in caught.value.saw


@pytest.mark.parametrize("adapter", ["dora", "pissa"])
def test_experts_that_stay_frozen_are_counted_and_naming_them_is_an_error(adapter: str) -> None:
    model = base("mixtral")
    count = sum(model.get_parameter(name).numel() for name in EXPERTS) * 2
    tuned = apply_adapter(model, recipe(adapter))
    (note,) = describe_trainable(tuned, recipe(adapter)).notes
    assert f"{count:,} parameters" in note and adapter in note
    with pytest.raises(UsageError, match="names fused experts"):
        apply_adapter(base("mixtral"), recipe(adapter, lora_target_modules="experts.down_proj"))


def test_what_is_trained_is_counted_and_listed() -> None:
    tuned = apply_adapter(base("mixtral"), recipe("lora"))
    found = describe_trainable(tuned, recipe("lora"))
    assert found.notes == ()
    assert found.summary == "2 x q_proj, 2 x k_proj, 2 x v_proj, 2 x o_proj, 2 x down_proj, 2 x gate_up_proj"
    assert found.parameters == sum(p.numel() for n, p in tuned.named_parameters() if "lora_" in n)
    assert set(EXPERTS) <= set(found.modules)


def test_a_rank_above_a_layer_s_own_is_cut_to_it() -> None:
    found = find_targets(base("llama"), recipe("lora_xs", lora_r=24))
    assert set(found.ranks.values()) == {16}  # keys and values have 16 rows
    assert train(recipe("lora_xs", lora_r=24), with_room("llama")).audit.modules == 15


@pytest.mark.parametrize("family", ["llama", "llama-padded", "gpt_neox"])
@pytest.mark.parametrize("adapter", ["lora", "bottleneck"])
def test_a_head_that_is_trained_whole_stays_what_it_was_to_the_embedding(
    adapter: str, family: str, tmp_path: Path
) -> None:
    trained = train(recipe(adapter, modules_to_save=["lm_head"]), with_room(family))
    tuned = logits(trained.model)
    save_adapter(trained.model, tmp_path)
    fresh = with_room(family)
    again = (
        PeftModel.from_pretrained(fresh, tmp_path) if adapter == "lora" else load_bottleneck(fresh, tmp_path)
    )
    torch.testing.assert_close(logits(again), tuned, rtol=0, atol=1e-4)
    plain = merged(trained.model)
    if adapter == "lora":
        torch.testing.assert_close(logits(plain), tuned, rtol=0, atol=1e-4)
    start = with_room(family).get_output_embeddings().weight
    assert not torch.equal(plain.get_output_embeddings().weight, start)
    tied = plain.get_output_embeddings().weight is plain.get_input_embeddings().weight
    assert tied == (family == "llama")
