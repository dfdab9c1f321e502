"""What is asked of the head's rows, cut into chunks and put in order; and memory that is used again."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from burnish.losses import cross_entropy
from burnish.losses.cross_entropy import (
    PLAIN,
    Grading,
    LogitRule,
    Rows,
    chunks,
    grade_logits,
    head_loss,
    workspace,
)


def grading(row_of: list[int], weights: list[float] | None = None, **keys: float) -> Grading:
    targets = np.arange(len(row_of)) + 10
    given = np.ones(len(row_of)) if weights is None else np.array(weights)
    num_rows = max(row_of, default=-1) + 1
    return Grading.of(np.array(row_of), targets, given.astype(np.float32), num_rows=num_rows, **keys)


def test_targets_are_put_in_the_order_of_their_rows_and_values_come_back_in_the_order_given() -> None:
    made = grading([2, 0, 2, 1, 0], [1, 2, 3, 4, 5])
    assert made.row_of.tolist() == [0, 0, 1, 2, 2] and made.starts == (0, 2, 3, 5)
    assert made.targets.tolist() == [11, 14, 13, 10, 12] and made.weights.tolist() == [2, 5, 4, 1, 3]
    assert made.as_given(made.targets).tolist() == [10, 11, 12, 13, 14]
    assert not made.plain and (made.label_smoothing, made.z_loss) == (0.0, 0.0)
    in_order = grading([0, 1, 1, 2])
    assert in_order.order is None and in_order.as_given(in_order.targets) is in_order.targets


def test_a_chunk_counts_its_rows_from_its_own_first() -> None:
    made = grading([0, 0, 1, 2, 2, 3], [1, 2, 3, 4, 5, 6], label_smoothing=0.1, z_loss=0.2)
    part = made.rows(1, 3)
    assert part.row_of.tolist() == [0, 1, 1] and part.targets.tolist() == [12, 13, 14]
    assert part.weights.tolist() == [3, 4, 5] and part.starts == (0, 1, 3) and part.order is None
    assert (part.label_smoothing, part.z_loss, part.plain) == (0.1, 0.2, False)
    assert grading([0, 1, 2]).rows(1, 3).plain


@pytest.mark.parametrize(
    ("row_of", "weights", "keys", "plain"),
    [
        ([0, 1, 2], None, {}, True),
        ([2, 1, 0], None, {}, True),
        ([0, 1, 1], None, {}, False),
        ([0, 2], None, {}, False),
        ([0, 1, 1, 3], None, {}, False),
        ([0, 1], [1, 0.5], {}, False),
        ([0, 1], None, {"label_smoothing": 0.1}, False),
        ([0, 1], None, {"z_loss": 0.1}, False),
    ],
)
def test_plain_is_one_target_of_weight_one_for_every_row(
    row_of: list[int], weights: list[float] | None, keys: dict[str, float], plain: bool
) -> None:
    assert grading(row_of, weights, **keys).plain is plain


def test_chunks_are_of_one_size_but_for_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cross_entropy, "CHUNK", {"cpu": 3, "cuda": 5})
    assert chunks(torch.zeros(7, 1)) == [(0, 3), (3, 6), (6, 7)]
    assert chunks(torch.zeros(6, 1)) == [(0, 3), (3, 6)]
    assert chunks(torch.zeros(0, 1)) == []
    assert chunks(torch.zeros(6, 1, device="meta")) == [(0, 5), (5, 6)]


def test_memory_is_used_again_where_it_is_as_long_and_as_wide_and_of_that_type() -> None:
    like = torch.zeros(1)
    first = workspace("test", torch.Size([4, 3]), like)
    assert first.shape == (4, 3) and first.dtype == torch.float32
    assert workspace("test", torch.Size([4, 3]), like).data_ptr() == first.data_ptr()
    shorter = workspace("test", torch.Size([2, 3]), like)
    assert shorter.shape == (2, 3) and shorter.data_ptr() == first.data_ptr()
    longer = workspace("test", torch.Size([5, 3]), like)
    assert longer.shape == (5, 3) and longer.data_ptr() != first.data_ptr()
    assert workspace("test", torch.Size([4, 3]), like).data_ptr() == longer.data_ptr()
    others = [
        workspace("other", torch.Size([5, 3]), like),
        workspace("test", torch.Size([5, 2]), like),
        workspace("test", torch.Size([5, 3]), like, dtype=torch.float64),
    ]
    assert len({longer.data_ptr(), *(one.data_ptr() for one in others)}) == 4
    assert others[2].dtype == torch.float64
    elsewhere = torch.zeros(1, device="meta")
    made = workspace("test", torch.Size([5, 3]), elsewhere)
    assert made.device.type == "meta" and made.shape == (5, 3)
    assert all(key[0] != "test" or found.device.type == "cpu" for key, found in cross_entropy._kept.items())


def test_a_model_does_nothing_to_its_logits_unless_it_says_so() -> None:
    assert (PLAIN.scale, PLAIN.softcap) == (1.0, None) and LogitRule() == PLAIN


def test_logits_are_left_alone_without_keep_and_hold_the_gradient_with_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for smoothing, block in ((0.0, 8), (0.1, 8), (0.0, 1), (0.1, 1)):
        monkeypatch.setattr(cross_entropy, "BLOCK_LOGITS", block)
        torch.manual_seed(0)
        logits = torch.randn(5, 4, dtype=torch.float64)
        made = Grading.of(
            np.arange(5),
            np.array([0, 1, 2, 3, 0]),
            np.ones(5, np.float32),
            num_rows=5,
            label_smoothing=smoothing,
        )
        leaf = logits.clone().requires_grad_()
        expected = torch.nn.functional.cross_entropy(
            leaf, made.targets, reduction="sum", label_smoothing=smoothing
        )
        expected.backward()
        before = logits.clone()
        for keep in (False, True):
            summed, nll = grade_logits(logits, made, PLAIN, keep=keep)
            torch.testing.assert_close(summed, expected.detach())
            plain = -before.log_softmax(-1)[torch.arange(5), made.targets]
            torch.testing.assert_close(nll, plain)
            assert torch.equal(logits, before) is not keep
        torch.testing.assert_close(logits, leaf.grad)


def test_the_trained_rows_of_a_frozen_head_get_their_gradient_and_take_the_place_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cross_entropy, "CHUNK", {"cpu": 4})
    torch.manual_seed(0)
    hidden, weight = torch.randn(11, 5), torch.randn(9, 5)
    index, values = torch.tensor([7, 2]), torch.randn(2, 5, requires_grad=True)
    made = Grading.of(np.arange(11), np.arange(11) % 9, np.ones(11, np.float32), num_rows=11)
    rows = Rows(index, values)
    before = weight.clone()
    summed, _ = head_loss(hidden, weight, None, made, rows=rows)
    assert torch.equal(weight, before)
    (found,) = torch.autograd.grad(summed, values)
    whole = rows.written_into(weight)
    expected = torch.nn.functional.cross_entropy(hidden @ whole.t(), made.targets, reduction="sum")
    torch.testing.assert_close(summed, expected)
    torch.testing.assert_close(found, torch.autograd.grad(expected, values)[0])


@pytest.mark.parametrize("chunk", [3, 6, 64])
def test_a_gradient_of_the_head_stays_what_it_was_when_the_next_one_is_taken(
    chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cross_entropy, "CHUNK", {"cpu": chunk})
    torch.manual_seed(0)
    weight = torch.randn(9, 5, requires_grad=True)
    made = Grading.of(np.arange(11), np.arange(11) % 9, np.ones(11, np.float32), num_rows=11)
    taken = []
    for _ in range(2):
        (one,) = torch.autograd.grad(head_loss(torch.randn(11, 5), weight, None, made)[0], weight)
        taken.append((one, one.clone()))
    assert all(torch.equal(one, kept) for one, kept in taken)


def test_a_gradient_that_flows_in_is_multiplied_with() -> None:
    torch.manual_seed(0)
    hidden, weight = torch.randn(3, 4, requires_grad=True), torch.randn(7, 4, requires_grad=True)
    made = Grading.of(np.arange(3), np.arange(3), np.ones(3, np.float32), num_rows=3)
    once = torch.autograd.grad(head_loss(hidden, weight, None, made)[0], [hidden, weight])
    thrice = torch.autograd.grad(3 * head_loss(hidden, weight, None, made)[0], [hidden, weight])
    for one, other in zip(once, thrice, strict=True):
        torch.testing.assert_close(3 * one, other)
