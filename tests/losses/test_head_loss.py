"""From hidden states straight to the loss: the same numbers as all logits and autograd, one chunk at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from burnish.losses import cross_entropy
from burnish.losses.cross_entropy import Grading, LogitRule, head_loss

CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "weights": {"weighted": True},
    "several targets a row": {"targets": 17, "weighted": True},
    "bias": {"bias": True},
    "label smoothing": {"label_smoothing": 0.1, "weighted": True},
    "z-loss": {"z_loss": 1e-2, "targets": 17},
    "scaled (Cohere, Granite)": {"rule": LogitRule(scale=0.25)},
    "capped (Gemma 2)": {"rule": LogitRule(softcap=1.5), "bias": True},
    "all at once": {
        "rule": LogitRule(scale=0.5, softcap=2.0),
        "bias": True,
        "targets": 17,
        "weighted": True,
        "label_smoothing": 0.1,
        "z_loss": 1e-2,
    },
}


def case(
    *,
    targets: int = 11,
    weighted: bool = False,
    bias: bool = False,
    rule: LogitRule = cross_entropy.PLAIN,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None, Grading, LogitRule]:
    """Eleven rows of five numbers, a vocabulary of nine, in fp64."""
    draw = np.random.default_rng(0)
    torch.manual_seed(0)
    row_of = np.concatenate([np.arange(11), draw.integers(0, 11, targets - 11)])
    if targets > 11:
        draw.shuffle(row_of)
    weights = draw.choice([0.5, 1.0, 2.0, 0.0], targets) if weighted else np.ones(targets)
    grading = Grading.of(
        row_of,
        draw.integers(0, 9, targets),
        weights.astype(np.float32),
        num_rows=11,
        label_smoothing=label_smoothing,
        z_loss=z_loss,
    )
    hidden, weight = torch.randn(11, 5).double(), torch.randn(9, 5).double()
    return hidden, weight, torch.randn(9).double() if bias else None, grading, rule


def reference(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    grading: Grading,
    rule: LogitRule,
) -> torch.Tensor:
    """All logits, one formula, autograd."""
    logits = F.linear(hidden, weight, bias) * rule.scale
    if rule.softcap is not None:
        logits = rule.softcap * torch.tanh(logits / rule.softcap)
    log_p = logits.log_softmax(-1)[grading.row_of]
    nll = -log_p.gather(1, grading.targets[:, None])[:, 0]
    smooth = -log_p.mean(-1)
    lse = logits.logsumexp(-1)[grading.row_of]
    share = grading.label_smoothing
    return (grading.weights * ((1 - share) * nll + share * smooth + grading.z_loss * lse**2)).sum()


@pytest.mark.parametrize("chunk", [512, 4])
@pytest.mark.parametrize("name", CASES)
def test_loss_and_gradients_are_those_of_all_logits_at_once(
    name: str, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cross_entropy, "CHUNK", {"cpu": chunk})
    monkeypatch.setattr(cross_entropy, "BLOCK_LOGITS", 27)  # three rows
    hidden, weight, bias, grading, rule = case(**CASES[name])
    leaves = [t.requires_grad_() for t in (hidden, weight, bias) if t is not None]
    expected = reference(hidden, weight, bias, grading, rule)
    wanted = torch.autograd.grad(expected, leaves)
    found, _ = head_loss(hidden, weight, bias, grading, rule)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    for one, other in zip(torch.autograd.grad(found, leaves), wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_gradcheck(name: str) -> None:
    hidden, weight, bias, grading, rule = case(**CASES[name])
    leaves = [t.requires_grad_() for t in (hidden, weight, bias) if t is not None]
    assert torch.autograd.gradcheck(
        lambda h, w, *b: head_loss(h, w, b[0] if b else None, grading, rule)[0], leaves
    )


def test_nll_of_each_target_comes_in_the_order_in_which_targets_were_given() -> None:
    hidden, weight = torch.randn(3, 4), torch.randn(7, 4)
    row_of, targets = np.array([2, 0, 1, 2]), np.array([5, 1, 6, 3])
    grading = Grading.of(row_of, targets, np.ones(4, np.float32), num_rows=3)
    _, nll = head_loss(hidden, weight, None, grading)
    log_p = (hidden @ weight.t()).log_softmax(-1)
    torch.testing.assert_close(nll, -log_p[torch.from_numpy(row_of), torch.from_numpy(targets)])


@pytest.mark.parametrize("plain", [True, False])
def test_an_answer_that_is_all_but_impossible_has_its_finite_loss(plain: bool) -> None:
    hidden, weight = torch.tensor([[1.0], [2.0]]), torch.tensor([[0.0], [300.0]])
    weights = np.ones(2, np.float32) if plain else np.array([1, 0.5], np.float32)
    grading = Grading.of(np.arange(2), np.zeros(2, np.int64), weights, num_rows=2)
    summed, nll = head_loss(hidden.requires_grad_(), weight, None, grading)
    summed.backward()
    assert nll.tolist() == [300.0, 600.0]
    assert hidden.grad is not None and hidden.grad.flatten().tolist() == [300.0, 300.0 * weights[1]]


def test_a_target_of_weight_zero_adds_nothing_to_loss_or_gradient() -> None:
    hidden, weight = torch.randn(2, 4, requires_grad=True), torch.randn(7, 4)
    grading = Grading.of(np.arange(2), np.array([1, 2]), np.array([1, 0], np.float32), num_rows=2)
    summed, nll = head_loss(hidden, weight, None, grading)
    summed.backward()
    assert float(summed) == float(nll[0]) and hidden.grad is not None
    assert not hidden.grad[1].any() and hidden.grad[0].any()


def test_a_frozen_head_gets_no_gradient_and_nothing_is_computed_where_none_is_asked() -> None:
    hidden, weight = torch.randn(2, 4, requires_grad=True), torch.randn(7, 4)
    grading = Grading.of(np.arange(2), np.array([1, 2]), np.ones(2, np.float32), num_rows=2)
    head_loss(hidden, weight, None, grading)[0].backward()
    assert weight.grad is None
    with torch.no_grad():
        assert not head_loss(hidden, weight, None, grading)[0].requires_grad


def test_no_rows_at_all_give_zero() -> None:
    hidden, weight = torch.randn(0, 4, requires_grad=True), torch.randn(7, 4, requires_grad=True)
    none = np.zeros(0, np.int64)
    summed, nll = head_loss(hidden, weight, None, Grading.of(none, none, np.zeros(0, np.float32), num_rows=0))
    summed.backward()
    assert float(summed) == 0.0 and nll.shape == (0,)
    assert weight.grad is not None and not weight.grad.any()


def test_bf16_hidden_states_are_graded_in_fp32_and_close_to_fp32() -> None:
    torch.manual_seed(0)
    hidden, weight = torch.randn(600, 32), torch.randn(97, 32) / 6
    targets = np.random.default_rng(0).integers(0, 97, 600)
    grading = Grading.of(np.arange(600), targets, np.ones(600, np.float32), num_rows=600)
    exact = [t.clone().requires_grad_() for t in (hidden, weight)]
    low = [t.bfloat16().requires_grad_() for t in (hidden, weight)]
    expected, _ = head_loss(exact[0], exact[1], None, grading)
    found, nll = head_loss(low[0], low[1], None, grading)
    assert nll.dtype == found.dtype == torch.float32
    for loss in (expected, found):
        loss.backward()
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=0)
    for one, other in zip(low, exact, strict=True):
        assert one.grad is not None and other.grad is not None
        assert (one.grad.float() - other.grad).norm() < 0.01 * other.grad.norm()
