"""Optimisers by name, torch's own and bitsandbytes', behind one small face: step, state by parameter name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from burnish.errors import DataError
from burnish.optim import eight_bit
from burnish.optim.masters import laid_out_as

Group = dict[str, Any]

_ENTRIES: dict[str, frozenset[str]] = {
    "AdamW": frozenset({"step", "exp_avg", "exp_avg_sq"}),
    "AdamW8bit": frozenset({"step", "state1", "state2"}),
    "AdamW32bit": frozenset({"step", "state1", "state2"}),
    "SGD": frozenset({"momentum_buffer"}),
    "Muon": frozenset({"momentum_buffer"}),
    "Adafactor": frozenset({"step", "variance"}),
}
_FACTORED = frozenset({"step", "row_var", "col_var"})
"""What each optimiser keeps of a parameter that it has moved; of a matrix Adafactor keeps rows and columns."""
_WHOLE = frozenset({"exp_avg", "exp_avg_sq", "state1", "state2", "momentum_buffer"})
"""Entries as large as their parameter."""


class Optimizer:
    """One or two torch optimisers that step together at one learning rate.

    Parameters named in `faster` move at `ratio` times that rate (LoRA+: the B matrices). `muon` moves the hidden
    matrices and leaves embeddings, heads and vectors to AdamW, as its authors do; its update is scaled to AdamW's
    size, so that one `learning_rate` fits both.
    """

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        *,
        name: str,
        weight_decay: float,
        embeddings: frozenset[str],
        faster: frozenset[str] = frozenset(),
        ratio: float = 1.0,
    ) -> None:
        self._names = {id(parameter): key for key, parameter in parameters.items()}
        self._ratio = ratio
        self._faster = {id(parameters[key]) for key in faster} if ratio != 1.0 else set()
        self._parts = _build(parameters, name=name, weight_decay=weight_decay, embeddings=embeddings)
        for part in self._parts:
            self._split(part)

    def step(self, learning_rate: float) -> None:
        """Move every parameter that has a gradient."""
        for part in self._parts:
            for group in part.param_groups:
                group["lr"] = learning_rate * group.get("ratio", 1.0)
            part.step()

    def _split(self, part: torch.optim.Optimizer) -> None:
        """Give the faster parameters of each group a group of their own."""
        for group in list(part.param_groups):
            fast = [p for p in group["params"] if id(p) in self._faster]
            slow = [p for p in group["params"] if id(p) not in self._faster]
            if fast and not slow:
                group["ratio"] = self._ratio
            elif fast:
                group["params"] = slow
                settings = {key: value for key, value in group.items() if key != "params"}
                part.add_param_group({**settings, "params": fast, "ratio": self._ratio})

    def state(self) -> dict[str, Tensor]:
        """The state as flat tensors, `"{parameter}/{entry}"`, ready for safetensors."""
        flat = {}
        for part in self._parts:
            for parameter, entries in part.state.items():
                for entry, value in eight_bit.saved_entries(part, entries).items():
                    key = f"{self._names[id(parameter)]}/{entry}"
                    flat[key] = value if isinstance(value, Tensor) else torch.tensor(value)
        return flat

    def load(self, flat: Mapping[str, Tensor]) -> None:
        """Take a saved state over, by parameter name; DataError where it is not that of these parameters.

        A tensor of a parameter's shape is laid out in memory as the parameter is: a moment that lay otherwise would be
        summed in another order, or, in a fused update, be read as another number's.
        """
        by_parameter: dict[str, dict[str, Tensor]] = {}
        for key, value in flat.items():
            owner, slash, entry = key.rpartition("/")
            if not slash:
                raise _foreign(f"{key!r} is no entry of a parameter, which is 'parameter/entry'")
            by_parameter.setdefault(owner, {})[entry] = value
        strange = sorted(by_parameter.keys() - set(self._names.values()))
        if strange:
            raise DataError(
                f"the optimiser's saved state is of {strange[0]!r}, which is not trained here",
                rule="a resumed run trains the parameters that it trained, by name",
                remedy="resume with the recipe of the run: adapter, lora_target_modules and freeze decide the names",
            )
        for part in self._parts:
            for group in part.param_groups:
                for parameter in group["params"]:
                    saved = by_parameter.get(self._names[id(parameter)], {})
                    _require_entries(part, self._names[id(parameter)], parameter, saved)
                    entries = {
                        entry: _laid_out_as(parameter, value) if value.dim() else value.clone()
                        for entry, value in saved.items()
                    }
                    part.state[parameter] = eight_bit.restored_entries(part, entries, parameter.device)


def _laid_out_as(parameter: Tensor, value: Tensor) -> Tensor:
    if value.shape == parameter.shape and isinstance(parameter, DTensor):
        return laid_out_as(parameter, value)
    if value.shape != parameter.shape or (parameter.is_contiguous() and value.is_contiguous()):
        return value.to(parameter.device)
    return torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def _require_entries(
    part: torch.optim.Optimizer, name: str, parameter: Tensor, saved: Mapping[str, Tensor]
) -> None:
    """DataError where a parameter's saved state is not that of its optimiser; one never moved has none."""
    kind = type(part).__name__
    wanted = _FACTORED if kind == "Adafactor" and parameter.dim() > 1 else _ENTRIES[kind]
    if saved and not wanted <= saved.keys():
        raise _foreign(f"{name!r} has {sorted(saved)}, where {kind} keeps {sorted(wanted)}")
    for entry in wanted & _WHOLE & saved.keys():
        if saved[entry].shape != parameter.shape:
            shapes = f"{list(saved[entry].shape)}, and its parameter {list(parameter.shape)}"
            raise _foreign(f"{name!r}: {entry} has the shape {shapes}")


def _foreign(saw: str) -> DataError:
    return DataError(
        f"the optimiser's saved state: {saw}",
        rule="a resumed run goes on with the state of its own optimizer, parameter by parameter",
        remedy="resume with the run's own optimizer; to go on with another, start a run whose model is RUN/final",
    )


def _build(
    parameters: Mapping[str, nn.Parameter], *, name: str, weight_decay: float, embeddings: frozenset[str]
) -> list[torch.optim.Optimizer]:
    matrices = {k: p for k, p in parameters.items() if p.dim() == 2 and k not in embeddings}
    rest = {k: p for k, p in parameters.items() if k not in matrices}
    groups = _decay_groups(parameters, weight_decay)
    match name:
        case "adamw":
            return [_adamw(groups)]
        case name if name in eight_bit.NAMES:
            return [eight_bit.build_8bit(groups, name)]
        case "sgd":
            return [torch.optim.SGD(groups, lr=0.0, momentum=0.9)]
        case "adafactor":
            return [torch.optim.Adafactor(groups, lr=0.0)]
        case "muon":
            # nn.Parameter order decides nothing here: each matrix is orthogonalised by itself.
            muon = torch.optim.Muon(
                list(matrices.values()), lr=0.0, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"
            )
            return [muon, _adamw(_decay_groups(rest, weight_decay), beta2=0.95)] if rest else [muon]
        case unknown:
            raise ValueError(f"no such optimizer: {unknown!r}")


def _adamw(groups: list[Group], *, beta2: float = 0.999) -> torch.optim.Optimizer:
    return torch.optim.AdamW(groups, lr=0.0, betas=(0.9, beta2), fused=True)


def _decay_groups(parameters: Mapping[str, nn.Parameter], weight_decay: float) -> list[Group]:
    """Matrices decay; norms and biases, being vectors, do not."""
    decayed = [p for p in parameters.values() if p.dim() >= 2]
    free = [p for p in parameters.values() if p.dim() < 2]
    groups: list[Group] = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": free, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
