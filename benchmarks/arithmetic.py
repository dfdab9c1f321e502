"""The FLOPs that a step cannot do without, and how fast this machine multiplies the matrices they are made of.

    python benchmarks/arithmetic.py s30            the peak in bf16 and fp32, as JSON

Necessary is: no padding, logits of graded positions only, each prefix that a batch's sequences share once, nothing
recomputed. Backward costs twice the forward; once for LoRA, whose base needs no weight gradient.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

Shape = dict[str, int]


@dataclass(frozen=True, slots=True)
class Necessary:
    """One step's share: tokens as written, tokens once each prefix is counted once, FLOPs by method."""

    tokens: int
    distinct_tokens: int
    full: float
    lora: float


def necessary(
    ids: Sequence[Sequence[int]], graded: Sequence[Sequence[int]], shape: Shape, *, rank: int = 16
) -> Necessary:
    """What one optimiser step over these sequences cannot leave out.

    Sequences `a b c` and `a b d` have four distinct tokens; `b` predicts both `c` and `d`, and its logits are
    computed once.
    """
    order = sorted(range(len(ids)), key=lambda i: list(ids[i]))
    distinct = keys_seen = 0
    rows: set[tuple[int, int]] = set()  # (sequence that a token is first met in, its place)
    owner: list[int] = []  # for each place of the sequence before, who it was first met in
    before: Sequence[int] = ()
    for i in order:
        common = common_prefix(before, ids[i])
        owner = owner[:common] + [i] * (len(ids[i]) - common)
        distinct += len(ids[i]) - common
        keys_seen += sum(range(common + 1, len(ids[i]) + 1))
        rows |= {(owner[k - 1], k - 1) for k in range(1, len(ids[i])) if graded[i][k]}
        before = ids[i]
    linear = 2 * distinct * layer_parameters(shape) * shape["layers"]
    attention = 4 * keys_seen * shape["hidden"] * shape["layers"]
    head = 2 * len(rows) * shape["hidden"] * shape["vocab"]
    adapter = 2 * distinct * adapter_parameters(shape, rank) * shape["layers"]
    return Necessary(
        tokens=sum(map(len, ids)),
        distinct_tokens=distinct,
        full=float(3 * (linear + attention + head)),
        lora=float(2 * (linear + head) + 3 * (attention + adapter)),
    )


def common_prefix(one: Sequence[int], other: Sequence[int]) -> int:
    for place, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return place
    return min(len(one), len(other))


def matrices(shape: Shape) -> list[tuple[int, int]]:
    """The weights of one layer that a forward multiplies by, as (in, out); q, k, v and gate, up as one each."""
    hidden, inner = shape["hidden"], shape["intermediate"]
    head = hidden // shape["heads"]
    return [
        (hidden, hidden + 2 * head * shape["kv_heads"]),
        (hidden, hidden),
        (hidden, 2 * inner),
        (inner, hidden),
    ]


def layer_parameters(shape: Shape) -> int:
    return sum(a * b for a, b in matrices(shape))


def adapter_parameters(shape: Shape, rank: int) -> int:
    """LoRA on all seven linear layers: rank x (in + out) each."""
    hidden, inner = shape["hidden"], shape["intermediate"]
    small = hidden // shape["heads"] * shape["kv_heads"]
    each = [hidden + hidden, 2 * (hidden + small), hidden + hidden, 2 * (hidden + inner), inner + hidden]
    return rank * sum(each)


def gemm_peak(shape: Shape, *, tokens: int = 1024, seconds: float = 0.25) -> dict[str, float]:
    """FLOP/s over one step's matrix products, forward and both backward ones, each at its best of many runs."""
    import torch

    products = [(*matrix, tokens, shape["layers"]) for matrix in matrices(shape)]
    products.append((shape["hidden"], shape["vocab"], tokens // 2, 1))
    peaks = {}
    for dtype in (torch.bfloat16, torch.float32):
        flops = taken = 0.0
        for width, out, rows, times in products:
            x, w, g = (torch.randn(*size).to(dtype) for size in ((rows, width), (out, width), (rows, out)))
            for one, other in ((x, w.T), (g, w), (g.T, x)):
                flops += 2 * width * out * rows * times
                taken += best_of(one, other, seconds) * times
        peaks[str(dtype).removeprefix("torch.")] = flops / taken
    return peaks


def best_of(one: object, other: object, seconds: float) -> float:
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        started = time.perf_counter()
        one @ other  # type: ignore[operator]
        best = min(best, time.perf_counter() - started)
    return best


if __name__ == "__main__":
    from burnish.parallel.runtime import prepare_process

    prepare_process()
    from workloads import SHAPES

    print(json.dumps(gemm_peak(SHAPES[sys.argv[1]])))
