"""Which weights move: all of them, or low-rank matrices beside frozen ones. PEFT injects, saves and merges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import PreTrainedModel

from burnish.errors import UsageError
from burnish.recipe.methods import METHODS, Injection
from burnish.recipe.schema import Recipe


@dataclass(frozen=True, slots=True)
class Trainable:
    """What of a model is trained: the share of its parameters, and the modules that carry an adapter."""

    parameters: int
    of: int
    modules: tuple[str, ...]

    @property
    def share(self) -> float:
        """Trained parameters over all parameters."""
        return self.parameters / self.of


def apply_adapter(
    model: PreTrainedModel, recipe: Recipe, *, new_tokens: Sequence[int] = ()
) -> PreTrainedModel | PeftModel:
    """Make the model's trainable weights those of the recipe's method.

    `new_tokens` are ids whose embedding rows the base never trained: they are trained under every method.
    """
    match METHODS[recipe.adapter].injects:
        case Injection.NOTHING:
            model.requires_grad_(True)
            return model
        case Injection.LOW_RANK:
            return _lora(model, recipe, list(new_tokens))
        case Injection.CORE | Injection.BOTTLENECK as later:
            raise UsageError(
                f"adapter: {recipe.adapter}", rule=f"{later} is being written", remedy="adapter=lora"
            )


def _lora(model: PreTrainedModel, recipe: Recipe, new_tokens: list[int]) -> PeftModel:
    targets = recipe.lora_target_modules
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=recipe.lora_r,
        lora_alpha=recipe.lora_alpha,
        lora_dropout=recipe.lora_dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        trainable_token_indices=_token_rows(model, new_tokens) if new_tokens else None,
        layers_to_transform=list(recipe.layers_to_transform) or None,
        modules_to_save=list(recipe.modules_to_save) or None,
        **METHODS[recipe.adapter].options,
    )
    try:
        # The masters in optim.masters are fp32; the model's own copies stay in the compute dtype.
        return get_peft_model(model, config, autocast_adapter_dtype=False)
    except ValueError as error:
        linears = sorted(
            {name.rsplit(".", 1)[-1] for name, m in model.named_modules() if isinstance(m, nn.Linear)}
        )
        raise UsageError(
            f"lora_target_modules: {targets!r} cannot be used on {type(model).__name__}: {error}",
            rule="lora_target_modules names linear layers of the model, by name, list or regular expression",
            remedy=f"say all-linear, or names among {', '.join(linears)}",
        ) from error


def _token_rows(model: PreTrainedModel, tokens: list[int]) -> dict[str, list[int]]:
    """The embedding (and the head, where it is a matrix of its own) by module name, with the rows to train."""
    rows = {}
    for name, module in model.named_modules():
        tied = (
            model.get_output_embeddings() is not None and model.config.get_text_config().tie_word_embeddings
        )
        if module is model.get_input_embeddings() or (module is model.get_output_embeddings() and not tied):
            rows[name] = tokens
    return rows


def describe_trainable(model: nn.Module) -> Trainable:
    """Count what is trained; a module is named where an adapter sits on it."""
    parameters = list(model.parameters())
    modules = [name for name, module in model.named_modules() if hasattr(module, "lora_A")]
    return Trainable(
        parameters=sum(p.numel() for p in parameters if p.requires_grad),
        of=sum(_count(p) for p in parameters),
        modules=tuple(modules),
    )


def _count(parameter: nn.Parameter) -> int:
    """The weights that a parameter stands for: of a matrix in 4 bits, twice as many as it has bytes."""
    state = getattr(parameter, "quant_state", None)
    return parameter.numel() if state is None else int(state.shape.numel())


def merged(model: PreTrainedModel | PeftModel) -> PreTrainedModel:
    """The model with its adapter folded into the weights: a plain transformers model. Consumes the argument."""
    return model.merge_and_unload() if isinstance(model, PeftModel) else model
