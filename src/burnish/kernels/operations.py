"""The kernels as functions of tensors; `library.take` says of which. No autograd here."""

from __future__ import annotations

import ctypes
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from burnish.kernels.library import kernels

DEPTHS = range(16, 257, 16)
"""Sizes of a head that the attention kernels take."""


class Runs(NamedTuple):
    """A pack's runs as the kernels read them.

    `runs` is `(N, 6)` int64: start, end, first and last query asked for, where its ancestors' spans begin among
    `spans` `(M, 2)`, and how many they are.
    """

    runs: np.ndarray[Any, np.dtype[np.int64]]
    spans: np.ndarray[Any, np.dtype[np.int64]]


class Rule(NamedTuple):
    """What attention follows: `scale` of the scores, the window's width, RoPE's cos and sin `(T, D)`."""

    runs: Runs
    scale: float
    window: int | None
    cos: Tensor | None
    sin: Tensor | None


def attention(query: Tensor, key: Tensor, value: Tensor, rule: Rule) -> tuple[Tensor, Tensor]:
    """`(T, H, D)` over `(T, H_kv, D)` to `(T, H, D)`, and the log2 of each row's sum of scores `(H, T)`, fp32."""
    query, key, value = (_in_rows(x) for x in (query, key, value))
    out = torch.empty(query.shape, dtype=query.dtype)
    sums = torch.empty(query.shape[1], len(query))
    _ask(
        "attention_forward", *_heads(query), *_heads(key), *_heads(value), *_pack(query, key, rule),
        out.data_ptr(), sums.data_ptr(),
    )  # fmt: skip
    return out, sums


def attention_backward(
    by: Tensor, out: Tensor, sums: Tensor, query: Tensor, key: Tensor, value: Tensor, rule: Rule
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of query, key and value, from that of `out`."""
    query, key, value = (_in_rows(x) for x in (query, key, value))
    by = by.contiguous()
    made = tuple(torch.empty(x.shape, dtype=x.dtype) for x in (query, key, value))
    _ask(
        "attention_backward", by.data_ptr(), out.data_ptr(), sums.data_ptr(),
        *_heads(query), *_heads(key), *_heads(value), *_pack(query, key, rule), *(x.data_ptr() for x in made),
    )  # fmt: skip
    return made  # type: ignore[return-value]


def inverse_rms(x: Tensor, epsilon: float) -> Tensor:
    """1 / rms over the last dimension of `x`, `(..., 1)`, fp32."""
    x = x.contiguous()
    scale = torch.empty(*x.shape[:-1], 1)
    _ask("inverse_rms", x.data_ptr(), epsilon, scale.numel(), x.shape[-1], scale.data_ptr())
    return scale


def norm(x: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
    """`weight * x * scale`, rounded once."""
    x = x.contiguous()
    out = torch.empty_like(x)
    _ask(
        "norm_forward", x.data_ptr(), weight.data_ptr(), scale.data_ptr(), scale.numel(), x.shape[-1],
        out.data_ptr(),
    )  # fmt: skip
    return out


def norm_backward(
    by: Tensor, other: Tensor | None, x: Tensor, weight: Tensor, scale: Tensor, *, of_x: bool, of_weight: bool
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients of `x`, with `other`, that of its other use, added to it; and of the weight, in fp32."""
    by, x, width = by.contiguous(), x.contiguous(), x.shape[-1]
    other = None if other is None else other.contiguous()
    by_x = torch.empty_like(x) if of_x else None
    by_weight = torch.empty(width) if of_weight else None
    _ask(
        "norm_backward", by.data_ptr(), _at(other), x.data_ptr(), weight.data_ptr(), scale.data_ptr(),
        scale.numel(), width, _at(by_x), _at(by_weight),
    )  # fmt: skip
    return by_x, by_weight


def gate(gate: Tensor, up: Tensor) -> Tensor:
    """`silu(gate) * up`."""
    gate, up = gate.contiguous(), up.contiguous()
    out = torch.empty_like(gate)
    _ask("gate_forward", gate.data_ptr(), up.data_ptr(), gate.numel(), out.data_ptr())
    return out


def gate_backward(by: Tensor, gate: Tensor, up: Tensor, *, over: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of gate and up, written over `over` and `by`, which are contiguous."""
    gate, up = gate.contiguous(), up.contiguous()
    _ask(
        "gate_backward", by.data_ptr(), gate.data_ptr(), up.data_ptr(), by.numel(), over.data_ptr(), by.data_ptr()
    )  # fmt: skip
    return over, by


def grade(logits: Tensor, starts: Tensor, targets: Tensor, weights: Tensor, *, keep: bool) -> Tensor:
    """-ln p of each target, fp32; with `keep` the gradient of their weighted sum takes the place of `logits` `(R, V)`.

    Row r has the targets `[starts[r], starts[r + 1])`; all contiguous, `weights` fp32, `starts` and `targets` int64.
    """
    nll = torch.empty(len(targets))
    _ask(
        "grade_rows", logits.data_ptr(), *logits.shape, starts.data_ptr(), targets.data_ptr(), weights.data_ptr(),
        nll.data_ptr(), int(keep),
    )  # fmt: skip
    return nll


def _ask(name: str, *given: Any) -> None:
    library = kernels()
    assert library is not None  # `take` has been asked
    if getattr(library, name)(*given, torch.get_num_threads()) == -1:
        raise MemoryError(f"{name}: no memory for what it works with")


def _at(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _in_rows(x: Tensor) -> Tensor:
    return x if x.stride(-1) == 1 else x.contiguous()


def _heads(x: Tensor) -> tuple[int, int, int]:
    return x.data_ptr(), x.stride(0), x.stride(1)


def _pack(query: Tensor, key: Tensor, rule: Rule) -> tuple[Any, ...]:
    runs, spans = rule.runs
    tokens, heads, depth = query.shape
    return (
        _at(rule.cos), _at(rule.sin), runs.ctypes.data_as(ctypes.c_void_p), len(runs),
        spans.ctypes.data_as(ctypes.c_void_p), tokens, heads, key.shape[1], depth, rule.scale, rule.window or 0,
    )  # fmt: skip
