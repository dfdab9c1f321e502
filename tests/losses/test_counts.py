"""Rows with several targets, weights all alike, numbers of every type: beside autograd, and counted by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from burnish.losses import cross_entropy
from burnish.losses.cross_entropy import Grading, _Gradients, head_loss, token_nll, weighted_sum


def plain_loss(
    hidden: torch.Tensor, head: torch.Tensor, row_of: list[int], targets: list[int], weights: list[float]
) -> torch.Tensor:
    logits = (hidden @ head.t())[row_of]
    return weighted_sum(token_nll(logits, torch.tensor(targets)), torch.tensor(weights, dtype=hidden.dtype))


@pytest.mark.parametrize(
    ("row_of", "weights", "targets"),
    [
        ([0, 0, 1, 1, 2, 2], [1.0] * 6, [1, 4, 2, 0, 3, 1]),  # each row's softmax counts twice
        ([0, 1, 2], [2.0] * 3, [1, 4, 2]),
        ([0, 0, 1, 1, 2, 2], [0.5] * 6, [1, 4, 2, 0, 3, 1]),  # and these come to one
        ([0, 0, 2], [1.0, 0.0, 3.0], [1, 4, 2]),  # a row that nothing is asked of
        ([0, 0, 1], [1.0, 2.0, 1.0], [3, 3, 0]),  # the same target twice
    ],
)
@pytest.mark.parametrize("block", [1, 10, 10_000])
def test_a_rows_softmax_counts_once_for_each_of_its_targets_with_their_weights(
    row_of: list[int],
    weights: list[float],
    targets: list[int],
    block: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cross_entropy, "BLOCK_LOGITS", block)
    torch.manual_seed(0)
    hidden = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    head = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    made = Grading.of(np.array(row_of), np.array(targets), np.array(weights), num_rows=3)
    summed, _ = head_loss(hidden, head, None, made)
    expected = plain_loss(hidden, head, row_of, targets, weights)
    torch.testing.assert_close(summed, expected, rtol=1e-12, atol=0)
    for one, other in zip(
        torch.autograd.grad(summed, [hidden, head]),
        torch.autograd.grad(expected, [hidden, head]),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize(
    ("dtype", "exact"),
    [(torch.float64, torch.float64), (torch.float32, torch.float32), (torch.bfloat16, torch.float32)],
)
@pytest.mark.parametrize("rows", [0, 1, 3])
def test_losses_are_in_fp32_or_better_and_of_no_rows_they_are_nothing(
    dtype: torch.dtype, exact: torch.dtype, rows: int
) -> None:
    made = Grading.of(np.arange(rows), np.arange(rows), np.ones(rows, np.float32), num_rows=rows)
    hidden = torch.zeros(rows, 4, dtype=dtype)
    summed, nll = head_loss(hidden, torch.zeros(8, 4, dtype=dtype), None, made)
    assert summed.dtype == nll.dtype == exact and nll.shape == (rows,)
    assert float(summed) == pytest.approx(rows * math.log(8)) and summed.shape == ()
    assert token_nll(torch.zeros(2, 8, dtype=dtype), torch.tensor([0, 7])).dtype == exact


def test_a_likelihood_in_fp64_is_not_rounded_on_its_way() -> None:
    logits = torch.tensor([[1e-12, 0.0]], dtype=torch.float64)
    assert float(token_nll(logits, torch.tensor([0]))) == pytest.approx(math.log(2) - 0.5e-12, abs=1e-15)


def test_a_bf16_heads_gradient_is_added_up_in_fp32_and_rounded_once() -> None:
    weight = torch.zeros(3, 2, dtype=torch.bfloat16)
    hidden = torch.ones(3, 2, dtype=torch.bfloat16)
    taken = _Gradients(hidden, weight, None, [False, True, False, False], None)
    # 256 + 1 + 1: in bf16, whose steps are of 2 there, each one would be lost.
    for row, value in enumerate((256.0, 1.0, 1.0)):
        taken.add(row, row + 1, torch.full((1, 3), value, dtype=torch.bfloat16))
    assert taken._total is not None and taken._total.dtype == torch.float32
    taken.finish()
    assert (
        taken._head is not None
        and taken._head.dtype == torch.bfloat16
        and taken._head.tolist() == [[258.0, 258.0]] * 3
    )


def test_one_chunk_is_its_own_gradient_and_of_no_rows_it_is_zero() -> None:
    weight = torch.zeros(3, 2)
    hidden = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    one = _Gradients(hidden, weight, torch.zeros(3), [True, True, True, False], None)
    by = torch.tensor([[1.0, 0.0, 2.0], [0.0, 1.0, 1.0]])
    one.add(0, 2, by)
    one.finish()
    rows, head, bias, values = one.all
    assert rows is not None and rows.tolist() == [[0.0, 0.0], [0.0, 0.0]]
    assert head is not None and head.tolist() == [[1.0, 2.0], [3.0, 4.0], [5.0, 8.0]]
    assert bias is not None and bias.tolist() == [1.0, 1.0, 3.0] and values is None
    none = _Gradients(hidden[:0], weight, None, [False, True, False, False], None)
    none.finish()
    assert none.all[1] is not None and none.all[1].tolist() == [[0.0, 0.0]] * 3
    frozen = _Gradients(hidden, weight, torch.zeros(3), [False, False, False, False], None)
    frozen.add(0, 2, by)
    frozen.finish()
    assert frozen.all == [None, None, None, None]


def test_without_gradients_none_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[tuple[int, int]] = []
    monkeypatch.setattr(_Gradients, "add", lambda self, first, stop, logits: taken.append((first, stop)))
    made = Grading.of(np.arange(3), np.arange(3), np.ones(3, np.float32), num_rows=3)
    hidden, head = torch.ones(3, 4, requires_grad=True), torch.ones(5, 4, requires_grad=True)
    with torch.no_grad():
        head_loss(hidden, head, None, made)
    head_loss(hidden.detach(), head.detach(), None, made)
    assert taken == []
    head_loss(hidden, head, None, made)
    assert taken == [(0, 3)]
