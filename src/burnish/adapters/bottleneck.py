"""The bottleneck adapter (Houlsby et al. 2019): behind attention and behind the MLP, `h + up(gelu(down(h)))`.

It goes in by torch's forward hooks, on the last linear layer of each block where there is one by a known name, else
on the block itself. A function with a kink in it cannot be merged into a matrix: `final/` holds the base, and beside
it, as beside every saved adapter:

    bottleneck.json           {"format": 1, "size": 64, "places": ["model.layers.0.self_attn.o_proj", ...]}
    bottleneck.safetensors    PLACE.down.weight, PLACE.down.bias, PLACE.up.weight, PLACE.up.bias;
                              "rows:TABLE" and "ids:TABLE" of trained token rows; "whole:PARAMETER" of modules_to_save

`load_bottleneck` puts it back on a base; transformers alone, which does not know it, would load the base and no more.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from burnish.adapters.targets import layer_of
from burnish.errors import DataError, UsageError

JSON = "bottleneck.json"
WEIGHTS = "bottleneck.safetensors"
FORMAT = 1
CHILD = "bottleneck"

ATTENTION = ("self_attn", "attn", "attention", "self_attention")
FEED_FORWARD = ("mlp", "block_sparse_moe", "feed_forward", "ffn", "moe")
LAST_LINEAR = ("o_proj", "down_proj", "c_proj", "out_proj", "dense", "dense_4h_to_h", "fc2", "wo", "w2")


class Bottleneck(nn.Module):
    """`h + up(gelu(down(h)))`; `up` starts at zero, so that the model starts as the base."""

    def __init__(self, width: int, size: int, *, like: Tensor) -> None:
        super().__init__()
        self.down = nn.Linear(width, size, device=like.device, dtype=like.dtype)
        self.up = nn.Linear(size, width, device=like.device, dtype=like.dtype)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """Hidden states, moved."""
        moved: Tensor = self.up(F.gelu(self.down(hidden)))
        return hidden + moved


def add_bottleneck(model: PreTrainedModel, *, size: int, layers: Iterable[int] = ()) -> list[str]:
    """Put a trained bottleneck behind each block (of `layers`, if any are named); the places, by name."""
    wanted = set(layers)
    places = [name for name in find_places(model) if not wanted or layer_of(name) in wanted]
    if not places:
        raise UsageError(
            f"adapter: bottleneck finds no attention or MLP in {type(model).__name__}"
            + (f", layers {sorted(wanted)}" if wanted else ""),
            rule="it goes behind modules named as transformers' decoder layers name them",
            remedy="adapter=lora",
        )
    install(model, places, size)
    return places


def install(model: PreTrainedModel, places: Iterable[str], size: int) -> None:
    """Put fresh bottlenecks at `places`."""
    width = int(model.config.get_text_config().hidden_size)
    like = model.get_input_embeddings().weight
    for name in places:
        module = model.get_submodule(name)
        module.add_module(CHILD, Bottleneck(width, size, like=like))
        module._bottleneck_hook = module.register_forward_hook(_through)


def remove_bottleneck(model: nn.Module) -> None:
    """Take the bottlenecks off again: the base is left as it was."""
    for _, module in _with_bottleneck(model):
        module._bottleneck_hook.remove()
        del module._bottleneck_hook, module._modules[CHILD]


def find_places(model: PreTrainedModel) -> Iterator[str]:
    """The modules that bottlenecks go behind: of each layer its attention and its MLP, by their last linear layer."""
    for name, module in model.named_modules():
        parent, _, leaf = name.rpartition(".")
        if leaf not in ATTENTION + FEED_FORWARD or not parent.rpartition(".")[2].isdigit():
            continue
        last = [
            child
            for child, part in module.named_children()
            if child in LAST_LINEAR and isinstance(part, (nn.Linear, Conv1D))
        ]
        yield f"{name}.{last[-1]}" if last else name


def save_bottleneck(
    model: nn.Module,
    directory: Path,
    *,
    rows: Mapping[str, tuple[Tensor, Tensor]],
    whole: Mapping[str, Tensor],
) -> None:
    """Write the format above; `rows` are ids and trained rows by table."""
    directory.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, Tensor] = {}
    places = []
    for name, module in _with_bottleneck(model):
        place = plain_name(name)
        places.append(place)
        for key, value in module.get_submodule(CHILD).state_dict().items():
            tensors[f"{place}.{key}"] = value
    for table, (ids, values) in rows.items():
        tensors[f"ids:{table}"], tensors[f"rows:{table}"] = ids, values
    tensors |= {f"whole:{name}": value for name, value in whole.items()}
    size = next(module.get_submodule(CHILD).down.out_features for _, module in _with_bottleneck(model))
    save_file(
        {key: value.detach().contiguous().clone() for key, value in tensors.items()}, directory / WEIGHTS
    )
    (directory / JSON).write_text(json.dumps({"format": FORMAT, "size": size, "places": places}, indent=1))


@torch.no_grad()
def load_bottleneck(model: PreTrainedModel, directory: Path) -> PreTrainedModel:
    """Put a saved bottleneck on its base, whose tables have room for its tokens; DataError where they do not fit."""
    try:
        said = json.loads((directory / JSON).read_text())
        if said["format"] != FORMAT:
            raise ValueError(f"format {said['format']}")
        tensors = load_file(directory / WEIGHTS)
        install(model, said["places"], int(said["size"]))
        _take(model, tensors, said["places"])
    except (OSError, ValueError, KeyError, AttributeError, RuntimeError, IndexError) as error:
        raise DataError(
            f"{directory / JSON}: {type(error).__name__}: {error}",
            rule="a saved bottleneck goes on the base that it was trained on, whole",
            remedy="give that base and the adapter's own directory, both complete",
        ) from error
    return model


def _take(model: PreTrainedModel, tensors: dict[str, Tensor], places: Iterable[str]) -> None:
    for place in places:
        bottleneck = model.get_submodule(place).get_submodule(CHILD)
        for key, parameter in bottleneck.named_parameters():
            parameter.copy_(tensors.pop(f"{place}.{key}"))
    for key in [key for key in tensors if key.startswith("ids:")]:
        table = model.get_submodule(key.removeprefix("ids:")).weight
        table[tensors.pop(key)] = tensors.pop(key.replace("ids:", "rows:", 1)).to(table.dtype)
    for key in [key for key in tensors if key.startswith("whole:")]:
        model.get_parameter(key.removeprefix("whole:")).copy_(tensors.pop(key))
    if tensors:
        raise ValueError(f"tensors that belong nowhere: {', '.join(sorted(tensors)[:4])}")


def plain_name(name: str) -> str:
    """A module's name in the bare transformers model."""
    return name.removeprefix("base_model.model.")


def _with_bottleneck(model: nn.Module) -> list[tuple[str, Any]]:
    return [(name, module) for name, module in model.named_modules() if CHILD in module._modules]


def _through(module: nn.Module, given: tuple[Any, ...], output: Any) -> Any:
    bottleneck: Any = module._modules[CHILD]
    if isinstance(output, tuple):
        return (bottleneck(output[0]), *output[1:])
    return bottleneck(output)
