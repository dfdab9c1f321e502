"""F10: burnish's arithmetic beside a reference in NumPy and fp64, written from the formulas and from nothing else."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from burnish.experiments.reliability.outcome import Outcome
from burnish.losses.cross_entropy import Grading, LogitRule, head_loss
from burnish.optim.build import Optimizer
from burnish.optim.masters import Masters
from burnish.optim.schedule import Schedule

MOST = 1e-5
Array = np.ndarray[Any, np.dtype[np.float64]]


def differential(place: Path, *, seed: int, trials: int = 500) -> Outcome:
    """F10: random cases of loss and gradient, AdamW and SGD, clipping, the schedule, LoRA and DoRA."""
    outcome = Outcome("F10", "beside a NumPy fp64 reference (relative)", seed)
    draw = np.random.default_rng(seed)
    torch.manual_seed(seed)
    largest: dict[str, float] = {}
    for trial in range(trials):
        kind = sorted(KINDS)[trial % len(KINDS)]
        apart = KINDS[kind](draw)
        largest[kind] = max(largest.get(kind, 0.0), apart)
        outcome.note(kind, f"{apart:.2e} apart" if not apart <= MOST else None)
    outcome.margin = "largest: " + ", ".join(f"{kind} {apart:.0e}" for kind, apart in sorted(largest.items()))
    return outcome


def _apart(ours: Any, reference: Any) -> float:
    """The largest difference as a share of the largest number."""
    a, b = np.asarray(ours, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    return float(np.abs(a - b).max() / max(float(np.abs(b).max()), 1e-30))


def head_reference(
    hidden: Array, weight: Array, rows: Any, targets: Any, weights: Array, *, smooth: float, z: float,
    scale: float, cap: float | None,
) -> tuple[float, Array, Array]:  # fmt: skip
    """sum(w * ((1-e) nll + e mean(-ln p) + z lse^2)) of capped, scaled logits; gradients to hidden and weight."""
    raw = hidden @ weight.T * scale
    logits = raw if cap is None else cap * np.tanh(raw / cap)
    top = logits.max(axis=1, keepdims=True)
    lse = np.log(np.exp(logits - top).sum(axis=1)) + top[:, 0]
    p = np.exp(logits - lse[:, None])
    total, by_logits = 0.0, np.zeros_like(logits)
    for row, target, w in zip(rows, targets, weights, strict=True):
        nll = lse[row] - logits[row, target]
        total += w * ((1 - smooth) * nll + smooth * (lse[row] - logits[row].mean()) + z * lse[row] ** 2)
        one_hot = np.zeros(logits.shape[1])
        one_hot[target] = 1.0
        by_logits[row] += w * (
            (1 - smooth) * (p[row] - one_hot)
            + smooth * (p[row] - 1 / len(one_hot))
            + 2 * z * lse[row] * p[row]
        )
    if cap is not None:
        by_logits = by_logits * (1 - (logits / cap) ** 2)
    by_logits = by_logits * scale
    return total, by_logits @ weight, by_logits.T @ hidden


def _head(draw: np.random.Generator) -> float:
    rows, width, vocabulary = int(draw.integers(1, 40)), int(draw.integers(2, 20)), int(draw.integers(3, 60))
    count = rows + int(draw.integers(0, 10))
    row_of = np.sort(np.concatenate([np.arange(rows), draw.integers(0, rows, count - rows)]))
    targets, weights = draw.integers(0, vocabulary, count), draw.choice([0.5, 1.0, 2.0], count)
    smooth, z = float(draw.choice([0.0, 0.1])), float(draw.choice([0.0, 1e-3]))
    scale, cap = float(draw.choice([1.0, 0.25])), draw.choice(np.array([None, 3.0], dtype=object))
    hidden = torch.from_numpy(draw.normal(size=(rows, width)).astype(np.float32)).requires_grad_()
    weight = torch.from_numpy(draw.normal(size=(vocabulary, width)).astype(np.float32)).requires_grad_()
    grading = Grading.of(
        row_of, targets, weights.astype(np.float32), num_rows=rows, label_smoothing=smooth, z_loss=z
    )
    loss, _ = head_loss(hidden, weight, None, grading, LogitRule(scale=scale, softcap=cap))
    loss.backward()  # type: ignore[no-untyped-call]
    total, by_hidden, by_weight = head_reference(
        hidden.detach().double().numpy(), weight.detach().double().numpy(), row_of, targets, weights,
        smooth=smooth, z=z, scale=scale, cap=cap,
    )  # fmt: skip
    assert hidden.grad is not None and weight.grad is not None
    return max(_apart(loss.detach(), total), _apart(hidden.grad, by_hidden), _apart(weight.grad, by_weight))


def _moves(draw: np.random.Generator, name: str) -> tuple[torch.Tensor, Array]:
    """A matrix after a few updates: ours, and the textbook's, with clipping before and the schedule's rate."""
    shape = (int(draw.integers(1, 6)), int(draw.integers(2, 8)))
    start = draw.normal(size=shape)
    decay, peak = float(draw.choice([0.0, 0.1])), 10 ** float(draw.uniform(-4, -1))
    steps, warmup = int(draw.integers(3, 9)), int(draw.integers(0, 3))
    clip = draw.choice(np.array([None, 0.5], dtype=object))
    schedule = Schedule("cosine", peak, steps, warmup)
    net = nn.Linear(shape[1], shape[0], bias=False)
    with torch.no_grad():
        net.weight.copy_(torch.from_numpy(start))
    masters = Masters(net, compute=torch.float32)
    optimizer = Optimizer(masters.parameters, name=name, weight_decay=decay, embeddings=frozenset())
    w, m, v = net.weight.detach().double().numpy().copy(), np.zeros(shape), np.zeros(shape)
    for step in range(steps):
        gradient, over = draw.normal(size=shape).astype(np.float32), float(draw.integers(1, 50))
        net.weight.grad = torch.from_numpy(gradient.copy())
        masters.clip(clip, over=over)
        optimizer.step(schedule.rate(step))
        rate = peak * (step + 1) / warmup if step < warmup else peak * 0.5 * (
            1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, steps - warmup)))
        )  # fmt: skip
        g = gradient.astype(np.float64) / over
        if clip is not None:
            g = g * min(1.0, clip / (np.sqrt((g**2).sum()) + 1e-6))
        if name == "adamw":
            w = w * (1 - rate * decay)
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
            w = w - rate * (m / (1 - 0.9 ** (step + 1))) / (np.sqrt(v / (1 - 0.999 ** (step + 1))) + 1e-8)
        else:
            g = g + decay * w
            m = g if step == 0 else 0.9 * m + g
            w = w - rate * m
    return net.weight.detach(), w


def _adapter(draw: np.random.Generator, *, dora: bool) -> float:
    """y = x W^T + s x A^T B^T; under DoRA each row of W + s B A is scaled to the length that W's had."""
    rank, width, out = int(draw.integers(1, 6)), int(draw.integers(2, 12)), int(draw.integers(2, 12))
    net: Any = nn.Sequential(nn.Linear(width, out, bias=False))
    config = LoraConfig(r=rank, lora_alpha=float(2 * rank), target_modules=["0"], use_dora=dora)
    layer: Any = get_peft_model(net, config).base_model.model[0]
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    nn.init.normal_(b)
    x = torch.from_numpy(draw.normal(size=(3, width)).astype(np.float32))
    ours = layer(x).detach()
    w64, a64, b64, x64 = (t.detach().double().numpy() for t in (net[0].base_layer.weight, a, b, x))
    whole = w64 + 2.0 * b64 @ a64
    if dora:
        whole = whole * (np.linalg.norm(w64, axis=1) / np.linalg.norm(whole, axis=1))[:, None]
    return _apart(ours, x64 @ whole.T)


KINDS: dict[str, Callable[[np.random.Generator], float]] = {
    "loss and gradients": _head,
    "AdamW": lambda draw: _apart(*_moves(draw, "adamw")),
    "SGD": lambda draw: _apart(*_moves(draw, "sgd")),
    "LoRA": lambda draw: _adapter(draw, dora=False),
    "DoRA": lambda draw: _adapter(draw, dora=True),
}
