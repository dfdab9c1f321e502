"""RoPE scaled for texts longer than a model was trained on: the recipe's `rope_scaling`, computed by transformers.

    {rope_type: yarn, factor: 4}      on Qwen2.5 (32,768 positions): frequencies as its makers state them for 131,072
    {rope_type: llama3, factor: 8}    long waves eight times as long, short ones as they were
    {rope_type: linear, factor: 2}    every position counts half
    {rope_type: dynamic, factor: 4}   short texts as they were; a longer one has frequencies of its own
    {rope_type: default, rope_theta: 1e6}    another base, the same for every text

The values go into the model's config, from which its rotary module is made anew; so they stand in `final/config.json`,
and whoever loads that has them. An adapter alone lies beside `rope_scaling.json`, which burnish reads with it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from burnish.errors import UsageError
from burnish.models.generate import num_positions
from burnish.models.locate import read_json
from burnish.recipe.choices import RopeType
from burnish.recipe.schema import RopeScaling

RECORD = "rope_scaling.json"
STRETCHES = (RopeType.LINEAR, RopeType.YARN, RopeType.LLAMA3)


def scale_positions(
    model: PreTrainedModel, scaling: RopeScaling | None, *, max_length: int = 0
) -> PreTrainedModel:
    """The model with its RoPE as the recipe says, in config and module; as it was where the recipe says nothing.

    UsageError where it has no RoPE to scale, one that differs from layer to layer, or `dynamic` past its positions.
    """
    if scaling is None:
        return model
    config = model.config.get_text_config()
    rotary = getattr(model.base_model, "rotary_emb", None)
    _require_plain_rope(model, rotary)
    before = dict(config.rope_parameters)
    original = _original_positions(config, before, scaling)
    if scaling.rope_type is RopeType.DYNAMIC and max_length > original:
        raise _depends_on_company(config, scaling, max_length, original)
    config.rope_parameters = scaled_parameters(before, scaling, original)
    if scaling.rope_type in STRETCHES:
        assert scaling.factor is not None
        config.max_position_embeddings = max(original, round(original * scaling.factor))
    elif scaling.rope_type is RopeType.DEFAULT:
        config.max_position_embeddings = max(original, max_length)
    assert isinstance(rotary, nn.Module)
    model.base_model.rotary_emb = type(rotary)(config).to(model.device)
    return model


def scaled_parameters(before: dict[str, Any], scaling: RopeScaling, original: int) -> dict[str, Any]:
    """`rope_parameters` as transformers 5 has them: the model's own base and share, and the recipe's values."""
    kept = {
        key: before[key] for key in ("rope_theta", "partial_rotary_factor") if before.get(key) is not None
    }
    said = scaling.model_dump(mode="json", exclude_none=True)
    if scaling.rope_type in (RopeType.YARN, RopeType.LLAMA3):
        said = {**said, "original_max_position_embeddings": original}
    else:
        said.pop("original_max_position_embeddings", None)
    return {**kept, **said}


def positions_with(config: PreTrainedConfig, scaling: RopeScaling | None) -> int | None:
    """The most tokens that a model has positions for once its RoPE is scaled; None where nothing bounds them."""
    limit = num_positions(config)
    if limit is None or scaling is None or scaling.rope_type in (RopeType.DEFAULT, RopeType.DYNAMIC):
        return limit if scaling is None else None
    assert scaling.factor is not None
    text = config.get_text_config()
    return round(
        _original_positions(text, dict(getattr(text, "rope_parameters", None) or {}), scaling)
        * scaling.factor
    )


def has_learned_positions(model: PreTrainedModel) -> bool:
    """Whether positions are rows of a table, which ends: GPT-2, OPT."""
    names = (".wpe", ".embed_positions", ".position_embeddings")
    return any(isinstance(m, nn.Embedding) and name.endswith(names) for name, m in model.named_modules())


def why_no_context(model: PreTrainedModel, max_length: int) -> str | None:
    """Why ranks that each see some of a text's positions cannot rotate alike, in words; None where they can."""
    config = model.config.get_text_config()
    parameters = getattr(config, "rope_parameters", None) or {}
    kinds = {parameters.get("rope_type")} | {
        v.get("rope_type") for v in parameters.values() if isinstance(v, dict)
    }
    first = parameters.get("original_max_position_embeddings") or num_positions(config) or max_length
    follows = kinds & {"dynamic", "longrope"}
    if follows and max_length > first:
        return f"its RoPE ({follows.pop()}) follows the longest position met, which differs from rank to rank"
    return None


def fixed_theta(theta: float, width: int, factor: float, length: int, original: int) -> float:
    """The base that `dynamic` comes to at one length: what can be said once and for all texts."""
    return float(theta * (factor * length / original - (factor - 1)) ** (width / (width - 2)))


def write_record(scaling: RopeScaling | None, directory: Path) -> None:
    """Say beside an adapter with what RoPE it was trained; its base does not know."""
    if scaling is not None:
        (directory / RECORD).write_bytes(
            orjson.dumps(scaling.model_dump(mode="json", exclude_none=True)) + b"\n"
        )


def read_record(directory: Path) -> RopeScaling | None:
    """What an adapter's folder says of its RoPE; None where it was trained with its base's own."""
    file = directory / RECORD
    return RopeScaling.model_validate(read_json(file)) if file.is_file() else None


def _require_plain_rope(model: PreTrainedModel, rotary: Any) -> None:
    config = model.config.get_text_config()
    parameters = getattr(config, "rope_parameters", None) or {}
    why = ""
    if not isinstance(rotary, nn.Module) or not parameters:
        why = "has no RoPE of one kind for all its layers"
    elif any(isinstance(value, dict) for value in parameters.values()):
        why = "rotates differently from layer to layer"
    if why:
        raise UsageError(
            f"rope_scaling on {type(model).__name__}, which {why}",
            rule="rope_scaling sets the one RoPE that all layers of a model share",
            remedy="leave rope_scaling out; max_length up to what the model has positions for",
        )


def _original_positions(config: PreTrainedConfig, before: dict[str, Any], scaling: RopeScaling) -> int:
    """The positions that the base was trained on first; a model that is scaled already must be asked which."""
    if scaling.original_max_position_embeddings is not None:
        return scaling.original_max_position_embeddings
    if before.get("rope_type", "default") != "default" and scaling.rope_type is not RopeType.DEFAULT:
        first = before.get("original_max_position_embeddings")
        raise UsageError(
            f"rope_scaling on a model that has {before['rope_type']} with factor {before.get('factor')} already",
            rule="rope_scaling replaces what a model has, and counts from the positions it was first trained on",
            remedy=f"say rope_scaling.original_max_position_embeddings too ({first or config.max_position_embeddings} "
            "in its config), or leave rope_scaling out",
        )
    return int(config.max_position_embeddings)


def _depends_on_company(
    config: PreTrainedConfig, scaling: RopeScaling, max_length: int, original: int
) -> UsageError:
    parameters = config.rope_parameters
    width = int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)
    width = int(width * (parameters.get("partial_rotary_factor") or 1.0))
    assert scaling.factor is not None
    theta = fixed_theta(float(parameters["rope_theta"]), width, scaling.factor, max_length, original)
    return UsageError(
        f"rope_scaling: dynamic with max_length {max_length} on {original} positions",
        rule="a row's loss does not depend on its company; dynamic frequencies follow the longest text met so far",
        remedy=f"what dynamic comes to at {max_length} tokens, for every row: "
        f"rope_scaling: {{rope_type: default, rope_theta: {theta:.6g}}}; or rope_type: yarn",
    )
