"""The operations between matrix products that a Llama-shaped layer is made of, with their own backward passes.

Each does in few passes over its numbers what autograd does in many: sums of gradients ride on matrix products,
a residual is where a product is added to, LoRA's thin matrices on the same input are multiplied together. The
functions are transformers' and PEFT's own, in the same precision; tests hold them to that.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from peft.tuners.lora.layer import Linear as LoraLinear
from torch import Tensor, nn

from burnish.kernels import operations
from burnish.kernels.library import take


class Weights(NamedTuple):
    """A linear layer: `(N, K)`, bias `(N,)`; and LoRA's `a` `(r, K)`, `b` `(N, r)`, which counts `scale` times."""

    weight: Tensor
    bias: Tensor | None
    a: Tensor | None
    b: Tensor | None
    scale: float


def weights_of(module: nn.Module) -> Weights | None:
    """The matrices of a linear layer, plain or with one LoRA adapter; None for whatever else may sit there."""
    if module._forward_hooks or module._forward_pre_hooks:
        return None
    if type(module) is nn.Linear:
        return Weights(module.weight, module.bias, None, None, 0.0)
    if type(module) is not LoraLinear or type(module.base_layer) is not nn.Linear:
        return None
    lora: Any = module
    base, names = lora.base_layer, [name for name in lora.active_adapters if name in lora.lora_A]
    if lora.merged or lora.disable_adapters or lora.lora_variant or len(names) != 1:
        return None
    dropout, a, b = (part[names[0]] for part in (lora.lora_dropout, lora.lora_A, lora.lora_B))
    if isinstance(dropout, nn.Dropout) and dropout.p > 0 and dropout.training:
        return None  # each projection drops other inputs
    if a.weight.dtype != base.weight.dtype or a.bias is not None or b.bias is not None:
        return None
    return Weights(base.weight, base.bias, a.weight, b.weight, float(lora.scaling[names[0]]))


def _known(modules: Sequence[nn.Module]) -> tuple[tuple[float, ...], list[Tensor | None]] | None:
    """The layers' scales and, four each, their tensors; None where any is of another kind."""
    found = [one for module in modules if (one := weights_of(module)) is not None]
    if len(found) < len(modules):
        return None
    return tuple(one.scale for one in found), [tensor for one in found for tensor in one[:4]]


def project(x: Tensor, modules: Sequence[nn.Module], residual: Tensor | None = None) -> tuple[Tensor, ...]:
    """Linear layers of one input `(T, K)`; a `residual`, which only a single layer may have, is added to it."""
    known = _known(modules)
    if known is None:
        out = tuple(module(x) for module in modules)
        return out if residual is None else (residual + out[0],)
    scales, tensors = known
    made: tuple[Tensor, ...] = _Project.apply(x, residual, scales, *tensors)  # type: ignore[no-untyped-call]
    return made


def project_normed(x: Tensor, norm: nn.Module, modules: Sequence[nn.Module]) -> tuple[Tensor, ...]:
    """`x` for its other use, whose gradient is added where the norm's is made, and linear layers of its RMSNorm.

    The norm is not kept, but made again in the backward pass.
    """
    known = _known(modules)
    if known is None:
        x, seen = _Norm.apply(x, norm.weight, norm.variance_epsilon)  # type: ignore[no-untyped-call]
        return (x, *(module(seen) for module in modules))
    scales, tensors = known
    made: tuple[Tensor, ...] = _NormProject.apply(x, norm.weight, norm.variance_epsilon, scales, *tensors)  # type: ignore[no-untyped-call]
    return made


def gated_project(gate: Tensor, up: Tensor, module: nn.Module, residual: Tensor | None = None) -> Tensor:
    """`module(silu(gate) * up)`, plus a `residual`; the product, the widest thing a layer keeps, is made again
    in the backward pass."""
    found = weights_of(module)
    if found is None:
        out: Tensor = module(F.silu(gate) * up)
        return out if residual is None else residual + out
    made: Tensor = _GatedProject.apply(gate, up, residual, found.scale, *found[:4])  # type: ignore[no-untyped-call]
    return made


class _Project(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, residual: Tensor | None, scales: tuple[float, ...], *tensors: Tensor | None
    ) -> tuple[Tensor, ...]:
        out, thin = _products(x, residual, _layers(scales, tensors))
        ctx.save_for_backward(x, thin, *tensors)
        ctx.scales, ctx.has_residual = scales, residual is not None
        return out

    @staticmethod
    def backward(ctx: Any, *by: Tensor) -> tuple[Tensor | None, ...]:
        x, thin, *tensors = ctx.saved_tensors
        needs = ctx.needs_input_grad
        dx, grads = _gradients(by, x, thin, _layers(ctx.scales, tensors), (needs[0], *needs[3:]))
        return (dx, by[0] if ctx.has_residual else None, None, *grads)


class _NormProject(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        epsilon: float,
        scales: tuple[float, ...],
        *tensors: Tensor | None,
    ) -> tuple[Tensor, ...]:
        inverse = _inverse_rms(x, epsilon)
        out, thin = _products(_normed(x, weight, inverse), None, _layers(scales, tensors))
        ctx.save_for_backward(x, weight, inverse, thin, *tensors)
        ctx.scales = scales
        return (x, *out)

    @staticmethod
    def backward(ctx: Any, other: Tensor, *by: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, inverse, thin, *tensors = ctx.saved_tensors
        of_norm, of_layers = ctx.needs_input_grad[:2], ctx.needs_input_grad[4:]
        seen = _normed(x, weight, inverse)
        by_seen, grads = _gradients(by, seen, thin, _layers(ctx.scales, tensors), (any(of_norm), *of_layers))
        dx = dw = None
        if by_seen is not None:
            dx, dw = _norm_gradients(by_seen, other, x, weight, inverse, of_norm)
        return (dx, dw, None, None, *grads)


class _GatedProject(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, gate: Tensor, up: Tensor, residual: Tensor | None, scale: float, *tensors: Tensor | None
    ) -> Tensor:
        (out,), thin = _products(_gated(gate, up), residual, _layers((scale,), tensors))
        ctx.save_for_backward(gate, up, thin, *tensors)
        ctx.scale, ctx.has_residual = scale, residual is not None
        return out

    @staticmethod
    def backward(ctx: Any, by: Tensor) -> tuple[Tensor | None, ...]:
        gate, up, thin, *tensors = ctx.saved_tensors
        opened = None if take(gate, up) else F.silu(gate)
        x = operations.gate(gate, up) if opened is None else opened * up
        needs = (any(ctx.needs_input_grad[:2]), *ctx.needs_input_grad[4:])
        dx, grads = _gradients((by,), x, thin, _layers((ctx.scale,), tensors), needs)
        by_gate = by_up = None
        if dx is not None:
            if opened is None:
                by_gate, by_up = operations.gate_backward(dx, gate, up, over=x)
            else:
                by_gate = torch.ops.aten.silu_backward(torch.mul(dx, up, out=x), gate)
                by_up = opened.mul_(dx)
        return (by_gate, by_up, by if ctx.has_residual else None, None, *grads)


def _gated(gate: Tensor, up: Tensor) -> Tensor:
    return operations.gate(gate, up) if take(gate, up) else F.silu(gate).mul_(up)


def _products(
    x: Tensor, residual: Tensor | None, layers: Sequence[Weights]
) -> tuple[tuple[Tensor, ...], Tensor | None]:
    """What each layer makes of `x`, and `x` through all their thin matrices at once."""
    thin_in = _stack([w.a for w in layers])
    thin = x @ thin_in.t() if thin_in is not None else None
    out = []
    for layer, share in zip(layers, _split(thin, layers), strict=True):
        if residual is not None and layer.bias is None and share is None:
            out.append(torch.addmm(residual, x, layer.weight.t()))
            continue
        y = F.linear(x, layer.weight, layer.bias)
        if share is not None and layer.b is not None:
            # Before the residual: in bf16 what a young adapter adds is less than half a step of the larger sum.
            y.addmm_(share, layer.b.t(), alpha=layer.scale)
        out.append(y if residual is None else y.add_(residual))
    return tuple(out), thin


def _gradients(
    by: Sequence[Tensor], x: Tensor, thin: Tensor | None, layers: Sequence[Weights], needs: Sequence[bool]
) -> tuple[Tensor | None, list[Tensor | None]]:
    """The gradient of `x`, and those of each layer's four tensors; `needs` says of each, in this order, whether."""
    dx: Tensor | None = None
    grads: list[list[Tensor | None]] = []
    by_thin: list[Tensor] = []
    for index, (g, layer, share) in enumerate(zip(by, layers, _split(thin, layers), strict=True)):
        need = needs[1 + 4 * index : 5 + 4 * index]
        if needs[0]:
            dx = g @ layer.weight if dx is None else dx.addmm_(g, layer.weight)
        mine: list[Tensor | None] = [
            g.t() @ x if need[0] else None,
            g.sum(0) if need[1] else None,
            None,
            None,
        ]
        if layer.b is not None and share is not None:
            by_thin.append((g @ layer.b).mul_(layer.scale))
            if need[3]:
                mine[3] = (g.t() @ share).mul_(layer.scale)
        grads.append(mine)
    thin_in = _stack([w.a for w in layers])
    if by_thin and thin_in is not None:
        together = torch.cat(by_thin, dim=1) if len(by_thin) > 1 else by_thin[0]
        if dx is not None:
            dx.addmm_(together, thin_in)
        if any(needs[3::4]):
            for mine, part in zip(grads, _split((together.t() @ x).t(), layers), strict=True):
                mine[2] = None if part is None else part.t()
    return dx, [one for mine in grads for one in mine]


def _layers(scales: tuple[float, ...], tensors: Sequence[Any]) -> list[Weights]:
    return [Weights(*tensors[4 * i : 4 * i + 4], scale) for i, scale in enumerate(scales)]  # type: ignore[call-arg]


def _stack(thin: Sequence[Tensor | None]) -> Tensor | None:
    present = [one for one in thin if one is not None]
    return None if not present else present[0] if len(present) == 1 else torch.cat(present)


def _split(thin: Tensor | None, layers: Sequence[Weights]) -> list[Tensor | None]:
    """Columns of `thin`, `rank` for each layer that has LoRA."""
    parts: list[Tensor | None] = []
    at = 0
    for layer in layers:
        rank = 0 if layer.a is None else layer.a.shape[0]
        parts.append(thin[:, at : at + rank] if thin is not None and rank else None)
        at += rank
    return parts


def rms_norm(x: Tensor, module: nn.Module) -> Tensor:
    """`module.weight * x / rms(x)` over the last dimension, in fp32 as transformers' RMSNorm does it."""
    made: tuple[Tensor, Tensor] = _Norm.apply(x, module.weight, module.variance_epsilon)  # type: ignore[no-untyped-call]
    return made[1]


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        scale = _inverse_rms(x, epsilon)
        ctx.save_for_backward(x, weight, scale)
        return x, _normed(x, weight, scale)

    @staticmethod
    def backward(ctx: Any, other: Tensor | None, by: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, scale = ctx.saved_tensors
        return (*_norm_gradients(by, other, x, weight, scale, ctx.needs_input_grad), None)


def _in_fp32(x: Tensor) -> Tensor:
    """fp64 in fp32, to which transformers goes down as well; bf16 as it is, for a product with fp32 widens it."""
    return x.float() if x.dtype == torch.float64 else x


def _inverse_rms(x: Tensor, epsilon: float) -> Tensor:
    """1 / rms of each row `(..., 1)`, in fp32."""
    if take(x):
        return operations.inverse_rms(x, epsilon)
    size: Tensor = torch.linalg.vector_norm(_in_fp32(x), dim=-1, keepdim=True, dtype=torch.float32)
    return size.square_().mul_(1.0 / x.shape[-1]).add_(epsilon).rsqrt_()


def _normed(x: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
    if take(x, weight):
        return operations.norm(x, weight, scale)
    out: Tensor = torch.mul(_in_fp32(x), scale).to(torch.promote_types(x.dtype, torch.float32)).mul_(weight)
    return out.to(x.dtype)


def _norm_gradients(
    by: Tensor, other: Tensor | None, x: Tensor, weight: Tensor, scale: Tensor, needs: Sequence[bool]
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients of `x`, that of its `other` use added to it, and of the weight; `needs` says of each, whether."""
    of_x, of_weight = needs[:2]
    if take(by, x, weight):
        dx, dw = operations.norm_backward(by, other, x, weight, scale, of_x=of_x, of_weight=of_weight)
        return dx, None if dw is None else dw.to(weight.dtype)
    unit = _in_fp32(x) * scale
    dx = dw = None
    if of_weight:
        dw = (by * unit).flatten(0, -2).sum(0).to(weight.dtype)
    if of_x:
        g = torch.mul(by, weight.to(unit.dtype)).to(unit.dtype)
        along = torch.linalg.vecdot(g, unit).unsqueeze(-1).mul_(-1.0 / x.shape[-1])
        dx = g.addcmul_(unit, along).mul_(scale).to(by.dtype)
        dx = dx if other is None else dx.add_(other)
    return dx, dw
