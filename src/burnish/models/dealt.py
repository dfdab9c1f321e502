"""A base in 4 bits that is dealt to ranks: each holds 1/N of the bytes of every matrix, and at no time all of them.

    read      matrices stay mapped from their files, in the layers that will have them in 4 bits
    shard     a decoder layer's matrices are quantised whole, as one process would, dealt, and forgotten
    compute   FSDP gathers a layer's bytes; codes and scales are views of them, for both passes

A matrix is one row of bytes: codes, scales, scales of scales. It is held as numbers of the run's precision, which none
of these bytes are: what FSDP gathers is cast to that precision, and torch before 2.13 may not leave whole numbers out.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D
from transformers.quantizers.quantizers_utils import should_convert_module

from burnish.errors import DataError
from burnish.models.load import load_model
from burnish.models.locate import locate, read_json
from burnish.models.quantized import (
    WAITING,
    keep_norms_exact,
    left_alone,
    quantized_layers,
    require_bitsandbytes,
    require_original,
)

ALIGNED = 256
"""Bytes at a multiple of which codes and scales begin, whatever a kernel reads at a time."""


@dataclass(frozen=True, slots=True)
class Packed:
    """How a matrix lies in its row of bytes, and what of it is the same for every matrix and held by every rank."""

    state: Any
    sizes: tuple[int, int, int]

    def opened(self, row: Tensor) -> tuple[Tensor, Any]:
        """The codes and bitsandbytes' state of a matrix, as views of a gathered row."""
        from bitsandbytes.functional import QuantState

        codes, scales, outer = (
            part[:size] for part, size in zip(self._parts(row.view(torch.uint8)), self.sizes, strict=True)
        )
        state = self.state
        nested = QuantState(
            absmax=outer.view(torch.float32),
            blocksize=state.state2.blocksize,
            code=state.state2.code,
            dtype=state.state2.dtype,
        )
        opened = QuantState(
            absmax=scales,
            shape=state.shape,
            code=state.code,
            blocksize=state.blocksize,
            quant_type=state.quant_type,
            dtype=state.dtype,
            offset=state.offset,
            state2=nested,
        )
        return codes.view(-1, 1), opened

    def _parts(self, row: Tensor) -> tuple[Tensor, ...]:
        return torch.split(row, [_aligned(size) for size in self.sizes])

    def laid_out(self, codes: Tensor, compute: torch.dtype) -> Tensor:
        """The row of a matrix whose codes these are."""
        row = torch.zeros(sum(map(_aligned, self.sizes)), dtype=torch.uint8, device=codes.device)
        for part, size, given in zip(
            self._parts(row), self.sizes, (codes, self.state.absmax, self.state.state2.absmax), strict=True
        ):
            part[:size] = given.reshape(-1).view(torch.uint8)
        return row.view(compute)


def load_to_deal(name: str, *, compute: torch.dtype) -> PreTrainedModel:
    """The model that `load_quantized` makes, with its matrices still in their files; `pack` makes them of 4 bits."""
    require_bitsandbytes()
    directory = locate(name)
    require_original(directory, read_json(directory / "config.json"))
    model = load_model(name, device=torch.device("cpu"))
    model.requires_grad_(False)
    skipped = left_alone(model)
    for name, module in list(model.named_modules()):
        if (type(module) is nn.Linear or isinstance(module, Conv1D)) and should_convert_module(name, skipped):
            model.set_submodule(name, _waiting(module, compute))
    if next(quantized_layers(model), None) is None:
        raise DataError(
            f"{directory}: no linear layer of {type(model).__name__} is put in 4 bits",
            rule="a base in 4 bits has linear layers",
            remedy="train with adapter=lora",
        )
    for parameter in model.parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(compute)
    if compute != torch.float32:
        keep_norms_exact(model)
    model.is_loaded_in_4bit = True  # as PEFT asks
    return model


def _waiting(source: Any, compute: torch.dtype) -> nn.Module:
    """A layer for 4 bits whose matrix is not read yet."""
    from bitsandbytes.nn import Linear4bit, Params4bit

    matrix = source.weight.data.T if isinstance(source, Conv1D) else source.weight.data
    layer: Any = Linear4bit(
        matrix.shape[1], matrix.shape[0], source.bias is not None, compute, quant_type="nf4", device="meta"
    )
    # bitsandbytes is told that it is quantised, and leaves it alone when a model is moved.
    nothing = torch.empty(0, 1, dtype=torch.uint8)
    layer.weight = Params4bit(nothing, quant_type="nf4", bnb_quantized=True)
    layer.bias = source.bias
    layer.training = source.training
    setattr(layer, WAITING, matrix)
    made: nn.Module = layer
    return made


@torch.no_grad()
def pack(module: nn.Module, *, compute: torch.dtype, device: torch.device) -> list[Any]:
    """Read and quantise the matrices of a module that wait, each to a row of bytes, and name their layers."""
    layers = [layer for layer in quantized_layers(module) if hasattr(layer, WAITING)]
    for layer in layers:
        from bitsandbytes.nn import Params4bit

        matrix = layer.__dict__.pop(WAITING).to(compute)
        made = Params4bit(matrix, quant_type="nf4").to(device)
        state = made.quant_state
        packed = Packed(state, (made.nbytes, state.absmax.nbytes, state.state2.absmax.nbytes))
        layer.weight = nn.Parameter(packed.laid_out(made.data, compute), requires_grad=False)
        state.absmax = state.state2.absmax = None  # they are in the row
        layer.packed = packed
        layer.forward = MethodType(_forward, layer)
    return layers


def remember_shapes(layers: list[Any]) -> None:
    """Let the dealt rows say which matrices they stand for, as bitsandbytes' parameters do."""
    for layer in layers:
        layer.weight.quant_state = layer.packed.state


def _forward(self: Any, x: Tensor) -> Tensor:
    """What bitsandbytes' layer computes, of a row that is gathered now, and again for the backward pass."""
    from bitsandbytes import matmul_4bit

    codes, state = self.packed.opened(self.weight)
    bias = None if self.bias is None else self.bias.to(self.compute_dtype)
    made: Tensor = matmul_4bit(x.to(self.compute_dtype), codes.t(), bias=bias, quant_state=state)
    return made.to(x.dtype)


def _aligned(size: int) -> int:
    return -(-size // ALIGNED) * ALIGNED
