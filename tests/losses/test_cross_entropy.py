"""The loss is sum(weight * -ln p) over graded tokens, to be divided once."""

from __future__ import annotations

import math

import pytest
import torch

from burnish.losses.cross_entropy import token_nll, weighted_sum


def logits_for(probabilities: list[float]) -> torch.Tensor:
    """Rows of two logits whose softmax gives the first class the stated probability."""
    return torch.tensor([[math.log(p), math.log(1 - p)] for p in probabilities])


@pytest.mark.parametrize(
    ("probabilities", "mean"), [([0.05, 0.4, 0.1, 0.3], "1.85"), ([0.85, 0.92, 0.95, 0.9], "0.10")]
)
def test_the_classic_example_of_the_field(probabilities: list[float], mean: str) -> None:
    nll = token_nll(logits_for(probabilities), torch.zeros(4, dtype=torch.long))
    weights = torch.ones(4)
    assert f"{float(weighted_sum(nll, weights) / weights.sum()):.2f}" == mean


def test_a_target_of_weight_zero_adds_nothing_even_where_it_is_impossible() -> None:
    nll = torch.tensor([1.0, math.inf], requires_grad=True)
    loss = weighted_sum(nll, torch.tensor([1.0, 0.0]))
    loss.backward()
    assert loss == 1.0
    assert nll.grad is not None and nll.grad.tolist() == [1.0, 0.0]


def test_the_loss_is_computed_in_fp32_whatever_the_logits_are() -> None:
    assert (
        token_nll(torch.zeros(3, 8, dtype=torch.bfloat16), torch.zeros(3, dtype=torch.long)).dtype
        == torch.float32
    )


def test_one_hot_logits_of_the_target_give_zero_and_of_another_token_give_a_large_loss() -> None:
    targets = torch.tensor([2, 5])
    right = 100.0 * torch.nn.functional.one_hot(targets, 8)
    wrong = 100.0 * torch.nn.functional.one_hot(targets - 1, 8)
    assert float(token_nll(right, targets).sum()) == 0.0
    assert float(token_nll(wrong, targets).min()) > 10
