"""A model's weights dealt to the ranks by torch's FSDP2, a decoder layer at a time.

Each rank holds 1/N of every parameter, in fp32 where it is trained. A layer is gathered before it is computed, in the
precision of the run, and given back after; its gradient is summed over ranks in fp32, and each rank keeps its part.

FSDP acts where a module's `forward` is called. Our own forward and head read parameters instead, so that they are
called through a door: `through(module, function, *tensors)` is `function(*tensors)` with the weights gathered.

    function  layer 0   layer 1   head        a door around all of it, for embedding, last norm and head,
              [door]    [door]                and one around each layer
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Set
from types import MethodType
from typing import Any

import torch
from torch import nn
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    FSDPModule,
    MixedPrecisionPolicy,
    OffloadPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from transformers import PreTrainedModel

from burnish.models.dealt import pack, remember_shapes
from burnish.models.quantized import exact_parameters

DOOR = "through"


def through(module: nn.Module, function: Callable[..., Any], *given: Any) -> Any:
    """`function(*given)`, with the module's own weights gathered where they are dealt to ranks."""
    door = getattr(module, DOOR, None)
    return function(*given) if door is None else door(function, *given)


def is_sharded(module: nn.Module) -> bool:
    """Whether its weights are dealt to ranks."""
    return hasattr(module, DOOR)


def is_sharding_hook(hook: Any) -> bool:
    """Whether a module's hook is FSDP's, which doors call too."""
    return "_fully_shard" in type(getattr(hook, "__self__", None)).__module__


def shard(
    model: PreTrainedModel,
    mesh: Any,
    *,
    compute: torch.dtype,
    offload: bool = False,
    between: Callable[[], None] = lambda: None,
) -> None:
    """Deal the weights of a transformers model, with what was put into it, to the ranks of a mesh.

    Weights that are still mapped from their file are read as far as they are this rank's; those that wait to be put in
    4 bits are read whole, a layer's at a time, and `between` is called after it, to give freed memory back. A mesh of
    two dimensions deals along the second, and sums gradients along both.
    """
    lower = compute if compute != torch.float32 else None
    policy = MixedPrecisionPolicy(param_dtype=lower, reduce_dtype=torch.float32, cast_forward_inputs=False)
    on_host = offload and mesh.device_type != "cpu"
    places = CPUOffloadPolicy() if on_host else OffloadPolicy()
    device = _device_of(mesh)
    # A quantised model's norms are fp32 where all else is not, and small: every rank has them.
    exact = {parameter for parameter in exact_parameters(model) if not parameter.requires_grad}
    for parameter in exact:
        parameter.data = parameter.data.to(device)
    for module in [*layers_of(model), model]:
        packed = pack(module, compute=compute, device=device)
        _set_precision(module, compute, stay=exact)
        fully_shard(module, mesh=mesh, mp_policy=policy, offload_policy=places, ignored_params=exact)
        remember_shapes(packed)
        if packed:
            between()  # quantising a matrix takes ten times its size for a moment
        # A sum, not a mean: the step divides by the weight of the whole batch.
        module.set_gradient_divide_factor(1.0)
        module.set_force_sum_reduction_for_comms(True)
        _open_door(module)


def layers_of(model: PreTrainedModel) -> list[nn.Module]:
    """The decoder layers: the modules that transformers says are not to be split, the outermost of them."""
    names = set(model._no_split_modules or ())
    found = [(name, module) for name, module in model.named_modules() if type(module).__name__ in names]
    prefixes = [f"{name}." for name, _ in found]
    return [
        module for name, module in found if not name.startswith(tuple(p for p in prefixes if p != f"{name}."))
    ]


def _device_of(mesh: Any) -> torch.device:
    """The device on which this rank computes."""
    if mesh.device_type == "cuda":
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device(mesh.device_type)


def _set_precision(module: nn.Module, compute: torch.dtype, *, stay: Set[nn.Parameter]) -> None:
    """Trained parameters in fp32, others in the precision of the run; what is dealt already stays, as `stay` does."""
    for parameter in _undealt(module):
        if parameter.is_floating_point() and parameter not in stay:
            parameter.data = parameter.data.to(torch.float32 if parameter.requires_grad else compute)


def _undealt(module: nn.Module) -> Iterator[nn.Parameter]:
    if isinstance(module, FSDPModule):
        return
    yield from module.parameters(recurse=False)
    for child in module.children():
        yield from _undealt(child)


def _open_door(module: nn.Module) -> None:
    """Give a module a second method that counts as its forward, which torch offers for the purpose."""
    setattr(module, DOOR, MethodType(_call, module))
    register_fsdp_forward_method(module, DOOR)


def _call(self: nn.Module, function: Callable[..., Any], *given: Any) -> Any:
    return function(*given)
