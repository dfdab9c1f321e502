"""The audit finds an adapter that no gradient reaches, and an expert that was owed one."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from burnish.adapters.apply import apply_adapter
from burnish.adapters.audit import audit, watching_experts
from burnish.errors import UsageError
from tests.adapters.bench import base, recipe, train, with_room


@pytest.mark.parametrize("adapter", ["lora", "dora", "pissa", "lora_xs", "bottleneck"])
def test_every_method_passes_and_names_how_many_modules_it_reached(adapter: str) -> None:
    found = train(recipe(adapter), with_room("llama")).audit
    assert found.modules == (4 if adapter == "bottleneck" else 14) + 1
    assert f"all {found.modules} trained modules" in str(found)


@pytest.mark.parametrize("adapter", ["lora", "rslora", "lora_xs"])
@pytest.mark.parametrize("family", ["mixtral", "qwen2_moe"])
def test_every_expert_that_a_token_chose_is_trained(adapter: str, family: str) -> None:
    trained = train(recipe(adapter), with_room(family), updates=1)
    assert trained.audit.of_experts == 16  # 4 experts x 2 fused weights x 2 layers
    assert trained.audit.experts >= 12
    moved = 0
    for name, parameter in trained.masters.parameters.items():
        if "experts" in name and ("lora_B" in name):
            change = (parameter - trained.start[name]).abs()
            sizes = change.flatten(1).sum(1) if name.endswith("core") else change.view(-1, 4).sum(0)
            moved += int((sizes > 0).sum())
    assert moved == trained.audit.experts


def test_of_full_tuning_parameters_without_a_gradient_are_named_and_are_no_error() -> None:
    model = with_room("llama")
    model.model.register_parameter("unused", nn.Parameter(torch.ones(2)))
    found = train(recipe("full"), model).audit
    assert found.unreached == ("model.unused",)
    assert "none model.unused" in str(found)


def backward(model: nn.Module) -> None:
    ids = torch.tensor([[5, 9, 33, 7, 30, 21, 12, 44]])
    model(input_ids=ids, labels=ids).loss.backward()


def test_an_inert_adapter_stops_the_run_with_its_name() -> None:
    model = apply_adapter(base("llama"), recipe("lora"))
    dead = model.get_submodule("base_model.model.model.layers.1.mlp.down_proj")
    dead.scaling["default"] = 0.0  # the planted defect: its product counts for nothing
    with watching_experts(model) as owed:
        backward(model)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    with pytest.raises(UsageError, match=r"reached model\.layers\.1\.mlp\.down_proj \(1 of 14\)"):
        audit(model, trained, owed)


def test_an_expert_that_a_token_chose_and_no_gradient_reached_stops_the_run() -> None:
    model = apply_adapter(base("mixtral"), recipe("lora"))
    with watching_experts(model) as owed:
        backward(model)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert audit(model, trained, owed).experts > 0
    chosen = next(iter(owed.by_module.values())).nonzero().flatten()[0]
    name = "base_model.model.model.layers.0.mlp.experts.lora_B.default.weight"
    gradient = trained[name].grad
    assert gradient is not None
    gradient.view(-1, 4)[:, chosen] = 0.0  # the planted defect
    with pytest.raises(UsageError, match=f"expert {int(chosen)} "):
        audit(model, trained, owed)


def test_rows_that_did_not_occur_are_counted_and_are_no_error() -> None:
    found = train(recipe("lora", trainable_token_indices=[0, 61]), with_room("llama")).audit
    assert found.silent_rows == 0  # tied: as a head they compete for every target
    untied = train(recipe("lora", trainable_token_indices=[0, 2]), with_room("llama-padded")).audit
    assert untied.silent_rows == 2
    assert "2 trained token rows did not occur" in str(untied)
