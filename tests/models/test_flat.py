"""Our own forward for Llama-shaped families: transformers' numbers and gradients, and no parameters of its own."""

from __future__ import annotations

from typing import Any

import peft
import pytest
import torch
import transformers

from burnish.data.pack import build_pack
from burnish.losses import cross_entropy
from burnish.models.flat import why_not_flat
from burnish.models.forward import graded_nll, open_forward, pack_attention
from burnish.optim.masters import Masters
from tests.models.trees import examples, share

SMALL: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
CONFIGS = {
    "llama": transformers.LlamaConfig(**SMALL, attention_bias=True, mlp_bias=True),
    "llama, tied, scaled rope": transformers.LlamaConfig(
        **SMALL,
        tie_word_embeddings=True,
        rope_parameters={
            "rope_type": "llama3",
            "rope_theta": 1e4,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 16,
        },
    ),
    "qwen2": transformers.Qwen2Config(**SMALL),
    "qwen2, half of it slides": transformers.Qwen2Config(
        **SMALL, use_sliding_window=True, sliding_window=4, max_window_layers=1
    ),
    "qwen3": transformers.Qwen3Config(**SMALL, head_dim=16),
    "mistral": transformers.MistralConfig(**SMALL, sliding_window=4),
    "olmo2": transformers.Olmo2Config(**SMALL),
}
DOUBLE = torch.float64


def tiny(name: str, dtype: torch.dtype = DOUBLE) -> transformers.PreTrainedModel:
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(CONFIGS[name]).to(dtype)
    for parameter in model.parameters():  # norms and biases that are not ones and zeros
        parameter.data += 0.05 * torch.randn_like(parameter)
    return model


def gradients(
    model: torch.nn.Module, pack: Any, *, flat: bool
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    model.zero_grad()
    forward = open_forward(model, packed=True, flat=flat)
    with pack_attention(model, packed=True):
        loss, _ = forward.loss(pack)
        loss.backward()
    assert forward.flat == flat
    assert forward.head is not None
    return loss.detach(), {key: p.grad.clone() for key, p in model.named_parameters() if p.grad is not None}


def same(one: Any, other: Any, tolerance: float) -> None:
    torch.testing.assert_close(one[0], other[0], rtol=tolerance, atol=0)
    assert one[1].keys() == other[1].keys()
    for key, gradient in one[1].items():
        error = (gradient - other[1][key]).norm() / other[1][key].norm().clamp(min=1e-9)
        assert float(error) < tolerance, (key, float(error))


@pytest.mark.parametrize("tree", [False, True], ids=["plain", "tree"])
@pytest.mark.parametrize("name", CONFIGS)
def test_loss_and_every_gradient_are_those_of_the_modules(name: str, tree: bool) -> None:
    pack = share(examples()) if tree else build_pack(examples())
    model = tiny(name)
    assert why_not_flat(model) is None
    same(gradients(model, pack, flat=True), gradients(model, pack, flat=False), 1e-6)
    model = model.float()
    same(gradients(model, pack, flat=True), gradients(model, pack, flat=False), 1e-5)


@pytest.mark.parametrize("name", ["llama", "qwen3"])
def test_adapters_keep_their_structure_and_their_gradients(name: str) -> None:
    config = peft.LoraConfig(target_modules="all-linear", r=4, lora_alpha=12, task_type="CAUSAL_LM")
    model = peft.get_peft_model(tiny(name), config, autocast_adapter_dtype=False)
    for key, parameter in model.named_parameters():
        if "lora_B" in key:
            torch.nn.init.normal_(parameter, std=0.1)
    pack = build_pack(examples())
    found, expected = gradients(model, pack, flat=True), gradients(model, pack, flat=False)
    assert len(expected[1]) == 2 * 7 * 2
    same(found, expected, 1e-6)


@pytest.mark.parametrize("rows", [[7, 63], [61]], ids=["met in the text", "never met"])
@pytest.mark.parametrize("name", ["llama", "llama, tied, scaled rope"])
def test_rows_trained_in_a_frozen_table_are_graded_without_its_logits_and_get_the_modules_gradient(
    name: str, rows: list[int]
) -> None:
    model = tiny(name)
    tables = {"embed_tokens": rows} | ({} if model.config.tie_word_embeddings else {"lm_head": rows})
    config = peft.LoraConfig(
        target_modules=["q_proj"], r=4, task_type="CAUSAL_LM", trainable_token_indices=tables
    )
    model = peft.get_peft_model(model, config, autocast_adapter_dtype=False)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1 * torch.randn_like(parameter)
    pack = build_pack(examples())
    found = gradients(model, pack, flat=True)
    same(found, gradients(model, pack, flat=False), 1e-6)
    # and both are what comes of all logits, through PEFT's own layers
    model.zero_grad()
    with pack_attention(model, packed=True):
        graded_nll(model, pack, packed=True).double().dot(torch.from_numpy(pack.weights).double()).backward()
    for key, parameter in model.named_parameters():
        if parameter.grad is not None and parameter.grad.any():
            assert float((found[1][key] - parameter.grad).norm() / parameter.grad.norm()) < 1e-5
    assert sum("trainable_tokens_delta" in key for key in found[1]) == len(tables)


def test_dropout_of_an_adapter_is_drawn_as_peft_draws_it() -> None:
    config = peft.LoraConfig(target_modules="all-linear", r=4, lora_dropout=0.5, task_type="CAUSAL_LM")
    model = peft.get_peft_model(tiny("llama"), config, autocast_adapter_dtype=False).train()
    for key, parameter in model.named_parameters():
        if "lora_B" in key:
            torch.nn.init.normal_(parameter, std=0.1)
    losses = []
    for _ in range(2):
        forward = open_forward(model, packed=True)
        with pack_attention(model, packed=True):
            losses.append(float(forward.loss(build_pack(examples()))[0].detach()))
    assert losses[0] != losses[1]


def test_checkpointing_changes_no_gradient() -> None:
    model, pack = tiny("llama").train(), build_pack(examples())
    plain = gradients(model, pack, flat=True)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    same(gradients(model, pack, flat=True), plain, 1e-12)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (transformers.Gemma2Config(**SMALL, head_dim=8), "table"),
        (transformers.LlamaConfig(**SMALL, hidden_act="gelu"), "activation"),
    ],
)
def test_other_models_are_left_to_transformers_with_a_reason(config: Any, reason: str) -> None:
    why = why_not_flat(transformers.AutoModelForCausalLM.from_config(config))
    assert why is not None and reason in why


def test_a_forward_that_is_not_what_the_table_says_is_found_out_on_the_first_pack(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from burnish.models import flat

    monkeypatch.setitem(flat.FAMILIES, "Qwen3Model", flat.Family())  # the planted defect: no query norm
    model = tiny("qwen3")
    forward = open_forward(model, packed=True)
    with pack_attention(model, packed=True):
        forward.loss(build_pack(examples()))
    assert not forward.flat and forward.why_not_flat is not None and "differ" in forward.why_not_flat
    assert forward.head is not None


@pytest.mark.parametrize("packs", [1, 2])
@pytest.mark.parametrize("padding", [None, 7])
@pytest.mark.parametrize("name", ["llama, tied, scaled rope", "qwen2"])
def test_a_tables_gradient_is_summed_in_fp32_and_no_further_from_the_truth_than_autograds(
    name: str, padding: int | None, packs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(cross_entropy.CHUNK, "cpu", 4)  # several chunks to a pack
    given = [build_pack(examples(seed)) for seed in range(packs)]
    found = {}
    for way in ("truth", "autograd", "summed apart"):
        model: Any = tiny(name, torch.float32)
        for parameter in model.parameters():
            parameter.data = parameter.data.bfloat16().float()
        model.model.embed_tokens.padding_idx = padding
        masters = Masters(model, compute=torch.float32 if way == "truth" else torch.bfloat16)
        for parameter in model.parameters():
            if way == "autograd":
                del parameter.gradient_sum
        forward = open_forward(model, packed=True)
        by_autograd: list[Any] = []
        model.model.embed_tokens.weight.register_hook(by_autograd.append)
        with pack_attention(model, packed=True):
            forward.loss(given[0])  # given up before its backward pass
            masters.zero_grad()
            for pack in given:
                forward.loss(pack)[0].backward()
        assert forward.flat and forward.head is not None
        by_autograd = [gradient for gradient in by_autograd if gradient is not None]
        assert bool(by_autograd) == (way != "summed apart") or packs == 2
        found[way] = {key: p.grad.clone() for key, p in masters.parameters.items() if p.grad is not None}
    for key, truth in found["truth"].items():
        off = {way: float((found[way][key] - truth).norm() / truth.norm()) for way in found}
        assert off["summed apart"] < max(1.05 * off["autograd"], 1e-6) and off["autograd"] < 0.05, (key, off)


def test_in_bf16_what_a_young_adapter_adds_is_not_lost_in_the_residual_stream() -> None:
    config = transformers.LlamaConfig(**SMALL | {"hidden_size": 128, "intermediate_size": 256})
    torch.manual_seed(0)
    model: Any = transformers.AutoModelForCausalLM.from_config(config)
    model.model.embed_tokens.weight.data *= 100.0  # a stream whose bf16 steps are larger than what is added
    adapted: Any = peft.get_peft_model(
        model, peft.LoraConfig(r=4, lora_alpha=8, target_modules=["o_proj", "down_proj"])
    )
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=4e-3)
    pack = build_pack(examples())
    added = {}
    for way, dtype in (("truth", torch.float32), ("modules", torch.bfloat16), ("flat", torch.bfloat16)):
        forward = open_forward(adapted.to(dtype), packed=True, flat=way == "flat")
        with pack_attention(adapted, packed=True), torch.no_grad():
            on = forward.hidden(pack).float()
            with adapted.disable_adapter():
                added[way] = on - forward.hidden(pack).float()
        assert forward.flat == (way == "flat")
    kept = {
        way: float((one * added["truth"]).sum() / added["truth"].square().sum()) for way, one in added.items()
    }
    assert kept["modules"] == pytest.approx(1.0, abs=0.15)
    assert kept["flat"] == pytest.approx(
        1.0, abs=0.15
    )  # 0.49 where it was added to the sum with the residual
