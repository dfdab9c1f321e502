"""The kernels beside fp64: no further from it than torch's own operations in bf16, whatever the lengths and widths."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from burnish.kernels import operations
from burnish.kernels.library import kernels, why_none

pytestmark = pytest.mark.skipif(kernels() is None, reason=f"no kernels here: {why_none()}")

BF16 = torch.bfloat16
HALF_STEP = 2**-8
"""The most, relative, that rounding once to bf16 takes from a number; a step is twice that."""


def numbers(*shape: int, seed: int = 0, size: float = 1.0) -> Tensor:
    return (torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * size).to(BF16)


def rounded_once(found: Tensor, exact: Tensor) -> None:
    """What was computed in fp32 and rounded once is within a step of bf16 of the exact number."""
    torch.testing.assert_close(found.double(), exact, rtol=1.01 * HALF_STEP, atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(rows=st.integers(1, 40), width=st.integers(1, 100), seed=st.integers(0, 9))
def test_norms_and_their_gradients_are_rounded_once(rows: int, width: int, seed: int) -> None:
    x, weight = numbers(rows, width, seed=seed), numbers(width, seed=seed + 10)
    by, other = numbers(rows, width, seed=seed + 20), numbers(rows, width, seed=seed + 30)
    exact_x, exact_weight = (y.double().requires_grad_() for y in (x, weight))
    expected = exact_weight * exact_x * (exact_x.square().mean(-1, keepdim=True) + 1e-6).rsqrt()
    scale = operations.inverse_rms(x, 1e-6)
    rounded_once(operations.norm(x, weight, scale), expected.detach())
    dx, dw = torch.autograd.grad(expected, (exact_x, exact_weight), by.double())
    found = operations.norm_backward(by, other, x, weight, scale, of_x=True, of_weight=True)
    assert found[0] is not None
    assert found[1] is not None
    near = {"rtol": 1.01 * HALF_STEP, "atol": 1e-5 * float(1 + dx.abs().max())}  # what cancels is small
    torch.testing.assert_close(found[0].double(), dx + other.double(), **near)
    torch.testing.assert_close(found[1].double(), dw, rtol=1e-4, atol=1e-4)
    alone, none = operations.norm_backward(by, None, x, weight, scale, of_x=True, of_weight=False)
    assert alone is not None
    assert none is None
    torch.testing.assert_close(alone.double(), dx, **near)


@settings(max_examples=30, deadline=None)
@given(rows=st.integers(1, 9), width=st.integers(1, 70), seed=st.integers(0, 9))
def test_gates_and_their_gradients_are_rounded_once(rows: int, width: int, seed: int) -> None:
    gate, up, by = (numbers(rows, width, seed=seed + k, size=4.0) for k in (0, 10, 20))
    exact = [y.double().requires_grad_() for y in (gate, up)]
    expected = F.silu(exact[0]) * exact[1]
    rounded_once(operations.gate(gate, up), expected.detach())
    by_gate, by_up = torch.autograd.grad(expected, exact, by.double())
    over = torch.empty_like(gate)
    found = operations.gate_backward(by.clone(), gate, up, over=over)
    # silu' passes through zero, where a sum of two terms cancels
    torch.testing.assert_close(found[0].double(), by_gate, rtol=1.01 * HALF_STEP, atol=1e-4)
    rounded_once(found[1], by_up)
    assert found[0] is over


@settings(max_examples=30, deadline=None)
@given(
    vocabulary=st.integers(2, 300),
    counts=st.lists(st.integers(0, 3), min_size=1, max_size=9),
    size=st.sampled_from([0.1, 3.0, 40.0]),
    seed=st.integers(0, 9),
)
def test_grading_is_the_sum_of_weighted_cross_entropies(
    vocabulary: int, counts: list[int], size: float, seed: int
) -> None:
    """Rows without a target, with several, with the same one twice; logits far apart."""
    logits = numbers(len(counts), vocabulary, seed=seed, size=size)
    random = np.random.default_rng(seed)
    starts = torch.tensor([0, *np.cumsum(counts)])
    targets = torch.from_numpy(random.integers(0, min(vocabulary, 4), int(starts[-1])))
    weights = torch.from_numpy(random.choice([0.0, 0.5, 1.0, 2.0], len(targets)).astype(np.float32))
    row_of = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    exact = logits.double().requires_grad_()
    expected = F.cross_entropy(exact[row_of], targets, reduction="none")
    (slope,) = (
        torch.autograd.grad(expected @ weights.double(), exact)
        if len(targets)
        else (torch.zeros_like(exact),)
    )
    kept = logits.clone()
    nll = operations.grade(kept, starts, targets, weights, keep=False)
    torch.testing.assert_close(nll.double(), expected.detach(), rtol=1e-6, atol=1e-5)
    assert kept.equal(logits)
    operations.grade(kept, starts, targets, weights, keep=True)
    torch.testing.assert_close(kept.double(), slope, rtol=1.01 * HALF_STEP, atol=1e-6)


def test_what_is_not_finite_is_told_not_hidden() -> None:
    logits = numbers(3, 50)
    logits[0, 7], logits[1, 8] = torch.nan, torch.inf
    one = torch.arange(4), torch.tensor([1, 2, 3]), torch.ones(3)
    nll = operations.grade(logits, *one, keep=False)
    assert nll[:2].isnan().all()
    assert nll[2].isfinite()
    x = numbers(2, 40)
    x[0, 3] = torch.nan
    out = operations.norm(x, numbers(40), operations.inverse_rms(x, 1e-6))
    assert out[0].isnan().all()
    assert out[1].isfinite().all()


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_number_of_threads_changes_no_bit(threads: int) -> None:
    before = torch.get_num_threads()
    x, weight, by = numbers(70, 96), numbers(96, seed=1), numbers(70, 96, seed=2)

    def compute() -> list[Tensor | None]:
        scale = operations.inverse_rms(x, 1e-6)
        dx, dw = operations.norm_backward(by, None, x, weight, scale, of_x=True, of_weight=True)
        return [operations.norm(x, weight, scale), dx, dw]

    try:
        torch.set_num_threads(1)
        alone = compute()
        torch.set_num_threads(threads)
        for one, other in zip(alone, compute(), strict=True):
            assert one is not None
            assert other is not None
            assert one.equal(other)
    finally:
        torch.set_num_threads(before)
