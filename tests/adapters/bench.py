"""Tiny models of many families, trained for a few updates by the parts of burnish's own step."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import transformers
from torch import nn

from burnish.adapters.apply import apply_adapter
from burnish.adapters.audit import Audit, audit, watching_experts
from burnish.data.pack import build_pack, total_weight
from burnish.models.forward import open_forward, pack_attention, why_unpacked
from burnish.models.load import add_token_rows, load_model
from burnish.optim.build import Optimizer
from burnish.optim.masters import Masters
from burnish.recipe.schema import Recipe
from burnish.types import Example

TOKENS = 64
NEW = (62, 63)  # known to the tokenizer, never seen by the base
SMALL = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
GROUPED = {**SMALL, "num_key_value_heads": 2}
ENDS = {"bos_token_id": 1, "eos_token_id": 1, "pad_token_id": None}
CONFIGS: dict[str, transformers.PreTrainedConfig] = {
    "llama": transformers.LlamaConfig(vocab_size=62, tie_word_embeddings=True, **GROUPED, **ENDS),
    "llama-padded": transformers.LlamaConfig(vocab_size=72, **GROUPED, **ENDS),
    "llama-padded-tied": transformers.LlamaConfig(vocab_size=72, tie_word_embeddings=True, **GROUPED, **ENDS),
    "gemma": transformers.GemmaConfig(vocab_size=62, head_dim=8, **GROUPED, **ENDS),
    "gpt_neox": transformers.GPTNeoXConfig(vocab_size=62, **SMALL, **ENDS),
    "gpt2": transformers.GPT2Config(vocab_size=62, n_embd=32, n_layer=2, n_head=4, n_positions=64, **ENDS),
    "mixtral": transformers.MixtralConfig(vocab_size=62, num_local_experts=4, **GROUPED, **ENDS),
    "qwen2_moe": transformers.Qwen2MoeConfig(
        vocab_size=62,
        num_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=24,
        shared_expert_intermediate_size=40,
        **GROUPED,
        **ENDS,
    ),
}


def base(family: str) -> transformers.PreTrainedModel:
    """The same random weights each time; wide enough for logits to depend on every layer."""
    if family == "marble":
        return load_model("marble", dtype=torch.float32)
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(copy.deepcopy(CONFIGS[family])).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() >= 2:
                parameter.mul_(4.0)
    return model


def with_room(family: str) -> transformers.PreTrainedModel:
    """The base with rows for the new tokens, as a session gives it to a method."""
    model = base(family)
    torch.manual_seed(1)
    add_token_rows(model, num_tokens(model), new_ids(model))
    return model


def num_tokens(model: transformers.PreTrainedModel) -> int:
    rows = model.get_input_embeddings().weight.shape[0]
    return TOKENS if rows <= 72 else rows + 2


def new_ids(model: transformers.PreTrainedModel) -> tuple[int, int]:
    count = num_tokens(model)
    return count - 2, count - 1


def recipe(adapter: str, **keys: Any) -> Recipe:
    settings = {"model": "m", "datasets": "d", "adapter": adapter, "lora_r": 4, "bottleneck_size": 8, **keys}
    return Recipe(**{"dtype": "float32", **settings})


def examples(ids: tuple[int, int] = NEW, *, rows: int = 6) -> list[Example]:
    draw = np.random.default_rng(0)
    made = []
    for row in range(rows):
        tokens = [ids[0], *draw.integers(3, 60, 14).tolist(), ids[1]]
        tokens[7] = ids[1]
        made.append(Example(row, 0, (1,), tokens, [0.0, 0.0, *[1.0] * 14]))
    return made


@dataclass
class Trained:
    """A model after a few updates, its masters, and what the audit said of the first one."""

    model: Any
    masters: Masters
    audit: Audit
    losses: list[float]
    start: dict[str, torch.Tensor]
    flat: bool


def train(
    asked: Recipe,
    model: transformers.PreTrainedModel,
    *,
    updates: int = 3,
    rate: float = 3e-3,
    new: tuple[int, ...] | None = None,
) -> Trained:
    ids = new_ids(model)
    torch.manual_seed(2)
    tuned: Any = apply_adapter(model, asked, new_tokens=ids if new is None else new)
    masters = Masters(tuned, compute=getattr(torch, asked.dtype.value))
    start = {name: p.detach().clone() for name, p in tuned.named_parameters()}
    optimizer = Optimizer(
        masters.parameters,
        name="adamw",
        weight_decay=0.0,
        embeddings=frozenset(),
        faster=frozenset(name for name in masters.parameters if ".lora_B." in name),
        ratio=asked.lora_plus_ratio,
    )
    forward = open_forward(tuned, packed=why_unpacked(model) is None)
    packs, losses, found = [build_pack(examples(ids))], [], None
    for _ in range(updates):
        with pack_attention(tuned, packed=forward.packed), watching_experts(tuned) as owed:
            total = 0.0
            for pack in packs:
                loss, _ = forward.loss(pack)
                loss.backward()
                total += float(loss.detach())
        masters.clip(1.0, over=total_weight(packs))
        found = found or audit(tuned, masters.parameters, owed)
        optimizer.step(rate)
        masters.refresh()
        masters.zero_grad()
        losses.append(total / total_weight(packs))
    assert found is not None
    return Trained(tuned.eval(), masters, found, losses, start, forward.flat)


@torch.no_grad()
def logits(model: nn.Module) -> torch.Tensor:
    """What a model answers to a fixed text with new tokens in it."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    first, second = new_ids(inner)
    ids = torch.tensor([[first, 5, 9, 33, second, 7, 30, 21, first, 12]])
    found: torch.Tensor = model.eval()(input_ids=ids).logits
    return found
