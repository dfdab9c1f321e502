"""Which weights move: the recipe's method put on a model. PEFT injects what is LoRA's kin; the rest is ours.

full          every parameter but those that `freeze` names
low-rank      PEFT's LoRA layers, with what the method's row in `recipe.methods` tells PEFT
principal     the same layers, which start as the base's leading singular parts (`adapters.pissa`)
core          the same layers, with the base's singular vectors around a trained core (`adapters.lora_xs`)
bottleneck    hooks behind attention and MLP (`adapters.bottleneck`); PEFT trains the token rows
"""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from peft import LoraConfig, PeftModel, TrainableTokensConfig, get_peft_model
from peft.tuners.lora.layer import ParamWrapper
from torch import Tensor, nn
from transformers import PreTrainedModel

from burnish.adapters.bottleneck import CHILD, add_bottleneck, plain_name
from burnish.adapters.factors import lora_layers
from burnish.adapters.lora_xs import take_core
from burnish.adapters.pissa import take_principal
from burnish.adapters.targets import find_targets, frozen_experts, shortened, why_experts_stay
from burnish.adapters.tokens import heads_to_train_whole, own_head, token_rows
from burnish.errors import UsageError
from burnish.recipe.methods import METHODS, Injection
from burnish.recipe.schema import Recipe


@dataclass(frozen=True, slots=True)
class Trainable:
    """What of a model is trained: parameters, of how many, the modules that carry an adapter, what to know of it."""

    parameters: int
    of: int
    modules: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def share(self) -> float:
        """Trained parameters over all parameters."""
        return self.parameters / self.of

    @property
    def summary(self) -> str:
        """The modules in a line: `24 x q_proj, 24 x k_proj, ...`."""
        counts = Counter(name.rpartition(".")[2] for name in self.modules)
        return ", ".join(f"{count} x {leaf}" for leaf, count in counts.items())


def apply_adapter(
    model: PreTrainedModel, recipe: Recipe, *, new_tokens: Sequence[int] = ()
) -> PreTrainedModel | PeftModel:
    """Make the model's trainable weights those of the recipe's method.

    `new_tokens` are ids whose embedding rows the base never trained: they are trained under every method.
    """
    method = METHODS[recipe.adapter]
    if method.quantised != _is_quantised(model):
        raise UsageError(
            f"adapter: {recipe.adapter}, over a base {'in 4 bits' if _is_quantised(model) else 'in full precision'}",
            rule="qlora and qdora train over a base in 4 bits, and no other method does",
            remedy="load the model as the method needs it",
        )
    _refuse_unknown_layers(model, recipe)
    tokens = sorted({*new_tokens, *recipe.trainable_token_indices})
    _refuse_unknown_tokens(model, tokens)
    match method.injects:
        case Injection.NOTHING:
            return _freeze(model, recipe, new_tokens)
        case Injection.LOW_RANK:
            return _inject(model, recipe, tokens)
        case Injection.PRINCIPAL:
            tuned = _inject(model, recipe, tokens)
            take_principal(tuned)
            return tuned
        case Injection.CORE:
            tuned = _inject(model, recipe, tokens)
            take_core(tuned)
            return tuned
        case Injection.BOTTLENECK:
            return _bottleneck(model, recipe, tokens)


def describe_trainable(model: nn.Module, recipe: Recipe | None = None) -> Trainable:
    """Count what is trained; a module is named where an adapter sits on it."""
    parameters = list(model.parameters())
    modules = [_label(name, layer) for name, layer in lora_layers(model)]
    modules += [plain_name(name) for name, module in model.named_modules() if CHILD in module._modules]
    experts = [weight for weight in frozen_experts(model) if not weight.requires_grad]
    frozen = sum(_count(weight) for weight in experts)
    notes = []
    if frozen:
        why = (recipe and why_experts_stay(recipe)) or "the recipe does not name them"
        notes.append(f"the experts stay frozen, {frozen:,} parameters: {why}")
    return Trainable(
        parameters=sum(p.numel() for p in parameters if p.requires_grad),
        of=sum(_count(p) for p in parameters),
        modules=tuple(modules),
        notes=tuple(notes),
    )


def _count(parameter: Tensor) -> int:
    """The weights that a parameter stands for: of a matrix in 4 bits, twice as many as it has bytes."""
    state = getattr(parameter, "quant_state", None)
    return parameter.numel() if state is None else int(state.shape.numel())


def _label(name: str, layer: Any) -> str:
    """`model.layers.0.mlp.experts.down_proj` for a fused parameter, and a layer's own name."""
    plain = plain_name(name).replace(".base_layer", "")
    return f"{plain}.{layer.parameter_name}" if isinstance(layer, ParamWrapper) else plain


def _inject(model: PreTrainedModel, recipe: Recipe, tokens: list[int]) -> PeftModel:
    targets = find_targets(model, recipe)
    if not len(targets):
        raise UsageError(
            f"lora_target_modules: {recipe.lora_target_modules!r} leaves nothing to train in {type(model).__name__}",
            rule="at least one layer gets an adapter",
            remedy=why_experts_stay(recipe) or "look at lora_target_modules and layers_to_transform together",
        )
    whole = _whole_modules(model, recipe.modules_to_save)
    tied = own_head(model) is None
    if tokens:
        whole += [name for name in heads_to_train_whole(model) if name not in whole]
    rows = (
        {name: ids for name, ids in token_rows(model, tokens).items() if name not in whole} if tokens else {}
    )
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=recipe.lora_r,
        lora_alpha=recipe.lora_alpha,  # PEFT only ever divides it
        lora_dropout=recipe.lora_dropout,
        target_modules=shortened(model, targets.modules, parts=1),
        target_parameters=shortened(model, targets.parameters, parts=2) or None,
        rank_pattern=dict(targets.ranks),
        alpha_pattern={name: recipe.lora_alpha * r / recipe.lora_r for name, r in targets.ranks.items()},
        trainable_token_indices=rows or None,
        modules_to_save=shortened(model, whole, parts=1) or None,
        ensure_weight_tying=bool(whole) and tied,
        **METHODS[recipe.adapter].options,
    )
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message="fan_in_fan_out is set to False"
        )  # PEFT sets it itself, and says so
        # The masters in optim.masters are fp32; the model's own copies stay in the compute dtype.
        return get_peft_model(model, config, autocast_adapter_dtype=False)


def _bottleneck(model: PreTrainedModel, recipe: Recipe, tokens: list[int]) -> PreTrainedModel | PeftModel:
    whole = _whole_modules(model, recipe.modules_to_save)
    if tokens:
        whole += heads_to_train_whole(model)
    rows = (
        {name: ids for name, ids in token_rows(model, tokens).items() if name not in whole} if tokens else {}
    )
    model.requires_grad_(False)
    tuned = model
    if rows:
        config = TrainableTokensConfig(task_type="CAUSAL_LM", token_indices=tokens, target_modules=list(rows))
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", message="Model has `tie_word_embeddings=True`"
            )  # it ties these rows
            tuned = get_peft_model(model, config, autocast_adapter_dtype=False)
    add_bottleneck(model, size=recipe.bottleneck_size, layers=recipe.layers_to_transform)
    for name in whole:
        model.get_submodule(name).requires_grad_(True)
    return tuned


def _freeze(model: PreTrainedModel, recipe: Recipe, new_tokens: Sequence[int]) -> PreTrainedModel:
    """All parameters are trained but those in whose name a pattern of `freeze` is found."""
    model.requires_grad_(True)
    for pattern in recipe.freeze:
        try:
            matched = [p for name, p in model.named_parameters() if re.search(pattern, name)]
        except re.error as error:
            raise _bad_freeze(model, pattern, str(error)) from error
        if not matched:
            raise _bad_freeze(model, pattern, "it is in no parameter's name")
        for parameter in matched:
            parameter.requires_grad_(False)
    if not any(p.requires_grad for p in model.parameters()):
        raise _bad_freeze(model, ", ".join(recipe.freeze), "nothing is left to train")
    table = model.get_input_embeddings().weight
    if len(new_tokens) and not table.requires_grad:
        raise UsageError(
            f"freeze: {list(recipe.freeze)} freezes the embedding, {len(new_tokens)} rows of which are new",
            rule="the rows of tokens that the base does not know are trained under every method",
            remedy="leave the embedding out of freeze, or say adapter=lora, which trains these rows alone",
        )
    return model


def _bad_freeze(model: nn.Module, pattern: str, why: str) -> UsageError:
    names = [name for name, _ in model.named_parameters()]
    return UsageError(
        f"freeze: {pattern!r}: {why}",
        rule="each pattern is a regular expression found in the names of some parameters, and not of all",
        remedy=f"names are such as {names[0]}, {names[len(names) // 2]}, {names[-1]}",
    )


def _whole_modules(model: PreTrainedModel, asked: Sequence[str]) -> list[str]:
    """The modules that `modules_to_save` names, in full; a tied head is trained as the embedding that it is."""
    head, table = model.get_output_embeddings(), model.get_input_embeddings()
    found: dict[str, None] = {}
    for end in asked:
        matched = [(n, m) for n, m in model.named_modules() if n and (n == end or n.endswith(f".{end}"))]
        if not matched:
            leaves = sorted({name.rpartition(".")[2] for name, _ in model.named_modules() if name})
            raise UsageError(
                f"modules_to_save: {end!r} is no module of {type(model).__name__}",
                rule="it names modules of the model by the end of their name",
                remedy=f"say names among {', '.join(leaf for leaf in leaves if not leaf.isdigit())}",
            )
        for name, module in matched:
            if module is head and own_head(model) is None:
                name = next(other for other, one in model.named_modules() if one is table)
            found[name] = None
    return list(found)


def _refuse_unknown_layers(model: PreTrainedModel, recipe: Recipe) -> None:
    count = int(model.config.get_text_config().num_hidden_layers)
    beyond = [layer for layer in recipe.layers_to_transform if layer >= count]
    if beyond:
        raise UsageError(
            f"layers_to_transform: {beyond[0]}, and the model has {count} layers",
            rule=f"layers are counted from 0 to {count - 1}",
            remedy="correct the list",
        )


def _refuse_unknown_tokens(model: PreTrainedModel, tokens: Sequence[int]) -> None:
    rows = model.get_input_embeddings().weight.shape[0]
    if tokens and tokens[-1] >= rows:
        raise UsageError(
            f"trainable_token_indices: {tokens[-1]}, and the vocabulary has {rows:,} rows",
            rule=f"token ids are counted from 0 to {rows - 1:,}",
            remedy="correct the list",
        )


def _is_quantised(model: nn.Module) -> bool:
    return any(type(module).__name__ == "Linear4bit" for module in model.modules())
