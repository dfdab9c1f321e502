"""Methods beside the rest of the step: bf16 over fp32 masters, checkpointing, our own forward; the fold; LoRA+."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file

from burnish.adapters.apply import apply_adapter
from burnish.adapters.bottleneck import plain_name
from burnish.adapters.factors import frozen_factors, load_factors, lora_layers
from burnish.adapters.save import save_adapter
from burnish.data.pack import build_pack
from burnish.models.forward import open_forward, pack_attention
from tests.adapters.bench import base, examples, logits, recipe, train, with_room

METHODS = ["lora", "dora", "rslora", "pissa", "lora_xs", "bottleneck"]


@pytest.mark.parametrize("adapter", METHODS)
def test_bf16_copies_follow_fp32_masters(adapter: str) -> None:
    trained = train(recipe(adapter, dtype="bfloat16"), with_room("llama"), updates=4)
    assert trained.losses[-1] < trained.losses[0]
    assert {p.dtype for p in trained.masters.parameters.values()} == {torch.float32}
    assert {p.dtype for p in trained.model.parameters()} == {torch.bfloat16}
    copies = dict(trained.model.named_parameters())
    for name, master in trained.masters.parameters.items():
        assert torch.equal(copies[name], master.bfloat16())


@pytest.mark.parametrize("adapter", METHODS)
@pytest.mark.parametrize("family", ["llama", "mixtral"])
def test_the_gradient_is_plain_transformers_with_and_without_checkpointing(adapter: str, family: str) -> None:
    tuned = train(
        recipe(adapter), with_room(family), updates=2, new=()
    ).model  # trained token rows cost the flat forward
    one = examples(rows=1)
    ids = torch.tensor([one[0].input_ids])
    graded = torch.tensor(one[0].weights[1:])
    plain = copy.deepcopy(tuned)
    nll = torch.nn.functional.cross_entropy(plain(input_ids=ids).logits[0, :-1], ids[0, 1:], reduction="none")
    (nll @ graded).backward()
    wanted = {name: p.grad for name, p in plain.named_parameters() if p.grad is not None}
    for checkpointing in (False, True):
        fast = copy.deepcopy(tuned)
        if checkpointing:
            fast.gradient_checkpointing_enable({"use_reentrant": False})
            fast.train()
        forward = open_forward(fast, packed=True)
        with pack_attention(fast, packed=True):
            forward.loss(build_pack(one))[0].backward()
        assert forward.flat == (family == "llama")  # our own forward takes every method
        for name, parameter in fast.named_parameters():
            assert (parameter.grad is None) == (name not in wanted)
            if parameter.grad is not None:
                torch.testing.assert_close(parameter.grad, wanted[name], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("family", ["llama-padded", "gpt2", "mixtral"])
def test_a_folded_lora_xs_is_the_lora_xs_model_to_1e_5_and_plain_lora_to_peft(
    family: str, tmp_path: Path
) -> None:
    trained = train(recipe("lora_xs"), with_room(family))
    save_adapter(trained.model, tmp_path)
    names = load_file(tmp_path / "adapter_model.safetensors").keys()
    assert not any("core" in name or "frozen" in name for name in names)
    again = PeftModel.from_pretrained(with_room(family), tmp_path)
    torch.testing.assert_close(logits(again), logits(trained.model), rtol=0, atol=1e-5)
    count = sum(p.numel() for n, p in trained.masters.parameters.items() if "lora_" in n)
    layers = sum(".core" in name for name in trained.masters.parameters)
    if family != "mixtral":
        assert count == layers * 4 * 4


def test_lora_xs_starts_as_the_base_and_its_factors_are_the_base_s_leading_part() -> None:
    model = apply_adapter(base("gpt2"), recipe("lora_xs", lora_r=8))
    ids = torch.tensor([[3, 4, 5]])
    assert torch.equal(model(input_ids=ids).logits, base("gpt2")(input_ids=ids).logits)
    layer = model.get_submodule("base_model.model.transformer.h.0.mlp.c_fc")
    weight = layer.get_base_layer().weight.t()
    u, s, vt = torch.linalg.svd(weight)
    product = layer.lora_B["default"].frozen @ layer.lora_A["default"].weight
    torch.testing.assert_close(product, u[:, :8] * s[:8] @ vt[:8], rtol=1e-4, atol=1e-5)


def test_lora_xs_goes_on_with_the_factors_it_was_saved_with() -> None:
    model = apply_adapter(base("llama"), recipe("lora_xs"))
    saved = {name: p.detach().clone() for name, p in frozen_factors(model).items()}
    assert len(saved) == 2 * 14
    with torch.no_grad():
        for parameter in frozen_factors(model).values():
            parameter.neg_()  # another machine's SVD may choose the other signs
    load_factors(model, saved)
    assert all(torch.equal(p, saved[name]) for name, p in frozen_factors(model).items())


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_lora_plus_moves_b_faster(optimizer: str) -> None:
    from burnish.optim.build import Optimizer

    def moved(ratio: float) -> tuple[torch.Tensor, torch.Tensor]:
        torch.manual_seed(0)
        slow, fast = (torch.nn.Parameter(torch.randn(4, 4)) for _ in range(2))
        before = slow.detach().clone(), fast.detach().clone()
        names = {"x.lora_A.w": slow, "x.lora_B.w": fast}
        built = Optimizer(
            names,
            name=optimizer,
            weight_decay=0.0,
            embeddings=frozenset(),
            faster=frozenset({"x.lora_B.w"}),
            ratio=ratio,
        )
        slow.grad, fast.grad = torch.ones(4, 4), torch.ones(4, 4)
        built.step(1e-2)
        return slow.detach() - before[0], fast.detach() - before[1]

    (slow, fast), (same, plain) = moved(16.0), moved(1.0)
    torch.testing.assert_close(slow, same)
    torch.testing.assert_close(fast, 16 * plain)


def test_pissa_is_peft_s_own_pissa_over_an_untouched_base() -> None:
    ours = apply_adapter(base("llama"), recipe("pissa"))
    config = LoraConfig(
        task_type="CAUSAL_LM", r=4, lora_alpha=4, init_lora_weights="pissa", target_modules="all-linear"
    )
    theirs = get_peft_model(base("llama"), config)
    ids = torch.tensor([[3, 4, 5, 9, 20]])
    found = []
    for model in (ours, theirs):
        rate = 0.05
        for _ in range(2):  # the second gradient is taken where both have moved
            model.zero_grad()
            loss = model(input_ids=ids, labels=ids).loss
            loss.backward()
            with torch.no_grad():
                for parameter in model.parameters():
                    if parameter.grad is not None:
                        parameter -= rate * parameter.grad
        found.append(loss.detach())
        for name, layer in lora_layers(model):
            found.append((layer.lora_B["default"].weight @ layer.lora_A["default"].weight).detach())
            if model is theirs:
                remainder = layer.get_base_layer().weight - base("llama").get_parameter(
                    plain_name(name) + ".weight"
                )
                found[-1] = found[-1] + remainder
    half = len(found) // 2
    for one, other in zip(found[:half], found[half:], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=2e-5)
    untouched = base("llama").state_dict()
    for name, layer in lora_layers(ours):
        assert torch.equal(layer.get_base_layer().weight, untouched[plain_name(name) + ".weight"])
