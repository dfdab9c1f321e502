"""The adapter audit: after the first update's backward pass, did a gradient reach everything that is to be trained?

An adapter that was put in and is never reached trains to nothing, at a loss that falls a little all the same (token
rows, norms). So a module without any gradient stops the run, with its name. Of a mixture's experts those must have one
that a token chose whose output counted; the others are counted and named as not yet seen.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from peft.tuners.lora.layer import ParamWrapper
from torch import Tensor, nn

from burnish.adapters.bottleneck import CHILD, plain_name
from burnish.adapters.targets import fused_experts
from burnish.errors import UsageError

SHOWN = 4


@dataclass(frozen=True, slots=True)
class Audit:
    """How many modules were reached, and parameters of full tuning that were not; experts that a counting token chose,
    of all; token rows that did not occur.
    """

    modules: int
    unreached: tuple[str, ...]
    experts: int
    of_experts: int
    silent_rows: int

    def __str__(self) -> str:
        parts = [f"a gradient reached all {self.modules:,} trained modules"]
        if self.unreached:
            shown = _shown(self.unreached)
            parts = [f"a gradient reached {self.modules:,} trained parameters, and none {shown}"]
        if self.of_experts:
            parts.append(
                f"{self.experts:,} of {self.of_experts:,} experts had tokens in the first update, and a gradient"
            )
        if self.silent_rows:
            parts.append(f"{self.silent_rows} trained token rows did not occur in it")
        return "; ".join(parts)


class Owed:
    """Which experts are owed a gradient: those that a token chose whose output got one."""

    def __init__(self) -> None:
        self.by_module: dict[int, Tensor] = {}

    def note(self, module: nn.Module, chosen: Tensor, gradient: Tensor) -> None:
        """Take the gradient of a mixture's output `(..., T, H)` and its choice `(T, k)`."""
        counted = gradient.flatten(0, -2).abs().amax(dim=-1) > 0
        hits = torch.bincount(chosen[counted].flatten(), minlength=int(module.num_experts))  # type: ignore[arg-type]
        seen = self.by_module.get(id(module))
        self.by_module[id(module)] = hits > 0 if seen is None else seen | (hits > 0)


@contextmanager
def watching_experts(model: nn.Module) -> Iterator[Owed]:
    """Within the block, forward and backward, note which fused experts are owed a gradient."""
    owed = Owed()

    def remember(module: nn.Module, given: tuple[Any, ...], output: Any) -> None:
        if isinstance(output, Tensor) and output.requires_grad and len(given) > 1 and given[1].dim() == 2:
            note = partial(owed.note, module, given[1].detach())
            output.register_hook(note)  # type: ignore[no-untyped-call]

    mixtures = {name.rpartition(".")[0] for name, _ in fused_experts(model)}
    handles = [model.get_submodule(name).register_forward_hook(remember) for name in mixtures]
    try:
        yield owed
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def audit(model: nn.Module, trained: Mapping[str, nn.Parameter], owed: Owed) -> Audit:
    """Look at the summed gradients of the trained parameters, by name; UsageError where an adapter is inert."""
    groups: dict[str, list[nn.Parameter]] = {}
    for name, parameter in trained.items():
        groups.setdefault(_owner(name), []).append(parameter)
    norms = [sum((_size(p) for p in group), torch.zeros(())) for group in groups.values()]
    silent = [
        name
        for name, norm in zip(groups, torch.stack(norms).tolist() if norms else [], strict=True)
        if norm == 0 and not _is_rows(name)
    ]
    inert = [plain_name(name) for name in silent if _is_adapter(name)]
    if inert or len(silent) == len(groups):
        raise _inert(inert or silent, len(groups))
    reached, of_experts = _audit_experts(model, trained, owed)
    return Audit(len(groups) - len(silent), tuple(silent), reached, of_experts, _silent_rows(trained))


def _audit_experts(model: nn.Module, trained: Mapping[str, nn.Parameter], owed: Owed) -> tuple[int, int]:
    """How many experts were owed a gradient, of how many; UsageError where one of them got none."""
    reached = total = 0
    for name, wrapper in model.named_modules():
        if not isinstance(wrapper, ParamWrapper) or wrapper.num_experts == 1:
            continue
        due = owed.by_module.get(id(wrapper.get_base_layer()))
        got = sum(
            _by_expert(key, p, wrapper.num_experts) for key, p in trained.items() if _owner(key) == name
        )
        if due is None or not isinstance(got, Tensor):
            continue
        missing = (due & (got == 0)).nonzero().flatten().tolist()
        if missing:
            raise _inert(
                [f"{plain_name(name)} ({wrapper.parameter_name}), expert {one}" for one in missing], len(got)
            )
        reached, total = reached + int(due.sum()), total + len(due)
    return reached, total


def _by_expert(name: str, parameter: nn.Parameter, experts: int) -> Tensor:
    """The size of the gradient by expert, as PEFT (A, B) and LoRA-XS (core) lay experts in one matrix."""
    gradient = parameter.grad
    if gradient is None:
        return torch.zeros(experts, device=parameter.device)
    size = _whole(gradient).abs()
    if ".lora_A." in name:
        return size.view(experts, -1).sum(1)
    return size.view(experts, -1).sum(1) if name.endswith(".core") else size.view(-1, experts).sum(0)


def _size(parameter: nn.Parameter) -> Tensor:
    return torch.zeros(()) if parameter.grad is None else _whole(parameter.grad).abs().amax().float().cpu()


def _whole(gradient: Tensor) -> Tensor:
    """A gradient, gathered where ranks hold parts of it (torch's DTensor)."""
    gather = getattr(gradient, "full_tensor", None)
    return gradient if gather is None else gather()


def _silent_rows(trained: Mapping[str, nn.Parameter]) -> int:
    count = 0
    for name, parameter in trained.items():
        if _is_rows(name):
            gradient = parameter.grad
            count += (
                len(parameter) if gradient is None else int((_whole(gradient).abs().amax(dim=1) == 0).sum())
            )
    return count


def _owner(name: str) -> str:
    """The module that a trained parameter belongs to: `...q_proj.lora_A.default.weight` to `...q_proj`."""
    for mark in (".lora_", f".{CHILD}.", ".modules_to_save."):
        if mark in name:
            return name.partition(mark)[0] + ("" if mark == ".lora_" else mark.rstrip("."))
    return name


def _is_rows(name: str) -> bool:
    return "trainable_tokens" in name


def _is_adapter(name: str) -> bool:
    """Whether it was put in or named to be trained; of full tuning, some parameters may not take part in a step."""
    return name.startswith("base_model.model.") or name.endswith(f".{CHILD}")


def _shown(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def _inert(names: list[str], of: int) -> UsageError:
    return UsageError(
        f"no gradient reached {_shown(names) or 'anything'} ({len(names)} of {of}) in the first update",
        rule="everything that a recipe trains takes part in the loss",
        remedy="leave these out of lora_target_modules or modules_to_save; the model does not use them",
    )
