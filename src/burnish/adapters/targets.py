"""Which layers of a model get low-rank matrices: found by us, by name, before PEFT is told.

PEFT's own `all-linear` sees nn.Linear and GPT-2's Conv1D. Since transformers 5 the experts of a mixture lie in fused
parameters `(experts, out, in)`, which PEFT reaches by another list, `target_parameters`. And of such models PEFT takes
layers named as Mixtral's or Qwen's experts once were (`gate_proj`, `w1`) for experts, wherever they stand: a shared
expert's `gate_proj` would silently be dropped. Those go to the second list as well, as `gate_proj.weight`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from peft.tuners.lora.layer import ParamWrapper
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from burnish.errors import UsageError
from burnish.recipe.methods import METHODS
from burnish.recipe.schema import Recipe

ALL_LINEAR = "all-linear"
ONCE_EXPERTS = frozenset({"gate", "w1", "w2", "w3", "gate_proj", "up_proj", "down_proj"})
"""Names that PEFT, in a model with fused experts, takes for those experts."""


@dataclass(frozen=True, slots=True)
class Targets:
    """Full names of what gets matrices: layers, and parameters; `ranks` where a layer is thinner than the rank."""

    modules: tuple[str, ...]
    parameters: tuple[str, ...]
    ranks: Mapping[str, int]

    def __len__(self) -> int:
        return len(self.modules) + len(self.parameters)


def find_targets(model: PreTrainedModel, recipe: Recipe) -> Targets:
    """The layers and expert weights that a recipe's method works on; UsageError where a name matches none."""
    fused = dict(fused_experts(model))
    linear = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, (nn.Linear, Conv1D)) and not _inside(name, recipe.modules_to_save)
    }
    chosen = _chosen(model, linear, fused, recipe)
    layers = set(recipe.layers_to_transform)
    chosen = [name for name in chosen if not layers or layer_of(name) in layers]
    can_fuse = why_experts_stay(recipe) is None
    modules, parameters, ranks = [], [], {}
    for name in chosen:
        leaf = name.rpartition(".")[2]
        rank = min(recipe.lora_r, *(fused[name].shape[1:] if name in fused else _sides(linear[name])))
        if name in fused or (fused and leaf in ONCE_EXPERTS):
            if not can_fuse or _is_packed(linear.get(name)):
                continue  # the run says so: `frozen_experts`
            name = name if name in fused else f"{name}.weight"
            parameters.append(name)
        else:
            modules.append(name)
        if rank < recipe.lora_r:
            ranks[re.escape(name)] = rank
    return Targets(tuple(modules), tuple(parameters), ranks)


def why_experts_stay(recipe: Recipe) -> str | None:
    """Why fused expert weights cannot be adapted under a recipe, in words; None if they can."""
    if not METHODS[recipe.adapter].experts:
        return f"adapter: {recipe.adapter} has no form for fused experts; lora has"
    if recipe.lora_dropout:
        return "lora_dropout cannot be applied inside fused experts; say lora_dropout=0"
    return None


def fused_experts(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """The weights of experts that lie in one parameter `(experts, ., .)`, by name."""
    for name, module in model.named_modules():
        count = getattr(module, "num_experts", None)
        if isinstance(module, nn.Module) and isinstance(count, int):
            for leaf, parameter in module.named_parameters(recurse=False):
                if parameter.dim() == 3 and len(parameter) == count:
                    yield f"{name}.{leaf}", parameter


def frozen_experts(model: nn.Module) -> Iterator[Tensor]:
    """Of a mixture, the weights of experts, shared ones too, that carry no adapter."""
    found: list[Tensor] = [parameter for _, parameter in fused_experts(model)]
    adapted = {id(layer.get_param()) for layer in model.modules() if isinstance(layer, ParamWrapper)}
    for name, module in model.named_modules():
        leaf = name.replace(".base_layer", "").rpartition(".")[2]
        if found and isinstance(module, nn.Linear) and leaf in ONCE_EXPERTS:
            found.append(module.weight)
    yield from (weight for weight in found if id(weight) not in adapted)


def layer_of(name: str) -> int | None:
    """The number of the layer that a module belongs to: `model.layers.3.mlp` is in 3."""
    found = re.search(r"\.(\d+)\.", f".{name}.")
    return int(found[1]) if found else None


def shortened(model: nn.Module, names: Iterable[str], *, parts: int) -> list[str]:
    """Names as a saved adapter lists them: by their last `parts`, where all of that name are meant.

    `q_proj` for `model.layers.0.self_attn.q_proj`, ..., if every `q_proj` of the model is among them.
    """
    wanted = set(names)
    everything = {name for name, _ in model.named_modules()} | {name for name, _ in model.named_parameters()}
    short = {}
    for name in wanted:
        end = ".".join(name.split(".")[-parts:])
        alike = {other for other in everything if other == end or other.endswith(f".{end}")}
        short[name] = end if alike <= wanted else name
    return sorted(set(short.values()))


def _chosen(
    model: PreTrainedModel,
    linear: Mapping[str, nn.Module],
    fused: Mapping[str, nn.Parameter],
    recipe: Recipe,
) -> list[str]:
    asked = recipe.lora_target_modules
    if asked == ALL_LINEAR:
        head = model.get_output_embeddings()
        return [*(name for name, module in linear.items() if module is not head), *fused]
    everything = [*linear, *fused]
    patterns = [asked] if isinstance(asked, str) else list(asked)
    found: dict[str, None] = {}
    for pattern in patterns:
        matched = [n for n in everything if n == pattern or n.endswith(f".{pattern}")]
        if not matched and isinstance(asked, str):
            matched = _by_expression(pattern, everything, model)
        if not matched:
            raise _no_match(pattern, everything, model)
        found.update(dict.fromkeys(matched))
    _refuse_tied(model, linear, found)
    if (why := why_experts_stay(recipe)) and any(name in fused for name in found):
        raise UsageError(
            f"lora_target_modules: {asked!r} names fused experts",
            rule=why,
            remedy="say adapter=lora and lora_dropout=0, or leave the experts out",
        )
    return list(found)


def _sides(module: nn.Module) -> tuple[int, ...]:
    """Inputs and outputs of a layer; the weight itself may be packed, in 4 bits."""
    if isinstance(module, nn.Linear):
        return module.in_features, module.out_features
    assert isinstance(module, Conv1D)
    return tuple(module.weight.shape)


def _is_packed(module: nn.Module | None) -> bool:
    """Whether a layer is in 4 bits: PEFT adapts it as a layer, and not as a parameter."""
    return module is not None and not module.weight.is_floating_point()  # type: ignore[operator]


def _by_expression(pattern: str, names: Iterable[str], model: nn.Module) -> list[str]:
    try:
        return [name for name in names if re.fullmatch(pattern, name)]
    except re.error as error:
        raise _no_match(pattern, names, model, f" ({error})") from error


def _no_match(pattern: str, names: Iterable[str], model: nn.Module, why: str = "") -> UsageError:
    leaves = sorted({name.rpartition(".")[2] for name in names})
    return UsageError(
        f"lora_target_modules: {pattern!r} matches no layer of {type(model).__name__}{why}",
        rule="it names linear layers or experts of the model, by the end of their name, list or regular expression",
        remedy=f"say all-linear, or names among {', '.join(leaves)}",
    )


def _refuse_tied(model: PreTrainedModel, linear: Mapping[str, nn.Module], found: Iterable[str]) -> None:
    head, table = model.get_output_embeddings(), model.get_input_embeddings()
    if head is None or head.weight is not table.weight:
        return
    for name in found:
        if linear.get(name) is head:
            raise UsageError(
                f"lora_target_modules: {name} shares its matrix with the embedding",
                rule="a merge would change both, while training changed one",
                remedy=f"leave it out; to train the shared matrix whole: modules_to_save=[{name.rpartition('.')[2]}]",
            )


def _inside(name: str, saved: Iterable[str]) -> bool:
    """Whether a module is trained whole, or lies in one that is."""
    return any(re.search(rf"(^|\.){re.escape(one)}(\.|$)", name) for one in saved)
