"""Load a causal language model, give its tokenizer's new tokens rows, write it so that transformers reads it back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils.logging import disable_progress_bar

from burnish.errors import DataError
from burnish.models.anatomy import CONFIG_REMEDY, CONFIG_RULE, empty_model
from burnish.models.foreign import reading
from burnish.models.locate import locate, read_json
from burnish.models.rope import positions_with
from burnish.recipe.schema import RopeScaling

disable_progress_bar()  # transformers' own bars would tear the live line apart


def default_device() -> torch.device:
    """The CUDA device of this process if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def load_model(
    name: str, *, dtype: torch.dtype | None = None, device: torch.device | None = None
) -> PreTrainedModel:
    """A causal LM with the weights of `name`, safetensors only; `dtype=None` keeps the checkpoint's own."""
    directory = locate(name)
    if not list(directory.glob("*.safetensors")):
        raise DataError(
            f"{directory}: no .safetensors file",
            rule="weights are read from safetensors only, for a pickle can run code",
            remedy="convert the model: AutoModelForCausalLM.from_pretrained(...).save_pretrained(...) elsewhere",
        )
    kind = read_json(directory / "config.json").get("model_type")
    with reading(
        f"{directory} (model_type {kind!r})",
        rule="the model loads as AutoModelForCausalLM in the installed transformers",
        remedy="check that the directory is whole; `burnish doctor` prints the installed versions",
    ):
        model: PreTrainedModel
        model, found = AutoModelForCausalLM.from_pretrained(
            directory,
            dtype=dtype or "auto",
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
        )
    _require_all_weights(directory, found)
    return model.to(device or default_device())


def _require_all_weights(directory: Path, found: Mapping[str, Any]) -> None:
    """DataError where a weight of the model was not in its files: transformers makes a random one up."""
    lacking = sorted(map(str, [*found["missing_keys"], *found["mismatched_keys"]]))
    if lacking:
        raise DataError(
            f"{directory}: {len(lacking)} weights are missing or have another shape, {lacking[0]} for one",
            rule="a model's files hold every one of its weights; none is made up",
            remedy="copy the model again; the files of a model without its head are no causal language model",
        )


def start_model(name: str) -> PreTrainedModel:
    """A causal LM of the config in `name`, randomly initialised from torch's seed; DataError if it has weights."""
    directory = locate(name)
    found = list(directory.glob("*.safetensors"))
    if found:
        raise DataError(
            f"{found[0]}: the model has weights already",
            rule="`burnish pretrain` starts a model that has a config and a tokenizer, and no weights",
            remedy="to go on from these weights: burnish train; to start anew, give a directory without them",
        )
    with reading(directory, rule=CONFIG_RULE, remedy=CONFIG_REMEDY):
        config = AutoConfig.from_pretrained(directory, local_files_only=True)
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    return model.to(default_device())


def context_length(name: str, scaling: RopeScaling | None = None) -> int | None:
    """The most tokens the model has positions for, its RoPE scaled; None where its config does not say."""
    with reading(f"model {name!r}", rule=CONFIG_RULE, remedy=CONFIG_REMEDY):
        config = AutoConfig.from_pretrained(locate(name), local_files_only=True)
    return positions_with(config, scaling)


def count_parameters(model: str) -> int:
    """The number of parameters of a model, from its config; no weight is allocated."""
    return int(empty_model(model).num_parameters())


@torch.no_grad()
def add_token_rows(
    model: PreTrainedModel,
    num_tokens: int,
    new_tokens: Sequence[int],
    *,
    like: Mapping[int, int] | None = None,
) -> None:
    """Make room for `num_tokens` ids; a new token starts as a copy of the one it is `like`, else at the mean row.

    Padded vocabularies keep their spare rows: the table has max(rows there are, num_tokens) rows.
    """
    rows = model.get_input_embeddings().weight.shape[0]
    if num_tokens > rows:
        model.resize_token_embeddings(num_tokens, mean_resizing=False)
    if not new_tokens:
        return
    new = list(new_tokens)
    for table in vocabulary_tables(model):
        known = torch.ones(len(table), dtype=torch.bool)
        known[num_tokens:] = False  # padding rows were never trained either
        known[new] = False
        table[new] = table[known].float().mean(dim=0).to(table.dtype)
        for token, model_token in (like or {}).items():
            table[token] = table[model_token]


def vocabulary_tables(model: PreTrainedModel) -> list[nn.Parameter]:
    """The embedding `(V, H)` and, where it is not the same tensor, the output head."""
    tables = [model.get_input_embeddings(), model.get_output_embeddings()]
    weights: list[nn.Parameter] = [table.weight for table in tables if table is not None]
    return weights[:1] if len(weights) == 2 and weights[0] is weights[1] else weights


def save_model(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, directory: Path, *, stop_ids: Sequence[int]
) -> None:
    """Write model, tokenizer, chat template and stop ids so that plain transformers loads and stops."""
    base = model.generation_config or GenerationConfig()
    ends = [*stop_ids, *_as_list(tokenizer.eos_token_id)]
    model.generation_config = GenerationConfig(
        bos_token_id=base.bos_token_id,
        eos_token_id=list(dict.fromkeys(ends)),
        pad_token_id=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else ends[0],
    )
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)


def stop_ids_of(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The ids that end an answer: those of the model's generation_config, then the tokenizer's end of text."""
    config = model.generation_config
    declared = _as_list(config.eos_token_id if config is not None else None)
    return list(dict.fromkeys([*declared, *_as_list(tokenizer.eos_token_id)]))


def _as_list(ids: int | list[int] | None) -> list[int]:
    if ids is None:
        return []
    return [ids] if isinstance(ids, int) else list(ids)
