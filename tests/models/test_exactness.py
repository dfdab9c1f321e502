"""Loss and every gradient are those of plain transformers, one document at a time: however the batch is cut.

The reference never meets burnish's attention, head, packs or flat forward. fp64 to 1e-6, fp32 to 1e-5,
relative, for each parameter by itself.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import peft
import pytest
import torch
import transformers

from burnish.data.pack import Pack, build_pack, total_weight
from burnish.models.forward import open_forward, pack_attention, why_unpacked
from burnish.types import Example
from tests.models.trees import examples, share

SMALL: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
GROUPED = {**SMALL, "num_key_value_heads": 2}
CONFIGS = {
    "llama": transformers.LlamaConfig(**GROUPED, tie_word_embeddings=True),
    "qwen2": transformers.Qwen2Config(**GROUPED),
    "qwen3": transformers.Qwen3Config(**GROUPED, head_dim=8),
    "mistral": transformers.MistralConfig(**GROUPED, sliding_window=4),
    "gemma2": transformers.Gemma2Config(**GROUPED, head_dim=8, sliding_window=4),
    "phi3": transformers.Phi3Config(**GROUPED, pad_token_id=0, eos_token_id=1, bos_token_id=1),
    "gpt_neox": transformers.GPTNeoXConfig(**SMALL),
    "gpt2": transformers.GPT2Config(
        vocab_size=64, n_embd=32, n_layer=2, n_head=4, n_positions=64, bos_token_id=1, eos_token_id=1
    ),
    "olmo2": transformers.Olmo2Config(**GROUPED),
    "mixtral": transformers.MixtralConfig(**GROUPED, num_local_experts=4),
    "cohere": transformers.CohereConfig(**GROUPED, logit_scale=0.25),
    "granite": transformers.GraniteConfig(**GROUPED, logits_scaling=4.0),
    "gpt_oss": transformers.GptOssConfig(**GROUPED, head_dim=8, num_local_experts=4, sliding_window=4),
}
FLAT = {"llama", "qwen2", "qwen3", "mistral", "olmo2"}
TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-5}
Found = tuple[float, dict[str, torch.Tensor]]


def tiny(name: str, dtype: torch.dtype) -> transformers.PreTrainedModel:
    torch.manual_seed(0)
    config = copy.deepcopy(CONFIGS[name])
    for key in ("attention_dropout", "attn_pdrop", "resid_pdrop", "embd_pdrop"):
        if hasattr(config, key):
            setattr(config, key, 0.0)
    model = transformers.AutoModelForCausalLM.from_config(config)
    if name in ("mixtral", "gpt_oss"):  # torch's grouped products know no fp64
        model.set_experts_implementation("eager")
    for parameter in model.parameters():  # norms and biases that are not ones and zeros
        parameter.data += 0.05 * torch.randn_like(parameter)
    return model.to(dtype).train()


def collected(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    found = {key: p.grad.clone() for key, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


def reference(model: torch.nn.Module, rows: Sequence[Example]) -> Found:
    """Plain transformers."""
    weight = sum(sum(row.weights) for row in rows)
    total = 0.0
    for row in rows:
        log_p = model(torch.tensor([row.input_ids])).logits[0].log_softmax(-1)
        graded = [k for k, w in enumerate(row.weights) if w]
        loss = -sum(row.weights[k] * log_p[k - 1, row.input_ids[k]] for k in graded) / weight
        loss.backward()
        total += float(loss.detach())
    return total, collected(model)


def ours(model: torch.nn.Module, packs: Sequence[Pack], *, flat: bool = True) -> Found:
    forward = open_forward(model, packed=True, flat=flat)
    weight = total_weight(packs)
    total = 0.0
    with pack_attention(model, packed=True):
        for pack in packs:
            part, _ = forward.loss(pack)
            (part / weight).backward()
            total += float(part.detach()) / weight
    assert forward.head is not None, forward.why_no_head
    return total, collected(model)


def same(found: Found, expected: Found, tolerance: float) -> None:
    assert found[0] == pytest.approx(expected[0], rel=tolerance)
    assert found[1].keys() == expected[1].keys()
    largest = max(float(g.norm()) for g in expected[1].values())
    for key, gradient in expected[1].items():
        # A gradient that is zero but for rounding (the bias of a key) has no relative error of its own.
        size = max(float(gradient.norm()), 1e-3 * largest)
        assert float((found[1][key] - gradient).norm()) < tolerance * size, key


def cut(rows: Sequence[Example], size: int, *, tree: bool) -> list[Pack]:
    """Micro-batches of `size` rows, the last one ragged."""
    make = share if tree else build_pack
    return [make(rows[at : at + size]) for at in range(0, len(rows), size)]


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("tree", [False, True], ids=["plain", "tree"])
@pytest.mark.parametrize("name", CONFIGS)
def test_packs_and_trees_of_every_family(name: str, tree: bool, dtype: torch.dtype) -> None:
    model, rows = tiny(name, dtype), examples()
    assert why_unpacked(model) is None
    expected = reference(model, rows)
    assert open_forward(model, packed=True).flat == (name in FLAT)
    same(ours(model, cut(rows, 6, tree=tree)), expected, TOLERANCE[dtype])
    if name in FLAT:
        same(ours(model, cut(rows, 6, tree=tree), flat=False), expected, TOLERANCE[dtype])


@pytest.mark.parametrize("checkpointing", [False, True], ids=["kept", "recomputed"])
@pytest.mark.parametrize("tree", [False, True], ids=["plain", "tree"])
@pytest.mark.parametrize("size", [1, 2, 4, 5, 6])
@pytest.mark.parametrize("name", ["llama", "gemma2"])
def test_micro_batches_ragged_ones_too_and_checkpointing(
    name: str, size: int, tree: bool, checkpointing: bool
) -> None:
    model, rows = tiny(name, torch.float64), examples()
    expected = reference(model, rows)
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    same(ours(model, cut(rows, size, tree=tree)), expected, 1e-6)


@pytest.mark.parametrize("tree", [False, True], ids=["plain", "tree"])
@pytest.mark.parametrize("name", ["llama", "qwen3", "gpt2", "gemma2"])
def test_adapters(name: str, tree: bool) -> None:
    config = peft.LoraConfig(target_modules="all-linear", r=4, lora_alpha=12, task_type="CAUSAL_LM")
    model = peft.get_peft_model(tiny(name, torch.float64), config, autocast_adapter_dtype=False)
    for key, parameter in model.named_parameters():
        if "lora_B" in key:
            torch.nn.init.normal_(parameter, std=0.1)
    rows = examples()
    same(ours(model, cut(rows, 4, tree=tree)), reference(model, rows), 1e-6)


@pytest.mark.parametrize("where", ["new tokens", "tied new tokens", "head"])
def test_adapters_on_embedding_and_head(where: str) -> None:
    """Where the head is no plain matrix, the model's own logits are graded."""
    name = "llama" if where == "tied new tokens" else "qwen2"
    extra: dict[str, Any] = {"target_modules": ["q_proj", "lm_head"]} if where == "head" else {}
    if where != "head":
        names = ["embed_tokens"] if where.startswith("tied") else ["embed_tokens", "lm_head"]
        extra = {"target_modules": ["q_proj"], "trainable_token_indices": {key: [3, 7] for key in names}}
    config = peft.LoraConfig(r=4, task_type="CAUSAL_LM", **extra)
    model = peft.get_peft_model(tiny(name, torch.float64), config, autocast_adapter_dtype=False)
    rows = examples()
    forward = open_forward(model, packed=True)
    weight = total_weight([build_pack(rows)])
    with pack_attention(model, packed=True):
        loss, nll = forward.loss(build_pack(rows))
        (loss / weight).backward()
    same((float(loss.detach()) / weight, collected(model)), reference(model, rows), 1e-6)
    assert not nll.requires_grad


@pytest.mark.parametrize("name", ["llama", "mistral", "gemma2", "gpt2", "mixtral"])
def test_changing_one_document_leaves_the_logits_of_the_others_bit_equal(name: str) -> None:
    model, rows = tiny(name, torch.float32).eval(), examples()
    other = Example(
        0, 0, (1,), np.random.default_rng(9).integers(3, 60, len(rows[0])).tolist(), rows[0].weights
    )

    def logits_of_the_others(first: Example) -> torch.Tensor:
        with torch.no_grad(), pack_attention(model, packed=True):
            return open_forward(model, packed=True).logits(build_pack([first, *rows[1:]]))[first.num_graded :]

    ours, theirs = logits_of_the_others(rows[0]), logits_of_the_others(other)
    if name == "mixtral":
        # Its experts multiply the tokens of all documents together: which ones those are decides how sums are cut.
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    else:
        assert torch.equal(ours, theirs)


def test_smoothing_and_z_loss_have_the_same_denominator_with_and_without_a_known_head() -> None:
    model, rows = tiny("llama", torch.float64), examples()
    packs = [build_pack(rows), share(rows)]
    losses = []
    with pack_attention(model, packed=True):
        for pack in packs:
            forward = open_forward(model, packed=True)
            losses.append(float(forward.loss(pack, label_smoothing=0.1, z_loss=1e-3)[0].detach()))
            forward.head = None
            losses.append(float(forward.loss(pack, label_smoothing=0.1, z_loss=1e-3)[0].detach()))
    assert losses == pytest.approx([losses[0]] * 4, rel=1e-7)
