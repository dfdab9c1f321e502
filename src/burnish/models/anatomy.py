"""A model's measures, from its config alone: what arithmetic about memory and time starts from."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from burnish.models.foreign import reading
from burnish.models.locate import locate

CONFIG_RULE = "a model directory has a config.json of a causal language model that transformers knows"
CONFIG_REMEDY = "check the directory; `burnish doctor` prints the installed versions"


@dataclass(frozen=True, slots=True)
class Anatomy:
    """Sizes of a causal language model; `layer_parameters` are those of all layers together."""

    parameters: int
    layer_parameters: int
    layers: int
    hidden: int
    attention_width: int
    key_value_width: int
    intermediate: int
    vocabulary: int

    @property
    def activation_values(self) -> int:
        """The numbers that one layer keeps of one token for its backward pass.

        Two normalised inputs and two residuals (H each), query and attention output (A each), key and value, and
        the MLP's gate, up and their product.
        """
        return 4 * self.hidden + 2 * self.attention_width + 2 * self.key_value_width + 3 * self.intermediate

    def lora_parameters(self, rank: int) -> int:
        """About how many parameters LoRA of a rank has on all linear layers."""
        pairs = 4 * self.hidden + 2 * self.attention_width + 2 * self.key_value_width
        pairs += 3 * (self.hidden + self.intermediate)
        return rank * self.layers * pairs

    def core_parameters(self, rank: int) -> int:
        """About how many parameters LoRA-XS has: a core for each of a layer's seven matrices."""
        return 7 * rank * rank * self.layers

    def bottleneck_parameters(self, size: int) -> int:
        """About how many parameters bottlenecks have, two in a layer: down, up and their biases."""
        return 2 * self.layers * (2 * self.hidden * size + self.hidden + size)


def empty_model(name: str) -> PreTrainedModel:
    """The model of a directory or hub id on torch's meta device: no weight is read or allocated."""
    with reading(f"model {name!r}", rule=CONFIG_RULE, remedy=CONFIG_REMEDY):
        config = AutoConfig.from_pretrained(locate(name), local_files_only=True)
        with torch.device("meta"):
            model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    return model


def anatomy_of(name: str) -> Anatomy:
    """The anatomy of a model directory or hub id, from its config."""
    model = empty_model(name)
    text = model.config.get_text_config()
    heads = int(text.num_attention_heads)
    width = int(getattr(text, "head_dim", None) or text.hidden_size // heads)
    tables = {id(model.get_input_embeddings().weight)}
    if model.get_output_embeddings() is not None:
        tables.add(id(model.get_output_embeddings().weight))
    return Anatomy(
        parameters=int(model.num_parameters()),
        layer_parameters=sum(p.numel() for p in model.parameters() if id(p) not in tables),
        layers=int(text.num_hidden_layers),
        hidden=int(text.hidden_size),
        attention_width=heads * width,
        key_value_width=int(getattr(text, "num_key_value_heads", None) or heads) * width,
        intermediate=int(getattr(text, "intermediate_size", None) or 4 * text.hidden_size),
        vocabulary=int(text.vocab_size),
    )
