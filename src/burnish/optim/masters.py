"""fp32 masters: the weights that the optimiser moves, where the model computes in bf16.

A bf16 number keeps 8 bits of mantissa, so an update below 1/256 of a weight is lost in it. AdamW at a learning rate
of 1e-5 moves most weights by less, and a run on bf16 weights alone hardly learns (pytorch/ao#1124).
Here the model holds bf16 copies to compute with; gradients are summed over micro-batches in fp32; the optimiser
moves fp32 masters; the copies are refreshed from them after each update.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

from burnish.errors import DataError
from burnish.losses.sums import GradientSum, sum_gradient_of

BUCKET = 1 << 25
"""Numbers that are summed over the ranks at a time: 128 MiB of fp32."""


class Masters:
    """The trained parameters by name, in fp32, with their gradients summed in fp32.

    Where the model computes in fp32 a master *is* the model's parameter, and nothing is held twice. `exact` are
    parameters that stay in fp32 as they are; weights in 4 bits, being whole numbers, stay as well.

    Sharded parameters are in fp32 and are cast as they are gathered (`models.shard`): they are their own masters.
    """

    def __init__(self, model: nn.Module, *, compute: torch.dtype, exact: Iterable[nn.Parameter] = ()) -> None:
        stay = {id(parameter) for parameter in exact}
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._sums: list[GradientSum] = []
        if any(isinstance(parameter, DTensor) for parameter in trained.values()):
            self.is_sharded, self.parameters, self._copies = True, trained, {}
            return
        whole = {name: parameter.detach().float() for name, parameter in trained.items()}
        for parameter in model.parameters():  # buffers stay: rotary frequencies need fp32
            if parameter.is_floating_point() and id(parameter) not in stay:
                parameter.data = parameter.data.to(compute)
        self._copies = trained if compute != torch.float32 else {}
        self.is_sharded = False
        self.parameters = {
            name: nn.Parameter(whole[name]) if name in self._copies else parameter
            for name, parameter in trained.items()
        }
        for name, copy in self._copies.items():
            self._sums.append(sum_gradient_of(copy, self.parameters[name]))
            copy.register_post_accumulate_grad_hook(partial(_collect, self._sums[-1]))  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def gather(self, total: Callable[[Tensor], Tensor]) -> None:
        """Sum the gradients over all ranks with `total`, a bucket at a time; of sharded weights this is done already.

        What has a gradient on no rank has none after it, so that an optimiser leaves it alone everywhere.
        """
        if self.is_sharded:
            return
        names = list(self.parameters)
        found = total(torch.tensor([float(self.parameters[name].grad is not None) for name in names]))
        present = [self.parameters[name] for name, count in zip(names, found.tolist(), strict=True) if count]
        for bucket in _buckets(present):
            grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in bucket]
            summed = total(torch.cat([grad.reshape(-1) for grad in grads]))
            parts = torch.split(summed, [grad.numel() for grad in grads])
            for parameter, grad, part in zip(bucket, grads, parts, strict=True):
                parameter.grad = grad.copy_(part.view_as(grad))

    @torch.no_grad()
    def clip(self, max_norm: float | None, *, over: float = 1.0) -> Tensor:
        """Divide the summed gradient by `over`, the batch's weight, and scale it down to `max_norm`, in one pass.

        Returns the norm of the divided gradient before it was scaled, a scalar that nothing here waits for.
        """
        grads = [p.grad for p in self.parameters.values() if p.grad is not None]
        norm = whole(nn.utils.get_total_norm(grads)) / over
        factor = torch.full_like(norm, 1.0 / over)
        if max_norm is not None:
            factor *= (max_norm / (norm + 1e-6)).clamp(max=1.0)
        torch._foreach_mul_([local(grad) for grad in grads], factor)
        return norm

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for summed in self._sums:
            summed.forget()
        for parameter in self.parameters.values():
            parameter.grad = None

    @torch.no_grad()
    def refresh(self) -> None:
        """Round the masters into the copies that the model computes with."""
        for name, copy in self._copies.items():
            copy.copy_(self.parameters[name])

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take saved masters over, by name; the model's copies follow."""
        for name, parameter in self.parameters.items():
            if name not in tensors or tensors[name].shape != parameter.shape:
                found = f"of shape {list(tensors[name].shape)}" if name in tensors else "not there"
                raise DataError(
                    f"the saved weights: {name} is {found}, and has shape {list(parameter.shape)} here",
                    rule="a resumed run trains the parameters that it trained, by name and shape",
                    remedy="resume with the recipe of the run: model, adapter and lora_r decide names and shapes",
                )
        for name, parameter in self.parameters.items():
            parameter.copy_(laid_out_as(parameter, tensors[name]))
        self.refresh()


def whole(tensor: Tensor) -> Tensor:
    """A tensor of which each rank may hold a part, gathered from all of them; every rank has to ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def local(tensor: Tensor) -> Tensor:
    """The part that this rank holds."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def laid_out_as(like: Tensor, value: Tensor) -> Tensor:
    """A whole tensor, which every rank has, dealt to the ranks as `like` is: this rank's part of it, copied.

    (torch's `distribute_tensor` brings all of it to the device, and the part it gives goes on holding the rest.)
    """
    if not isinstance(like, DTensor):
        return value
    shape, first = compute_local_shape_and_global_offset(value.shape, like.device_mesh, like.placements)
    part = value[tuple(slice(at, at + length) for at, length in zip(first, shape, strict=True))]
    own = part.to(like.device, copy=True, memory_format=torch.contiguous_format)
    return DTensor.from_local(
        own, like.device_mesh, like.placements, run_check=False, shape=value.shape, stride=value.stride()
    )


def _collect(summed: GradientSum, copy: Tensor) -> None:
    """Take a copy's new gradient over and let it go."""
    if copy.grad is not None:
        summed.add(copy.grad)
        copy.grad = None


def _buckets(parameters: Sequence[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    """Parameters in groups of at most `BUCKET` numbers, or one that is larger."""
    bucket: list[nn.Parameter] = []
    for parameter in parameters:
        if bucket and sum(p.numel() for p in bucket) + parameter.numel() > BUCKET:
            yield bucket
            bucket = []
        bucket.append(parameter)
    if bucket:
        yield bucket
