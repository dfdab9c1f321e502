"""A pack's graded logits are those of plain transformers, one document at a time, for every family."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers

from burnish.data.pack import Pack, build_pack
from burnish.models.forward import graded_nll, open_forward, pack_attention, why_unpacked
from burnish.types import Example

SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
GROUPED = {**SMALL, "num_key_value_heads": 2}
CONFIGS = {
    "llama": transformers.LlamaConfig(vocab_size=64, **GROUPED),
    "qwen2": transformers.Qwen2Config(vocab_size=64, **GROUPED),
    "qwen3": transformers.Qwen3Config(vocab_size=64, head_dim=8, **GROUPED),
    "gemma2": transformers.Gemma2Config(vocab_size=64, head_dim=8, sliding_window=4, **GROUPED),
    "mistral": transformers.MistralConfig(vocab_size=64, sliding_window=4, **GROUPED),
    "phi3": transformers.Phi3Config(vocab_size=64, pad_token_id=0, eos_token_id=1, bos_token_id=1, **GROUPED),
    "mixtral": transformers.MixtralConfig(vocab_size=64, num_local_experts=4, **GROUPED),
    "gpt_oss": transformers.GptOssConfig(
        vocab_size=64, head_dim=8, num_local_experts=4, sliding_window=8, **GROUPED
    ),
    "gpt_neox": transformers.GPTNeoXConfig(vocab_size=64, **SMALL),
    "gpt2": transformers.GPT2Config(
        vocab_size=64, n_embd=32, n_layer=2, n_head=4, n_positions=64, bos_token_id=1, eos_token_id=1
    ),
    "gpt_neo": transformers.GPTNeoConfig(
        vocab_size=64,
        hidden_size=32,
        num_layers=2,
        num_heads=4,
        attention_types=[[["global", "local"], 1]],
        window_size=4,
        max_position_embeddings=64,
        bos_token_id=1,
        eos_token_id=1,
    ),
    "mamba": transformers.MambaConfig(vocab_size=64, hidden_size=32, num_hidden_layers=2, state_size=4),
}
ONE_BY_ONE = {"gpt_neo", "mamba"}


def tiny(name: str) -> transformers.PreTrainedModel:
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(CONFIGS[name]).eval()


def examples(seed: int = 0) -> list[Example]:
    """Four documents of different lengths, about half of their tokens graded, with weights that are not all 1."""
    draw = np.random.default_rng(seed)
    made = []
    for row, length in enumerate([5, 9, 12, 2]):
        weights = draw.choice([0.0, 1.0, 0.5], length - 1).tolist()
        made.append(Example(row, 0, (1,), draw.integers(3, 60, length).tolist(), [0.0, *weights[:-1], 1.0]))
    return made


def reference_nll(model: transformers.PreTrainedModel, example: Example) -> torch.Tensor:
    """Plain transformers: the whole document, all logits, log-softmax in the open."""
    logits = model(torch.tensor([example.input_ids])).logits[0].float()
    graded = [k for k, weight in enumerate(example.weights) if weight]
    return torch.stack([-logits[k - 1].log_softmax(-1)[example.input_ids[k]] for k in graded])


@pytest.mark.parametrize("name", CONFIGS)
def test_the_loss_and_every_gradient_of_a_pack_are_those_of_plain_transformers(name: str) -> None:
    model, documents = tiny(name), examples()
    pack = build_pack(documents)
    weights = torch.from_numpy(pack.weights)

    expected = torch.cat([reference_nll(model, example) for example in documents])
    (expected @ weights / weights.sum()).backward()
    expected_grads = {key: p.grad.clone() for key, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    packed = why_unpacked(model) is None
    with pack_attention(model, packed=packed):
        nll = graded_nll(model, pack, packed=packed)
        (nll @ weights / weights.sum()).backward()

    torch.testing.assert_close(nll, expected, rtol=1e-5, atol=1e-5)
    for key, parameter in model.named_parameters():
        if key in expected_grads:
            torch.testing.assert_close(parameter.grad, expected_grads[key], rtol=1e-4, atol=2e-6, msg=key)


@pytest.mark.parametrize("name", CONFIGS)
def test_models_that_cannot_follow_document_bounds_are_computed_one_by_one(name: str) -> None:
    assert (why_unpacked(tiny(name)) is not None) == (name in ONE_BY_ONE)


@pytest.mark.parametrize("name", ["llama", "gemma2", "mistral", "gpt2"])
def test_changing_one_document_leaves_the_logits_of_the_others_bit_equal(name: str) -> None:
    model, documents = tiny(name), examples()
    other = Example(0, 0, (1,), [7, 8, 9, 10, 11], documents[0].weights)

    def logits_of_the_last_three(first: Example) -> torch.Tensor:
        pack: Pack = build_pack([first, *documents[1:]])
        with torch.no_grad(), pack_attention(model, packed=True):
            return open_forward(model, packed=True).logits(pack)[first.num_graded :]

    assert torch.equal(logits_of_the_last_three(documents[0]), logits_of_the_last_three(other))


def test_gradient_checkpointing_changes_no_gradient() -> None:
    def gradients(*, checkpointing: bool) -> list[torch.Tensor]:
        model, pack = tiny("llama").train(), build_pack(examples())
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        with pack_attention(model, packed=True):
            graded_nll(model, pack, packed=True).sum().backward()
        return [p.grad for p in model.parameters() if p.grad is not None]

    for plain, recomputed in zip(gradients(checkpointing=False), gradients(checkpointing=True), strict=True):
        assert torch.equal(plain, recomputed)


def test_attention_is_as_it_was_after_the_block_and_packs_are_refused_outside_it() -> None:
    model = tiny("llama")
    before = model.config._attn_implementation
    with pack_attention(model, packed=True):
        graded_nll(model, build_pack(examples()), packed=True)
    assert model.config._attn_implementation == before
    with pytest.raises(RuntimeError, match="outside"):
        graded_nll(model, build_pack(examples()), packed=True)
